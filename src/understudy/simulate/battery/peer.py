"""The same discharges by PyBaMM: its models SPM, SPMe and DFN, with its parameter sets or ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.simulator import Simulator
from understudy.core.space import Space
from understudy.data.cells import Cell, Electrode, Electrolyte, Law
from understudy.simulate.battery.discharge import import_pybamm
from understudy.simulate.battery.spm import Drive, check_space, drive_of, times_of

MODELS = ("SPM", "SPMe", "DFN")
_SIDES = ("negative", "positive")


class PyBaMMCell(Simulator):
    """Voltage of a cell at given times under a given current, one run after another.

    Parameters
    ----------
    cell : str or Cell
        Name of one of PyBaMM's parameter sets, or a cell of ours; one without an electrolyte can
        only be run by ``"SPM"``.
    model : {"SPM", "SPMe", "DFN"}
    current : float or Drive, optional
        A; 1C by default. As of `SingleParticleModel`.
    times : sequence of float, optional
        s; by default 100 until 3000.
    space : Space
        What varies, by the names of `SingleParticleModel`; no radius.
    points : int
        In each particle.
    tolerance : float
        Relative, of the solver; the absolute one is a hundredth of it.
    """

    def __init__(
        self,
        cell: str | Cell = "Chen2020",
        model: Literal["SPM", "SPMe", "DFN"] = "SPM",
        current: float | Drive | None = None,
        times: Sequence[float] | None = None,
        *,
        space: Space,
        points: int = 20,
        tolerance: float = 1e-6,
    ) -> None:
        if model not in MODELS:
            raise UserError(f"model is one of {', '.join(MODELS)}, found {model!r}")
        if isinstance(cell, Cell) and cell.electrolyte is None and model != "SPM":
            raise UserError(f"{model} needs an electrolyte, of which {cell.name!r} says nothing")
        check_space(space)
        fixed = [name for name in space.names if name.endswith("radius")]
        if fixed:
            raise UserError(f"PyBaMM's meshes are built once, so {fixed[0]!r} cannot vary in it")
        self.cell = cell
        self.model = model
        self.space = space
        self.points = points
        self.tolerance = tolerance
        self.times = times_of(np.linspace(30.0, 3000.0, 100) if times is None else times)
        if current is None:
            current = (
                cell.capacity
                if isinstance(cell, Cell)
                else float(self._parameters["Nominal cell capacity [A.h]"])
            )
        self.current = drive_of(current, self.times)
        self.outputs = tuple(f"voltage_{time:g}s" for time in self.times)

    def run(self, params: Mapping[str, Any] | pd.Series) -> dict[str, float]:
        """Voltages; NaN from where the solver stops."""
        given = {name: float(value) for name, value in self._complete(params).items()}
        return dict(zip(self.outputs, self._voltages(given).tolist(), strict=True))

    def curve(self, params: Mapping[str, Any] | pd.Series | pd.DataFrame) -> tuple[Tensor, Tensor]:
        """Times (T,) and voltages, (T,) of one set of parameters or (n, T) of a table of n."""
        times = torch.tensor(self.times, dtype=torch.float64)
        if isinstance(params, pd.DataFrame):
            return times, torch.tensor(self.run_many(params).to_numpy())
        return times, torch.tensor(list(self.run(params).values()), dtype=torch.float64)

    def fields(self, params: Mapping[str, Any] | pd.Series) -> dict[str, Tensor]:
        """What the finest model, ``"DFN"``, has inside, at the times, in SI units.

        Returns
        -------
        dict of str to Tensor
            ``concentration`` and ``electrolyte`` (T, 60), of the salt and its potential, over the
            depth; ``depth`` (60,), from the negative collector; of each electrode ``{side}
            current`` (T, 20), of its particles' surface, and ``{side} stoichiometry``
            (T, points, 20), from their centres.

        Raises
        ------
        UserError
            If the model is another, or the solver stops before the last time.
        """
        if self.model != "DFN":
            raise UserError(f"only DFN has fields over the depth, not {self.model}")
        given = {name: float(value) for name, value in self._complete(params).items()}
        try:
            solution = self._simulation.solve(
                [0.0, self.times[-1]], inputs=given, t_interp=np.asarray(self.times)
            )
        except self._pybamm.SolverError as error:
            raise UserError(f"PyBaMM cannot solve this discharge: {error}") from error
        t = np.asarray(self.times)
        if float(solution.t[-1]) < t[-1] * (1.0 - 1e-9):
            raise UserError(f"the discharge ends after {float(solution.t[-1]):.0f} s")

        def of(name: str) -> Tensor:
            entries = torch.from_numpy(np.array(solution[name].entries))
            at = torch.from_numpy(np.searchsorted(solution.t, t * (1.0 - 1e-12)))
            return entries[..., at].movedim(-1, 0)

        found = {
            "concentration": of("Electrolyte concentration [mol.m-3]"),
            "electrolyte": of("Electrolyte potential [V]"),
            "depth": of("x [m]")[0],
        }
        for side in _SIDES:
            capital = side.capitalize()
            found[f"{side} current"] = of(
                f"{capital} electrode interfacial current density [A.m-2]"
            )
            found[f"{side} stoichiometry"] = of(f"{capital} particle stoichiometry")
        return found

    def _voltages(self, given: dict[str, float]) -> np.ndarray:
        """Voltages (T,)."""
        found = np.full(len(self.times), math.nan)
        try:
            solution = self._simulation.solve(
                [0.0, self.times[-1]], inputs=given, t_interp=np.asarray(self.times)
            )
        except self._pybamm.SolverError:
            return found
        reached = np.asarray(self.times) <= float(solution.t[-1]) * (1.0 + 1e-12)
        found[reached] = solution["Voltage [V]"](np.asarray(self.times)[reached])
        return found

    @cached_property
    def _pybamm(self) -> Any:
        return import_pybamm()

    @cached_property
    def _parameters(self) -> Any:
        if isinstance(self.cell, Cell):
            return self._pybamm.ParameterValues(_values(self.cell, self._pybamm))
        known = [str(key) for key in self._pybamm.parameter_sets]
        if self.cell not in known:
            raise UserError(f"PyBaMM has no parameter set {self.cell!r}; it has {', '.join(known)}")
        return self._pybamm.ParameterValues(self.cell)

    @cached_property
    def _simulation(self) -> Any:
        pybamm, parameters = self._pybamm, self._parameters.copy()
        for name in self.space.names:
            key, value = self._varied(name, parameters)
            parameters[key] = value
        parameters["Lower voltage cut-off [V]"] = 0.0
        parameters["Upper voltage cut-off [V]"] = 10.0
        parameters["Current function [A]"] = self._current()
        return pybamm.Simulation(
            getattr(pybamm.lithium_ion, self.model)(),
            parameter_values=parameters,
            solver=pybamm.IDAKLUSolver(rtol=self.tolerance, atol=self.tolerance / 100.0),
            var_pts={"x_n": 20, "x_s": 20, "x_p": 20, "r_n": self.points, "r_p": self.points},
        )

    def _current(self) -> Any:
        """Constant, or a sum of steps."""
        drive = self.current
        if len(drive.amperes) == 1:
            return drive.amperes[0]
        jumps = list(zip(drive.times, np.diff(drive.amperes).tolist(), strict=False))
        return lambda t: drive.amperes[0] + sum(jump * (t > at) for at, jump in jumps)

    def _varied(self, name: str, parameters: Any) -> tuple[str, Any]:
        """PyBaMM's name of a parameter, and what it becomes."""
        side, _, quantity = name.partition("_")
        factor = self._pybamm.InputParameter(name)
        capital = side.capitalize()
        if quantity == "stoichiometry":
            most = parameters[f"Maximum concentration in {side} electrode [mol.m-3]"]
            return f"Initial concentration in {side} electrode [mol.m-3]", factor * most
        key = {
            "diffusivity": f"{capital} particle diffusivity [m2.s-1]",
            "exchange_current": f"{capital} electrode exchange-current density [A.m-2]",
            "active_fraction": f"{capital} electrode active material volume fraction",
        }[quantity]
        return key, _times(parameters[key], factor)


def _times(value: Any, factor: Any) -> Any:
    """Value or function, multiplied."""
    return (lambda *of: factor * value(*of)) if callable(value) else factor * value


def _values(cell: Cell, pybamm: Any) -> dict[str, Any]:
    """Parameters of a cell of ours, by PyBaMM's names; without an electrolyte what SPM reads."""
    values: dict[str, Any] = {
        "Electrode height [m]": 1.0,
        "Electrode width [m]": cell.area,
        "Nominal cell capacity [A.h]": cell.capacity,
        "Number of electrodes connected in parallel to make a cell": 1.0,
        "Number of cells connected in series to make a battery": 1.0,
        "Contact resistance [Ohm]": 0.0,
        "Ambient temperature [K]": cell.temperature,
        "Initial temperature [K]": cell.temperature,
        "Reference temperature [K]": cell.temperature,
        "Initial concentration in electrolyte [mol.m-3]": 1200.0,
        "Separator thickness [m]": 20e-6,
        "Separator porosity": 0.4,
        "Separator Bruggeman coefficient (electrolyte)": 2.0,
        "Electrolyte diffusivity [m2.s-1]": 1.8e-10,
        "Electrolyte conductivity [S.m-1]": 0.6,
        "Cation transference number": 0.46,
        "Thermodynamic factor": 1.0,
    }
    for side in _SIDES:
        values |= _of_electrode(getattr(cell, side), side, pybamm)
    if cell.electrolyte is not None:
        values |= _of_electrolyte(cell, cell.electrolyte)
    return values


def _of_electrolyte(cell: Cell, salt: Electrolyte) -> dict[str, Any]:
    def isothermal(law: Law) -> Any:
        return lambda c_e, T: law(c_e, cell.temperature)

    values: dict[str, Any] = {
        "Initial concentration in electrolyte [mol.m-3]": salt.concentration,
        "Separator thickness [m]": salt.separator,
        "Electrolyte diffusivity [m2.s-1]": isothermal(salt.diffusivity),
        "Electrolyte conductivity [S.m-1]": isothermal(salt.conductivity),
        "Cation transference number": isothermal(salt.transference),
        "Thermodynamic factor": isothermal(salt.thermodynamic_factor),
    }
    for part in ("Negative electrode", "Separator", "Positive electrode"):
        values[f"{part} porosity"] = salt.porosity
        values[f"{part} Bruggeman coefficient (electrolyte)"] = salt.bruggeman
    for side in _SIDES:
        capital, exchange = side.capitalize(), getattr(cell, side).exchange_current
        values[f"{capital} electrode conductivity [S.m-1]"] = salt.solid_conductivity
        values[f"{capital} electrode exchange-current density [A.m-2]"] = _with_salt(
            exchange, salt.concentration
        )
    return values


def _with_salt(exchange: Callable[[Tensor], Tensor], reference: float) -> Any:
    """Exchange current that grows with the root of the concentration of salt."""
    import pybamm

    def law(c_e: Any, c_s: Any, c_max: Any, T: Any) -> Any:
        return (c_e / reference) ** 0.5 * _symbol(exchange, c_s / c_max, pybamm)

    return law


def _of_electrode(electrode: Electrode, side: str, pybamm: Any) -> dict[str, Any]:
    capital, most = side.capitalize(), electrode.max_concentration
    diffusivity, exchange = electrode.diffusivity, electrode.exchange_current
    return {
        f"{capital} particle radius [m]": electrode.radius,
        f"{capital} electrode thickness [m]": electrode.thickness,
        f"{capital} electrode active material volume fraction": electrode.active_fraction,
        f"{capital} electrode porosity": 0.4,
        f"{capital} electrode Bruggeman coefficient (electrolyte)": 2.0,
        f"{capital} electrode Bruggeman coefficient (electrode)": 0.0,
        f"{capital} electrode conductivity [S.m-1]": 6.0,
        f"{capital} electrode charge transfer coefficient": 0.5,
        f"{capital} electrode double-layer capacity [F.m-2]": 0.2,
        f"{capital} electrode OCP entropic change [V.K-1]": 0.0,
        f"Maximum concentration in {side} electrode [mol.m-3]": most,
        f"Initial concentration in {side} electrode [mol.m-3]": electrode.stoichiometry * most,
        f"{capital} particle diffusivity [m2.s-1]": (
            (lambda sto, T: _symbol(diffusivity, sto, pybamm))
            if callable(diffusivity)
            else diffusivity
        ),
        f"{capital} electrode exchange-current density [A.m-2]": (
            lambda c_e, c_s, c_max, T: _symbol(exchange, c_s / c_max, pybamm)
        ),
        f"{capital} electrode OCP [V]": lambda sto: _symbol(electrode.potential, sto, pybamm),
    }


def _symbol(curve: Callable[[Tensor], Tensor], x: Any, pybamm: Any) -> Any:
    """Curve as a symbol: its own, or cubic through 2001 points."""
    own = getattr(curve, "symbol", None)
    if own is not None:
        return own(x)
    grid = torch.linspace(0.0, 1.0, 2001, dtype=torch.float64)
    return pybamm.Interpolant(grid.numpy(), curve(grid).numpy(), x, interpolator="cubic")
