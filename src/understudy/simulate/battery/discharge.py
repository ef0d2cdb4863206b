r"""Constant-current discharge of a lithium-ion cell (Doyle, Fuller & Newman 1993), by PyBaMM.

The model resolves lithium in the particles of both electrodes and in the electrolyte between
them, with the measured parameters of an LG M50 cell (Chen et al. 2020). Five of them vary:

=======================  ===========================================================================
``c_rate``               current, in multiples of the one that empties 5 A.h in an hour
``negative_porosity``    share of electrolyte in the negative electrode; the rest is active material
``positive_porosity``    the same of the positive electrode
``negative_diffusivity`` of lithium in the negative particles
``positive_diffusivity`` of lithium in the positive particles
=======================  ===========================================================================

With current :math:`I`, voltage :math:`V(t)` and the time :math:`T` at which it falls to the
cut-off of 2.5 V, a run gives

.. math:: \text{capacity} = I T, \quad \text{energy} = I \int_0^T V\,dt, \quad
   \text{mean voltage} = \text{energy} / \text{capacity},

the voltages at 10, 50 and 90 % of the discharge, and the slope of V over the charge between 40
and 60 %.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from understudy.core.errors import UserError
from understudy.core.simulator import Simulator
from understudy.core.space import Continuous, Space

NOMINAL_CAPACITY = 5.0
"""A.h of the LG M50 cell."""

_RELATIVE_TOLERANCE = 1e-6
_POINTS = 201


class DischargeSimulator(Simulator):
    """Discharges of an LG M50 cell at constant current, by the Doyle-Fuller-Newman model.

    A run takes about a tenth of a second; the first one builds the model, which takes seconds.
    """

    space = Space(
        (
            Continuous("c_rate", 0.5, 2.0, unit="1/h"),
            Continuous("negative_porosity", 0.20, 0.32),
            Continuous("positive_porosity", 0.28, 0.40),
            Continuous("negative_diffusivity", 1.5e-14, 1e-13, unit="m2/s", log=True),
            Continuous("positive_diffusivity", 2e-15, 2e-14, unit="m2/s", log=True),
        )
    )
    outputs = (
        "capacity_Ah",
        "energy_Wh",
        "mean_voltage_V",
        "voltage_10_V",
        "voltage_50_V",
        "voltage_90_V",
        "slope_V_per_Ah",
    )

    def run(self, params: Mapping[str, Any] | pd.Series) -> dict[str, float]:
        """Discharge one cell; every output is NaN where the solver cannot finish.

        Parameters
        ----------
        params : mapping
            Value of each of the five inputs.
        """
        given = {name: float(value) for name, value in self._complete(params).items()}
        try:
            seconds, voltage = self._discharge(given)
        except self._pybamm.SolverError:
            return dict.fromkeys(self.outputs, math.nan)
        return self._features(given["c_rate"] * NOMINAL_CAPACITY * seconds / 3600.0, voltage)

    @property
    def settings(self) -> dict[str, Any]:
        """What the outputs of given inputs depend on, with the version of the solver."""
        return {
            "model": "DFN",
            "parameters": "Chen2020",
            "tolerance": _RELATIVE_TOLERANCE,
            "points": _POINTS,
            "space": json.loads(self.space.to_json()),
            "outputs": list(self.outputs),
            "pybamm": self._pybamm.__version__,
        }

    def build(self) -> None:
        """Build and compile the model now rather than in the first run."""
        if "_simulation" not in vars(self):
            self.run(self.space.sample(1).iloc[0])

    @cached_property
    def _pybamm(self) -> Any:
        return import_pybamm()

    @cached_property
    def _simulation(self) -> Any:
        parameters = self._pybamm.ParameterValues("Chen2020")
        parameters.update(
            dict.fromkeys(_solver_inputs(dict.fromkeys(self.space.names, 0.0)), "[input]")
        )
        tolerance = _RELATIVE_TOLERANCE
        return self._pybamm.Simulation(
            self._pybamm.lithium_ion.DFN(),
            parameter_values=parameters,
            solver=self._pybamm.IDAKLUSolver(rtol=tolerance, atol=tolerance / 100.0),
        )

    def _discharge(self, given: dict[str, float]) -> tuple[float, NDArray[np.float64]]:
        """Duration [s] and voltage [V] at equally spaced times of one discharge."""
        longest = 2.0 * 3600.0 / given["c_rate"]
        solution = self._simulation.solve([0.0, longest], inputs=_solver_inputs(given))
        if "voltage" not in solution.termination:
            raise self._pybamm.SolverError(f"the cut-off was not reached in {longest:.0f} s")
        seconds = float(solution.t[-1])
        return seconds, solution["Voltage [V]"](np.linspace(0.0, seconds, _POINTS))

    def _features(self, capacity: float, voltage: NDArray[np.float64]) -> dict[str, float]:
        mean = float(np.trapezoid(voltage) / (_POINTS - 1))
        at = {
            share: float(voltage[round(share * (_POINTS - 1) / 100)]) for share in range(0, 101, 10)
        }
        slope = (at[60] - at[40]) / (0.2 * capacity)
        values = (capacity, mean * capacity, mean, at[10], at[50], at[90], slope)
        return dict(zip(self.outputs, values, strict=True))


def discharge_runs(
    n: int = 200,
    seed: int = 0,
    cache: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Table of n discharges over a space-filling design.

    Every run is written to the user's cache folder as it ends, so that an interrupted call goes on
    from there and a later one repeats nothing. The first rows do not depend on n.

    Parameters
    ----------
    n : int
        Number of runs.
    seed : int
        Of the design.
    cache : bool
        Whether to keep runs and use those that were kept.
    progress : callable, optional
        Called with the number of runs done and n.

    Returns
    -------
    DataFrame
        The five inputs, the outputs, and ``seconds``, what each run took; NaN outputs where the
        solver could not finish.

    Raises
    ------
    UserError
        If PyBaMM is not installed or n is not positive.
    """
    if n < 1:
        raise UserError(f"the number of runs must be at least 1, got {n}")
    simulator = DischargeSimulator()
    design = simulator.space.sample(n, seed=seed, method="sobol")
    columns = [*design.columns, *simulator.outputs, "seconds"]
    path = _cache_file({**simulator.settings, "seed": seed}) if cache else None
    runs = _kept(path, len(columns))
    with _appending(path) as keep:
        for row, params in enumerate(design.to_dict("records")):
            if progress is not None:
                progress(sum(at in runs for at in range(n)), n)
            if row not in runs:
                runs[row] = _timed(simulator, params)
                keep(row, runs[row])
    if progress is not None:
        progress(n, n)
    return pd.DataFrame([runs[row] for row in range(n)], columns=columns)


def _timed(simulator: DischargeSimulator, params: dict[str, Any]) -> list[float]:
    simulator.build()
    start = time.perf_counter()
    outputs = simulator.run(params)
    return [*params.values(), *outputs.values(), time.perf_counter() - start]


def import_pybamm() -> Any:
    """Import PyBaMM with its telemetry switched off."""
    os.environ["PYBAMM_DISABLE_TELEMETRY"] = "true"
    try:
        import pybamm
    except ModuleNotFoundError as error:
        raise UserError(
            f"the battery simulator needs {error.name}, which is not installed: "
            "pip install 'understudy[battery]'"
        ) from error
    pybamm.telemetry.disable()
    pybamm.set_logging_level("ERROR")
    return pybamm


def _solver_inputs(given: Mapping[str, float]) -> dict[str, float]:
    """Return the parameters by PyBaMM's names."""
    inputs = {"Current function [A]": given["c_rate"] * NOMINAL_CAPACITY}
    for side in ("negative", "positive"):
        porosity = given[f"{side}_porosity"]
        inputs[f"{side.capitalize()} electrode porosity"] = porosity
        inputs[f"{side.capitalize()} electrode active material volume fraction"] = 1.0 - porosity
        name = f"{side.capitalize()} particle diffusivity [m2.s-1]"
        inputs[name] = given[f"{side}_diffusivity"]
    return inputs


def _cache_file(settings: dict[str, Any]) -> Path | None:
    """File of the runs with these settings; None where no cache folder can be made."""
    import pooch

    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    folder = Path(pooch.os_cache("understudy")) / "battery"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"discharge-{digest[:16]}.csv" if os.access(folder, os.W_OK) else None


def _kept(path: Path | None, width: int) -> dict[int, list[float]]:
    """Complete rows of a file of runs, by run number."""
    if path is None or not path.exists():
        return {}
    runs = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for cells in csv.reader(line for line in file if line.endswith("\n")):
            try:
                row, values = int(cells[0]), [float(cell) for cell in cells[1:]]
            except (ValueError, IndexError):
                continue
            if len(values) == width:
                runs[row] = values
    return runs


@contextmanager
def _appending(path: Path | None) -> Iterator[Callable[[int, list[float]], None]]:
    """Give a function that writes a run to the file at once."""
    if path is None:
        yield lambda row, values: None
        return
    _end_last_line(path)
    with path.open("a", newline="", encoding="utf-8") as file:

        def keep(row: int, values: list[float]) -> None:
            csv.writer(file, lineterminator="\n").writerow([row, *map(repr, values)])
            file.flush()

        yield keep


def _end_last_line(path: Path) -> None:
    """End a line that an interrupted write left open, so that it stays unreadable."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"?\n")
