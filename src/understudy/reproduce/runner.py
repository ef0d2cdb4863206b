"""Run the reproduction of a system and keep what it measured."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from understudy import __version__
from understudy.core.errors import UserError
from understudy.core.systems import find, systems
from understudy.reproduce.claims import Claim, Report, Scale
from understudy.reproduce.figures import claims_figure

_PACKAGES = ("torch", "numpy", "botorch", "scikit-learn")


class ReproductionError(RuntimeError):
    """The reproduction itself failed; results of earlier runs are untouched."""


def reproduce(
    slug: str,
    scale: Scale | str = Scale.CPU,
    seed: int = 0,
    out: str | Path = "results",
) -> Report:
    """Measure the claims of a system.

    Writes ``<slug>.json`` and a figure ``<slug>.svg`` into ``out``, each in one step and only when
    the run is complete: a failure or an interruption leaves the files of an earlier run as they
    were. A run never displaces one of a greater scale (see `result_path`).

    Parameters
    ----------
    slug : str
        The system, one of `understudy.core.systems.systems`.
    scale : Scale or str
        ``"smoke"``, ``"cpu"`` or ``"paper"``.
    seed : int
        Handed to the reproduction; it derives all of its seeds from it.
    out : path
        Folder of the results; made where it is missing.

    Raises
    ------
    UserError
        If the system is unknown or only planned, or the scale, the seed or the folder will not do.
    ReproductionError
        If the reproduction raises or returns no claims, or the disk does not take the result.
    """
    scale = _scale(scale)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"--seed must be a whole number of at least 0, got {seed!r}")
    run = _reproduction(slug)
    folder = _writable(Path(out))
    start = time.perf_counter()
    claims = _measure(run, slug, scale, seed)
    report = Report(
        slug=slug,
        scale=scale,
        seed=seed,
        claims=claims,
        versions=_versions(),
        hardware=_hardware(),
        seconds=round(time.perf_counter() - start, 2),
    )
    _write(report, folder)
    return report


def result_path(slug: str, scale: Scale | str, out: str | Path = "results") -> Path:
    """Where the result of that scale belongs: ``<slug>.json``, or beside a result of greater scale.

    ``<slug>.json`` holds the greatest scale that was measured, so a smoke run after a cpu run goes
    to ``<slug>.smoke.json``.
    """
    path = Path(out) / f"{slug}.json"
    scale = _scale(scale)
    try:
        displaces = path.exists() and read_report(path).scale.rank > scale.rank
    except UserError:
        displaces = False
    return path.with_name(f"{slug}.{scale}.json") if displaces else path


def read_report(path: str | Path) -> Report:
    """Read a result file.

    Raises
    ------
    UserError
        If the file is missing, is no such record, or contradicts itself.
    """
    try:
        return Report.from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the result {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"the result {path} is not valid: {error}") from error


def _scale(scale: Scale | str) -> Scale:
    try:
        return Scale(scale)
    except ValueError:
        raise UserError(f"--scale is smoke, cpu or paper, not {scale!r}") from None


def _reproduction(slug: str) -> Callable[[Scale, int], list[Claim]]:
    system = find(slug)
    if system.reproduction is None:
        ready = ", ".join(other.slug for other in systems() if other.reproduction is not None)
        raise UserError(
            f"{slug!r} is planned and has no reproduction yet; those with one: {ready or 'none'}"
        )
    try:
        return importlib.import_module(system.reproduction).run
    except ModuleNotFoundError as error:
        raise UserError(
            f"the reproduction of {slug!r} needs the module {error.name!r}, which is not installed"
        ) from error


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder} is not a folder: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--out {folder} cannot be written to")
    return folder


def _measure(
    run: Callable[[Scale, int], list[Claim]], slug: str, scale: Scale, seed: int
) -> tuple[Claim, ...]:
    try:
        claims = tuple(run(scale, seed))
    except UserError:
        raise
    except Exception as error:
        raise ReproductionError(
            f"the reproduction of {slug!r} at scale {scale} with seed {seed} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not claims or not all(isinstance(claim, Claim) for claim in claims):
        raise ReproductionError(f"the reproduction of {slug!r} returned no list of claims")
    return claims


def _write(report: Report, folder: Path) -> None:
    path = result_path(report.slug, report.scale, folder)
    record, figure = report.to_json(), claims_figure(report)
    try:
        _replace(path, record)
        _replace(path.with_suffix(".svg"), figure)
    except OSError as error:
        raise ReproductionError(f"could not write {path}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    versions = {"understudy": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions


def _hardware() -> dict[str, str | int | float | None]:
    import psutil
    import torch

    return {
        "cpu": _cpu_model(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
