"""Where studies are kept: an SQLite file, or a database that several machines share.

Optuna stores trials. What it leaves open is added here: work that only one coordinator does at a
time, whatever machine it is on. In PostgreSQL that is an advisory lock, which the server releases
when a connection dies; beside an SQLite file it is the lock of a second, empty file.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.core.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL, Engine

HEARTBEAT = 20
"""Seconds between the signs of life of a running trial."""

GRACE = 90
"""Seconds without a sign of life after which a trial is given to another coordinator."""

_PATIENCE = 0.2  # seconds between looks at a lock that another process holds


class Storage:
    """A database of studies.

    Parameters
    ----------
    where : str
        A URL such as ``sqlite:///study.db`` or ``postgresql://user@host/studies``, or the name of
        an SQLite file.
    heartbeat, grace : int
        Seconds between signs of life of a trial, and without one until it counts as lost.
    """

    def __init__(self, where: str, heartbeat: int = HEARTBEAT, grace: int = GRACE) -> None:
        self.url = _url(where)
        self.heartbeat, self.grace = heartbeat, grace
        self._engine = _engine(self.url)
        with self.exclusive("tables"):
            self.rdb = self._open()

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Context that one process at a time is in, of all that use this storage and name."""
        if self.url.get_backend_name() == "sqlite":
            return _file_lock(f"{self.url.database}.lock")
        if self.url.get_backend_name() == "postgresql":
            return _advisory_lock(self._engine, name)
        return nullcontext()

    def stale(self, study_id: int) -> list[int]:
        """Identifiers of running trials without a sign of life for longer than the grace period."""
        return self.rdb._get_stale_trial_ids(study_id)

    def _open(self) -> RDBStorage:
        from optuna.storages import RDBStorage

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Optuna calls experimental
                return RDBStorage(
                    self.url.render_as_string(hide_password=False),
                    engine_kwargs=_options(self.url),
                    heartbeat_interval=self.heartbeat,
                    grace_period=self.grace,
                )
        except Exception as error:
            raise UserError(f"storage {self} cannot be opened: {_first_line(error)}") from error


def _url(where: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(where if "://" in where else f"sqlite:///{where}")
    except ArgumentError as error:
        raise UserError(
            f"storage {where!r} is no URL such as sqlite:///study.db or postgresql://host/studies"
        ) from error
    if url.get_backend_name() == "sqlite":
        _check_file(url, where)
    elif url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    return url


def _check_file(url: URL, where: str) -> None:
    if url.database in (None, "", ":memory:"):
        raise UserError(f"storage {where!r} names no file; write sqlite:///study.db")
    path = Path(str(url.database))
    if path.is_dir():
        raise UserError(f"storage {where!r}: {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"storage {where!r}: there is no folder {path.parent}")
    with suppress(OSError), path.open("rb") as file:
        start = file.read(16)
        if start and start != b"SQLite format 3\0":
            raise UserError(f"storage {where!r}: {path} is not an SQLite database")


def _options(url: URL) -> dict[str, object]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 60.0}}
    return {"pool_pre_ping": True}


def _engine(url: URL) -> Engine:
    """Connections of their own for locks."""
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    shown = url.render_as_string(hide_password=True)
    try:
        engine = sqlalchemy.create_engine(url, poolclass=NullPool)
        if url.get_backend_name() != "sqlite":
            engine.connect().close()
    except ImportError as error:
        hint = "; pip install 'understudy[scale]' brings it" if "psycopg" in str(error) else ""
        raise UserError(f"storage {shown} needs the driver {error.name!r}{hint}") from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UserError(f"storage {shown} cannot be reached: {_first_line(error)}") from error
    return engine


def _first_line(error: Exception) -> str:
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


@contextmanager
def _file_lock(path: str) -> Iterator[None]:
    with sqlite3.connect(path, timeout=0.0, isolation_level=None) as held:
        while True:
            try:
                held.execute("BEGIN EXCLUSIVE")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                time.sleep(_PATIENCE)
        try:
            yield
        finally:
            held.execute("ROLLBACK")
    held.close()


@contextmanager
def _advisory_lock(engine: Engine, name: str) -> Iterator[None]:
    from sqlalchemy import text

    digest = hashlib.sha256(f"understudy {name}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield
