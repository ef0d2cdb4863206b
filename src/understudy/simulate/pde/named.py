"""Equations by their names, for data sets that a command makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import pandas as pd

from understudy.core.errors import UserError
from understudy.core.simulator import FieldSimulator
from understudy.core.space import Continuous, Integer, Space, nearest
from understudy.simulate.pde.advection import Advection
from understudy.simulate.pde.compressible import CompressibleFlow
from understudy.simulate.pde.conservation import Burgers, CombinedEquation
from understudy.simulate.pde.darcy import Darcy
from understudy.simulate.pde.driven_wave import DrivenWave
from understudy.simulate.pde.elastic_wave import ElasticWave
from understudy.simulate.pde.heat import Heat
from understudy.simulate.pde.helmholtz import Helmholtz
from understudy.simulate.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from understudy.simulate.pde.navier_stokes import KolmogorovFlow, NavierStokes
from understudy.simulate.pde.reaction_diffusion import FisherKPP, FitzHughNagumo
from understudy.simulate.pde.shallow_water import ShallowWater
from understudy.simulate.pde.wave import Wave

EQUATIONS: dict[str, Callable[..., FieldSimulator]] = {
    "advection": Advection,
    "burgers": Burgers,
    "combined": CombinedEquation,
    "ks": KuramotoSivashinsky,
    "fisher": FisherKPP,
    "fitzhugh": FitzHughNagumo,
    "heat1d": partial(Heat, dimensions=1),
    "heat2d": partial(Heat, dimensions=2),
    "darcy": Darcy,
    "darcy-rough": partial(Darcy, medium="rough"),
    "darcy-multiscale": partial(Darcy, medium="multiscale"),
    "helmholtz": Helmholtz,
    "navier-stokes": NavierStokes,
    "kolmogorov": KolmogorovFlow,
    "compressible": CompressibleFlow,
    "shallow-water": ShallowWater,
    "wave": Wave,
    "driven-wave": DrivenWave,
    "elastic-wave": ElasticWave,
}
"""What makes each simulator, by the name of its equation."""

Range = tuple[float, float]


def named(name: str, **options: Any) -> FieldSimulator:
    """Simulator of a name among :data:`EQUATIONS`; options are those of its class.

    Raises
    ------
    UserError
        No such name, or an option that the equation does not have.
    """
    if name not in EQUATIONS:
        raise UserError(f"no equation {name!r}{nearest(name, list(EQUATIONS))}")
    make = EQUATIONS[name]
    known = signature(make).parameters
    for option, value in options.items():
        if option not in known:
            raise UserError(f"{name} has no option {option!r}{nearest(option, list(known))}")
        if isinstance(value, str) and isinstance(known[option].default, int | float):
            raise UserError(f"option {option!r} of {name} is a number, found {value!r}")
    return make(**options)


def draw_parameters(
    simulator: FieldSimulator, n: int, seed: int = 0, ranges: Mapping[str, Range] | None = None
) -> pd.DataFrame:
    """Table of n independent runs of a simulator, uniform over its space.

    Parameters
    ----------
    simulator : FieldSimulator
    n : int
    seed : int
        Same seed, same table.
    ranges : mapping, optional
        Lower and upper value of inputs in place of those of the space; equal ones fix an input.
    """
    ranges = ranges or {}
    for name in ranges:
        if name not in simulator.space:
            raise UserError(f"no input {name!r}{nearest(name, simulator.space.names)}")
    inputs = []
    for item in simulator.space:
        low, high = ranges.get(item.name, (0.0, 0.0))
        if low < high and isinstance(item, Continuous):
            item = replace(item, lower=low, upper=high, log=item.log and low > 0)
        elif low < high and isinstance(item, Integer):
            item = replace(item, lower=int(low), upper=int(high))
        inputs.append(item)
    table = Space(tuple(inputs)).sample(n, seed, "random")
    for name, (low, high) in ranges.items():
        if low > high:
            raise UserError(f"input {name!r}: {low:g} must not be above {high:g}")
        if low == high:
            table[name] = int(low) if isinstance(simulator.space[name], Integer) else low
    return table
