"""Tables from files and back: CSV and its relatives, Parquet, NPZ.

What a file leaves open (delimiter, decimal comma, encoding) is settled from its first 64 KiB; what
is broken is refused in one sentence. Rows are counted from 1, without the header.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO, cast

import numpy as np
import pandas as pd

from understudy.core.errors import UserError
from understudy.core.space import nearest

TEXT = (".csv", ".tsv", ".txt", ".dat")
PARQUET = (".parquet", ".pq")
WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
ACCEPTED = ".csv, .tsv, .txt, .dat (also with .gz), .parquet and .npz"
SAMPLE_BYTES = 65536
SAMPLE_LINES = 200
WHITESPACE = r"\s+"
DELIMITERS = (",", ";", "\t", "|", WHITESPACE)
UNNAMED = "Unnamed: "

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.I)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
_LINE_END = re.compile(r"\r\n|\n|\r")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x19\x1b-\x1f]")


def read_table(path: str | os.PathLike[str], header: bool = True) -> pd.DataFrame:
    """Read a table of runs.

    Parameters
    ----------
    path : path
        ``.csv``, ``.tsv``, ``.txt``, ``.dat`` (also with ``.gz``), ``.parquet`` or ``.npz``. In an
        NPZ file an array ``(n,)`` is a column, an array ``x`` of shape ``(n, k)`` columns x0, x1...
    header : bool
        Whether a text file begins with the names of its columns; without, they are named
        column1, column2....

    Returns
    -------
    DataFrame
        At least one row; names of columns are distinct texts.

    Raises
    ------
    UserError
        The file cannot be found, or not be read as a table; the sentence says why.
    """
    path = _existing_file(Path(path).expanduser())
    read = _reader(path, header)
    try:
        df = read(path)
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as a table ({error})") from error
    except PermissionError as error:
        raise UserError(f"{path}: no permission to read it") from error
    df.columns = [str(name) for name in df.columns]
    _check_names(path, list(df.columns))
    if df.empty:
        raise UserError(f"{path}: holds no rows")
    return df


def write_table(df: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as ``.csv``, ``.tsv`` or ``.parquet``: whole, or not at all.

    Raises
    ------
    UserError
        The suffix is none of these, or the folder cannot be written to.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", *PARQUET):
        raise UserError(f"{path}: can write .csv, .tsv and .parquet, found {suffix or 'no suffix'}")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a file")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if suffix in PARQUET:
            df.to_parquet(unfinished, index=False)
        else:
            df.to_csv(unfinished, index=False, sep="\t" if suffix == ".tsv" else ",")
        os.replace(unfinished, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _existing_file(path: Path) -> Path:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give one of the files in it")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    if not path.exists():
        visible = sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))
        raise UserError(f"{path}: there is no such file{nearest(path.name, visible)}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty")
    return path


def _reader(path: Path, header: bool) -> Callable[[Path], pd.DataFrame]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
        if not suffixes or suffixes[-1] not in TEXT:
            suffixes = [path.suffix.lower()]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in TEXT:
        return lambda path: _read_text(path, header)
    if suffix in PARQUET:
        return _read_parquet
    if suffix == ".npz":
        return _read_npz
    if suffix in WORKBOOKS:
        raise UserError(f"{path}: is a workbook ({suffix}); export the sheet as CSV and give that")
    raise UserError(f"{path}: cannot read {suffix or 'a file without suffix'}; can read {ACCEPTED}")


def _check_names(path: Path, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{path}: column {name!r} is there twice; names must be distinct")
        seen.add(name)


# Text


@dataclass(frozen=True)
class _Dialect:
    """How a text file is to be read."""

    encoding: str
    delimiter: str
    decimal: str
    names: list[str]
    skip: int  # lines before the first row

    def split(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Cells of each record."""
        if self.delimiter == WHITESPACE:
            return (line.split() for line in lines)
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True)

    def body(self, path: Path) -> TextIO:
        """The file, opened where the first row begins."""
        compressed = path.suffix.lower() == ".gz"
        file = cast(TextIO, (gzip.open if compressed else open)(path, "rt", encoding=self.encoding))
        for _ in range(self.skip):
            file.readline()
        return file


def _read_text(path: Path, header: bool) -> pd.DataFrame:
    encoding, sample = _sample(path)
    dialect = _sniff(path, sample, encoding, header)
    try:
        df = _parse(path, dialect)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise _broken(path, "UTF-16 text", error) from error
        dialect = _sniff(path, sample, "latin-1", header)
        df = _parse(path, dialect)
    if len(df) and df.iloc[:, -1].isna().any():  # where a row that is too short shows
        _refuse_ragged(path, dialect)
    empty = [n for n in df.columns if n.startswith(UNNAMED) and df[n].isna().all()]
    return df.drop(columns=empty)


def _sample(path: Path) -> tuple[str, bytes]:
    """Encoding and first bytes of a file."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
    except (EOFError, OSError, zlib.error) as error:
        raise _broken(path, "gzip", error) from error
    if not sample:
        raise UserError(f"{path}: is empty")
    encoding = "utf-16" if sample[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = sample.decode(encoding if encoding == "utf-16" else "latin-1", errors="replace")
    if _CONTROL.search(text):
        raise UserError(f"{path}: holds binary data, not text")
    return encoding, sample


def _broken(path: Path, what: str, error: Exception) -> UserError:
    if isinstance(error, PermissionError):
        return UserError(f"{path}: no permission to read it")
    return UserError(f"{path}: cannot be read as {what}; it is truncated or damaged ({error})")


def _sniff(path: Path, sample: bytes, encoding: str, header: bool) -> _Dialect:
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError as error:
        if error.end < len(sample) - 4:  # else the sample cuts a character
            encoding = "latin-1"
        text = sample.decode(encoding, errors="ignore")
    if len(sample) == SAMPLE_BYTES and "\n" in text:
        text = text[: text.rindex("\n")]
    lines = _LINE_END.split(text)
    remarks = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    body = [line for line in lines[remarks:] if line.strip()][:SAMPLE_LINES]
    if not body:
        raise UserError(f"{path}: holds no rows")
    delimiter = _delimiter(body)
    decimal = "," if delimiter != "," and _has_decimal_comma(body, delimiter) else "."
    draft = _Dialect(encoding, delimiter, decimal, [], 0)
    return _with_names(path, draft, lines, remarks, header)


def _cells(lines: list[str], delimiter: str) -> list[list[str]]:
    if delimiter == WHITESPACE:
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _delimiter(body: list[str]) -> str:
    """The delimiter with most rows as wide as the first, then most numbers, then most cells."""
    scores = {}
    for delimiter in DELIMITERS:
        rows = _cells(body, delimiter)
        width = len(rows[0])
        if width > 1 and (delimiter != WHITESPACE or _holds_numbers(rows[1:] or rows)):
            agree = sum(len(row) == width for row in rows) / len(rows)
            scores[delimiter] = (agree, _share_of_numbers(rows), width)
    return max(scores, key=lambda d: scores[d], default=",")


def _share_of_numbers(rows: list[list[str]]) -> float:
    cells = [cell for row in rows for cell in row]
    return sum(map(_is_number, cells)) / max(len(cells), 1)


def _holds_numbers(rows: list[list[str]]) -> bool:
    """Whether blanks stand between numbers, rather than between words of a text."""
    several = sum(len(row) > 1 for row in rows)
    return several > len(rows) / 2 and _share_of_numbers(rows) >= 0.5


def _has_decimal_comma(body: list[str], delimiter: str) -> bool:
    cells = [cell.strip() for row in _cells(body, delimiter) for cell in row]
    commas = sum(bool(_DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    points = sum(bool(_DECIMAL_POINT.fullmatch(cell)) for cell in cells)
    return commas > points


def _with_names(
    path: Path, draft: _Dialect, lines: list[str], remarks: int, header: bool
) -> _Dialect:
    skip, last, first = _first_record(draft, lines, remarks)
    if not header:
        return _named(draft, [f"column{i + 1}" for i in range(len(first))], skip)
    if not _is_row_of_numbers(first):
        return _named(draft, first, last)
    if remarks:  # the last of them may be the header
        names = _cells([lines[remarks - 1].lstrip("# ")], draft.delimiter)[0]
        if len(names) == len(first):
            return _named(draft, names, skip)
    raise UserError(
        f"{path}: the first row holds only numbers, so there is no header; "
        "put the names of the columns in the first row"
    )


def _first_record(draft: _Dialect, lines: list[str], remarks: int) -> tuple[int, int, list[str]]:
    """Lines before the first record that is not blank, lines up to its end, its cells."""
    taken = remarks

    def counted() -> Iterator[str]:
        nonlocal taken
        for line in lines[remarks:]:
            taken += 1
            yield line + "\n"

    before = taken
    for cells in draft.split(counted()):
        if any(cell.strip() for cell in cells):
            return before, taken, cells
        before = taken
    raise AssertionError("a body that holds a row has a first record")


def _is_row_of_numbers(cells: list[str]) -> bool:
    """Whether all are numbers, and not the running numbers 0, 1, 2... of unnamed columns."""
    present = [cell.strip() for cell in cells if cell.strip()]
    running = len(present) > 2 and present == [str(i) for i in range(len(present))]
    return all(map(_is_number, present)) and not running


def _named(draft: _Dialect, names: list[str], skip: int) -> _Dialect:
    names = [" ".join(name.split()) or f"{UNNAMED}{i}" for i, name in enumerate(names)]
    return replace(draft, names=names, skip=skip)


def _parse(path: Path, dialect: _Dialect) -> pd.DataFrame:
    _check_names(path, dialect.names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            with dialect.body(path) as file:
                return pd.read_csv(
                    file,
                    sep=dialect.delimiter,
                    decimal=dialect.decimal,
                    names=dialect.names,
                    header=None,
                    index_col=False,
                    skipinitialspace=True,
                )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        _refuse_ragged(path, dialect)
        raise UserError(f"{path}: cannot be read as a table ({error})") from error
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path}: holds no rows") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken(path, "gzip", error) from error


def _refuse_ragged(path: Path, dialect: _Dialect) -> None:
    """Name the first row that has not as many cells as there are names."""
    expected = len(dialect.names)
    with dialect.body(path) as file:
        records = dialect.split(file)
        filled = (cells for cells in records if len(cells) > 1 or any(c.strip() for c in cells))
        for row, cells in enumerate(filled, start=1):
            if len(cells) != expected:
                raise UserError(
                    f"{path}: row {row} has {len(cells)} cells, expected {expected} as in the first"
                )


# Binary


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _broken(path, "Parquet", error) from error
    _check_names(path, table.column_names)
    for column in table.schema:
        if pa.types.is_nested(column.type):
            raise UserError(
                f"{path}: column {column.name!r} holds {column.type}, not single values"
            )
    df = table.to_pandas()
    if isinstance(df.index, pd.RangeIndex):
        return df
    return df.reset_index() if df.index.name else df.reset_index(drop=True)


def _read_npz(path: Path) -> pd.DataFrame:
    damaged = (zipfile.BadZipFile, EOFError, OSError, KeyError, zlib.error, MemoryError, ValueError)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {Path(n).stem: _npy(path, archive, n) for n in archive.namelist()}
    except UserError:
        raise
    except damaged as error:
        raise _broken(path, "NPZ", error) from error
    if not arrays:
        raise UserError(f"{path}: holds no arrays")
    return _frame(path, arrays)


def _npy(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    if not name.endswith(".npy"):
        raise UserError(f"{path}: holds {name!r}, which is not an array")
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
        if dtype.hasobject or dtype.names or dtype.kind == "c":
            raise UserError(
                f"{path}: array {name[:-4]!r} holds {dtype}; "
                "accepted are real numbers, truth values, text and dates"
            )
        body = archive.getinfo(name).file_size
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > body:
            raise UserError(f"{path}: array {name[:-4]!r} is shorter than its shape {shape} says")
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _frame(path: Path, arrays: dict[str, np.ndarray]) -> pd.DataFrame:
    columns: list[tuple[str, np.ndarray]] = []
    for name, array in arrays.items():
        if array.ndim not in (1, 2):
            raise UserError(
                f"{path}: array {name!r} has shape {array.shape}; accepted are (n,) and (n, k)"
            )
        if array.dtype.kind == "S":
            array = np.char.decode(array, "latin-1")
        if array.ndim == 1:
            columns.append((name, array))
        elif array.shape[1] == 1:
            columns.append((name, array[:, 0]))
        else:
            columns += [(f"{name}{j}", array[:, j]) for j in range(array.shape[1])]
    _check_names(path, [name for name, _ in columns])
    (first, column), *others = columns
    for name, other in others:
        if len(other) != len(column):
            raise UserError(
                f"{path}: {first!r} has {len(column)} rows, but {name!r} has {len(other)}; "
                "all arrays must have as many"
            )
    return pd.DataFrame(dict(columns))
