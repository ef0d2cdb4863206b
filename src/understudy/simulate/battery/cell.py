"""Cells of PyBaMM's parameter sets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.data.cells import Cell, Electrode, Symmetric, Table
from understudy.simulate.battery.discharge import import_pybamm

_NODES = 20001


def read_cell(name: str) -> Cell:
    """Cell of one of PyBaMM's parameter sets, at its reference temperature and initial state.

    Functions of the stoichiometry are tabulated at 20001 points; the exchange current is that at
    the initial concentration of the electrolyte.

    Parameters
    ----------
    name : str
        ``"Chen2020"``, ``"Marquis2019"``, ...

    Raises
    ------
    UserError
        If PyBaMM is not installed, has no such set, or the set has no single active material.
    """
    pybamm = import_pybamm()
    known = [str(key) for key in pybamm.parameter_sets]
    if name not in known:
        raise UserError(f"PyBaMM has no parameter set {name!r}{nearest(name, known)}")
    values = pybamm.ParameterValues(name)
    symbols = pybamm.LithiumIonParameters()
    try:
        temperature = float(values["Ambient temperature [K]"])
        sheets = float(values["Number of electrodes connected in parallel to make a cell"])
        area = float(values["Electrode height [m]"]) * float(values["Electrode width [m]"]) * sheets
        negative, positive = (
            _electrode(pybamm, values, domain, salt=float(values.evaluate(symbols.c_e_init_av)))
            for domain in (symbols.n, symbols.p)
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"PyBaMM's set {name!r} does not describe two plain electrodes of particles"
        ) from error
    return Cell(
        name, negative, positive, area, float(values["Nominal cell capacity [A.h]"]), temperature
    )


def _electrode(pybamm: Any, values: Any, domain: Any, salt: float) -> Electrode:
    side = domain.domain.capitalize()
    particle = domain.prim
    temperature = pybamm.Scalar(float(values["Ambient temperature [K]"]))
    most = float(values.evaluate(particle.c_max))
    x = torch.linspace(0.0, 1.0, _NODES, dtype=torch.float64).clamp(1e-9, 1.0 - 1e-9)
    at = pybamm.Vector(x.numpy())

    def tabulated(symbol: Any) -> Tensor:
        found = torch.as_tensor(values.process_symbol(symbol).evaluate(), dtype=torch.float64)
        return found.reshape(-1).expand(_NODES).clone()

    diffusivity = tabulated(particle.D(at * most, temperature))
    spread = float(diffusivity.max() / diffusivity.min()) - 1.0
    exchange = tabulated(particle.j0(pybamm.Scalar(salt), at * most, temperature))
    smooth, root = Table(exchange / (x * (1.0 - x)).sqrt()), Symmetric(1.0)

    initial = float(values[f"Initial concentration in {domain.domain} electrode [mol.m-3]"])
    return Electrode(
        radius=float(values[f"{side} particle radius [m]"]),
        thickness=float(values[f"{side} electrode thickness [m]"]),
        active_fraction=float(values[f"{side} electrode active material volume fraction"]),
        max_concentration=most,
        stoichiometry=initial / most,
        diffusivity=float(diffusivity[0]) if spread < 1e-12 else Table(diffusivity),
        exchange_current=lambda x: smooth(x) * root(x),
        potential=Table(tabulated(particle.U(at, temperature))),
    )
