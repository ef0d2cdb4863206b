r"""Families of ordinary differential equations: one tree each, numbers drawn around their means.

Fifteen systems, most of them chaotic, with the mean parameters of Liu, Zhang & Schaeffer (2023,
arXiv 2309.16816). Every parameter is uniform within 10 % of its mean and rounded to three
significant digits, states start uniformly in a box, and a trajectory with a component of 1000 or
more is drawn again. All trajectories of a family are integrated together by
:mod:`understudy.simulate.runge_kutta`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from understudy.core.decimals import round_significant
from understudy.core.errors import UserError
from understudy.core.expressions import ExpressionList
from understudy.data.trajectories import TrajectorySet, check_times
from understudy.simulate.runge_kutta import integrate

DURATION, POINTS = 6.0, 192
"""Of a trajectory in the paper: t in [0, 6] at 192 times, of which the first 64 are given."""


def times(duration: float = DURATION, points: int = POINTS) -> Tensor:
    """Times ``(points,)`` from 0 to the duration."""
    return torch.linspace(0.0, duration, points, dtype=torch.float64)


@dataclass(frozen=True)
class ODEFamily:
    """Systems that differ in their parameters alone.

    Parameters
    ----------
    name : str
    text : str
        Right-hand sides, see :meth:`ExpressionList.parse`, with parameters by name.
    means : mapping of str to float
        Mean of each parameter.
    fixed : tuple of str
        Parameters that are always at their mean.
    """

    name: str
    text: str
    means: Mapping[str, float]
    fixed: tuple[str, ...] = ()

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that vary."""
        return tuple(name for name in self.means if name not in self.fixed)

    @cached_property
    def _slots(self) -> Tensor:
        """Which of `means` each number of the tree is, (K,)."""
        tags = {name: float(i) for i, name in enumerate(self.means)}
        literal = ExpressionList.parse(self.text, tags)
        return torch.tensor([int(x) for x in literal.numbers])

    @cached_property
    def mean_equation(self) -> ExpressionList:
        """The equation with every parameter at its mean, rounded to three digits."""
        return ExpressionList.parse(self.text, self.means).rounded()

    @property
    def skeleton(self) -> ExpressionList:
        """The tree with numbers masked."""
        return self.mean_equation.skeleton

    @property
    def dim(self) -> int:
        """Components of the state."""
        return self.mean_equation.dim

    def values(self, unit: Tensor, spread: float = 0.1) -> Tensor:
        """Parameters at places in the unit cube.

        Parameters
        ----------
        unit : Tensor (N, P)
            0 and 1 are the ends of the range of each parameter that varies.
        spread : float
            Half of the range, as a share of the mean.

        Returns
        -------
        Tensor (N, P)
            With three significant digits.
        """
        mean = torch.tensor([self.means[name] for name in self.parameters], dtype=torch.float64)
        return round_significant(mean * (1.0 + spread * (2.0 * unit.double() - 1.0)))

    def numbers(self, parameters: Tensor) -> Tensor:
        """Numbers of the tree ``(N, K)`` in prefix order, for parameters ``(N, P)``."""
        if parameters.ndim != 2 or parameters.shape[1] != len(self.parameters):
            raise UserError(
                f"{self.name} has the parameters {', '.join(self.parameters)}, found a table of "
                f"shape {tuple(parameters.shape)}"
            )
        mean = torch.tensor(list(self.means.values()), dtype=torch.float64)
        everything = round_significant(mean).repeat(len(parameters), 1)
        varying = [i for i, name in enumerate(self.means) if name not in self.fixed]
        everything[:, varying] = parameters.double()
        return everything[:, self._slots]

    def parameters_of(self, numbers: Tensor) -> Tensor:
        """Parameters ``(N, P)`` of numbers ``(N, K)`` of the tree, the way back of `numbers`."""
        names = list(self.means)
        first = [int((self._slots == names.index(p)).nonzero()[0]) for p in self.parameters]
        return numbers[:, first].double()

    def simulate(self, parameters: Tensor, u0: Tensor, t: Tensor) -> Tensor:
        """Trajectories.

        Parameters
        ----------
        parameters : Tensor (N, P)
        u0 : Tensor (N, d)
        t : Tensor (T,)

        Returns
        -------
        Tensor (N, T, d)
            float64, NaN where a trajectory diverges.
        """
        check_times(t, "times")
        return solve(self.skeleton, self.numbers(parameters), u0, t)

    def sample(
        self,
        count: int,
        generator: torch.Generator,
        *,
        t: Tensor | None = None,
        spread: float = 0.1,
        box: float = 2.0,
        accept: Callable[[Tensor], Tensor] | None = None,
    ) -> TrajectorySet:
        """Draw trajectories, each of its own parameters and first state.

        Parameters
        ----------
        count : int
        generator : torch.Generator
        t : Tensor (T,), optional
            The 192 times of the paper unless given.
        spread : float
            Half of the range of a parameter, as a share of its mean.
        box : float
            First states are uniform in [-box, box] in each component.
        accept : callable (unit (n, P)) -> bool (n,), optional
            Which places in the unit cube of parameters are taken.

        Raises
        ------
        UserError
            If hardly any draw is accepted or stays bounded.
        """
        t = times() if t is None else t
        u: list[Tensor] = []
        numbers: list[Tensor] = []
        found, drawn, kept = 0, 0, 0.9
        while found < count:
            if drawn > 1000 * count + 100_000:
                raise UserError(f"of {drawn} draws of {self.name} only {found} were accepted")
            # a few too many, for a second round would cost as much as the first
            n = int(1.2 * (count - found) / kept) + 32
            drawn += n
            unit = torch.rand(n, len(self.parameters), generator=generator, dtype=torch.float64)
            start = box * (
                2.0 * torch.rand(n, self.dim, generator=generator, dtype=torch.float64) - 1.0
            )
            taken = torch.ones(n, dtype=torch.bool) if accept is None else accept(unit)
            parameters = self.values(unit[taken], spread)
            some = self.simulate(parameters, start[taken], t)
            bounded = torch.isfinite(some).all(dim=(1, 2))
            u.append(some[bounded])
            numbers.append(self.numbers(parameters)[bounded])
            found += len(u[-1])
            kept = max(found / drawn, 0.01)
        return TrajectorySet(
            t,
            torch.cat(u)[:count].float(),
            (self.skeleton,),
            torch.zeros(count, dtype=torch.long),
            torch.cat(numbers)[:count],
        )


def solve(tree: ExpressionList, numbers: Tensor, u0: Tensor, t: Tensor) -> Tensor:
    """Trajectories ``(N, T, d)`` of one tree with numbers ``(N, K)`` from states ``(N, d)``."""
    numbers = numbers.double()
    return integrate(lambda u, rows: tree.evaluate(u, numbers[rows]), u0, t)


def sample_families(
    families: Sequence[ODEFamily],
    count: int,
    seed: int,
    *,
    t: Tensor | None = None,
    spread: float = 0.1,
    accept: Callable[[Tensor], Tensor] | None = None,
) -> TrajectorySet:
    """Trajectories of several families, in equal shares and in turns.

    Parameters
    ----------
    families : sequence of ODEFamily
    count : int
        Of all together.
    seed : int
    t, spread, accept
        See :meth:`ODEFamily.sample`.
    """
    if count < len(families) or not families:
        raise UserError(f"{len(families)} families need as many trajectories, found {count}")
    each = -(-count // len(families))
    generator = torch.Generator().manual_seed(seed)
    sets = [
        family.sample(each, generator, t=t, spread=spread, accept=accept) for family in families
    ]
    together = TrajectorySet.concatenate(sets)
    return together[torch.arange(len(together)).reshape(-1, each).T.flatten()[:count]]


def _system(*components: str) -> str:
    return " | ".join(components)


def _lorenz96(d: int) -> str:
    u = [f"u_{i}" for i in range(d)]
    return _system(*(f"(u_{(i + 1) % d} - {u[i - 2]}) * {u[i - 1]} - {u[i]} + F" for i in range(d)))


_PENDULUM = "(3 - cos(2 * (u_0 - u_1)))"

THOMAS = ODEFamily(
    "thomas", "sin(u_1) - b * u_0 | sin(u_2) - b * u_1 | sin(u_0) - b * u_2", {"b": 0.17}
)
LORENZ = ODEFamily(
    "lorenz",
    "sigma * (u_1 - u_0) | u_0 * (rho - u_2) - u_1 | u_0 * u_1 - beta * u_2",
    {"sigma": 10.0, "rho": 28.0, "beta": 8.0 / 3.0},
)
AIZAWA = ODEFamily(
    "aizawa",
    "(u_2 - b) * u_0 - d * u_1 | d * u_0 + (u_2 - b) * u_1 | "
    "c + a * u_2 - u_2**3 / 3 - (u_0**2 + u_1**2) * (1 + e * u_2) + f * u_2 * u_0**3",
    {"a": 0.95, "b": 0.7, "c": 0.6, "d": 3.5, "e": 0.25, "f": 0.1},
)
CHEN_LEE = ODEFamily(
    "chen-lee",
    "a * u_0 - u_1 * u_2 | b * u_1 + u_0 * u_2 | d * u_2 + u_0 * u_1 / 3",
    {"a": 5.0, "b": -10.0, "d": -0.38},
    fixed=("b",),
)
DADRAS = ODEFamily(
    "dadras",
    "u_1 / 2 - a * u_0 + b * u_1 * u_2 | c * u_1 - u_0 * u_2 / 2 + u_2 / 2 | "
    "d * u_0 * u_1 - e * u_2",
    {"a": 1.25, "b": 1.15, "c": 0.75, "d": 0.8, "e": 4.0},
)
ROESSLER = ODEFamily(
    "roessler",
    "-u_1 - u_2 | u_0 + a * u_1 | b + u_2 * (u_0 - c)",
    {"a": 0.1, "b": 0.1, "c": 14.0},
)
HALVORSEN = ODEFamily(
    "halvorsen",
    "a * u_0 - u_1 - u_2 - u_1**2 / 4 | a * u_1 - u_2 - u_0 - u_2**2 / 4 | "
    "a * u_2 - u_0 - u_1 - u_0**2 / 4",
    {"a": -0.35},
)
RABINOVICH_FABRIKANT = ODEFamily(
    "rabinovich-fabrikant",
    "u_1 * (u_2 - 1 + u_0**2) + gamma * u_0 | u_0 * (3 * u_2 + 1 - u_0**2) + gamma * u_1 | "
    "-2 * u_2 * (alpha + u_0 * u_1)",
    {"alpha": 0.98, "gamma": 0.1},
)
SPROTT_B = ODEFamily(
    "sprott-b",
    "a * u_1 * u_2 | u_0 - b * u_1 | c - u_0 * u_1",
    {"a": 0.4, "b": 1.2, "c": 1.0},
)
SPROTT_LINZ_F = ODEFamily("sprott-linz-f", "u_1 + u_2 | -u_0 + a * u_1 | u_0**2 - u_2", {"a": 0.5})
FOUR_WING = ODEFamily(
    "four-wing",
    "a * u_0 + u_1 * u_2 | b * u_0 + c * u_1 - u_0 * u_2 | -u_2 - u_0 * u_1",
    {"a": 0.2, "b": 0.01, "c": -0.4},
)
DUFFING = ODEFamily(
    "duffing",
    "1 | u_2 | -delta * u_2 - alpha * u_1 - beta * u_1**3 + gamma * cos(omega * u_0)",
    {"delta": 0.02, "alpha": 1.0, "beta": 5.0, "gamma": 8.0, "omega": 0.5},
)
LORENZ96_4 = ODEFamily("lorenz96-4", _lorenz96(4), {"F": 8.0})
LORENZ96_5 = ODEFamily("lorenz96-5", _lorenz96(5), {"F": 8.0})
DOUBLE_PENDULUM = ODEFamily(
    "double-pendulum",
    # two equal masses on rods of equal length; angles, then their rates
    "u_2 | u_3 | "
    "(-3 * g * sin(u_0) - g * sin(u_0 - 2 * u_1) - 2 * sin(u_0 - u_1) * l * "
    f"(u_3**2 + u_2**2 * cos(u_0 - u_1))) / (l * {_PENDULUM}) | "
    "2 * sin(u_0 - u_1) * (2 * l * u_2**2 + 2 * g * cos(u_0) + l * u_3**2 * cos(u_0 - u_1)) / "
    f"(l * {_PENDULUM})",
    {"g": 9.81, "l": 1.0},
)

FAMILIES: dict[str, ODEFamily] = {
    family.name: family
    for family in (
        *(THOMAS, LORENZ, AIZAWA, CHEN_LEE, DADRAS, ROESSLER, HALVORSEN, RABINOVICH_FABRIKANT),
        *(SPROTT_B, SPROTT_LINZ_F, FOUR_WING, DUFFING, LORENZ96_4, LORENZ96_5, DOUBLE_PENDULUM),
    )
}
"""The fifteen systems of the paper by name."""
