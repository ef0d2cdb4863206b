r"""Objectives on which searches are compared: what is to be small or large, and the best of it.

Those of Li, Rudner & Wilson (2024, arXiv 2305.20028) that need nothing but a formula. Each is a
simulator that also says which way is good, what the best value is where that is known, and, with
several outputs, the reference point of its hypervolume. Formulas that BoTorch has are taken from
it. The Brusselator of the same paper is in `understudy.simulate.brusselator`.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from botorch.test_functions import DTLZ1 as _DTLZ1
from botorch.test_functions import DTLZ5 as _DTLZ5
from botorch.test_functions import Ackley as _Ackley
from botorch.test_functions import Branin as _Branin
from botorch.test_functions import BraninCurrin as _BraninCurrin
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.search import Direction, Objective, Problem
from understudy.core.simulator import BatchedSimulator
from understudy.core.space import Categorical, Continuous, Integer, Space


class ObjectiveFunction(BatchedSimulator):
    """A simulator whose outputs are to be made small, or large.

    Attributes
    ----------
    direction : {"minimize", "maximize"}
        Of every output.
    best : float or None
        Best value of a single output, where it is known.
    reference_point : tuple of float or None
        Of several outputs, in their units: worse than every point of the Pareto front.
    """

    direction: Direction = "minimize"
    best: float | None = None
    reference_point: tuple[float, ...] | None = None

    @property
    def problem(self) -> Problem:
        """The same as a search knows it."""
        return Problem(self.space, tuple(Objective(name, self.direction) for name in self.outputs))


class _FromBoTorch(ObjectiveFunction):
    """A test function of BoTorch as a simulator."""

    def __init__(self, function: Any, outputs: tuple[str, ...]) -> None:
        self.function = function
        self.outputs = outputs
        lower, upper = function.bounds.tolist()
        self.space = Space(
            tuple(
                Continuous(f"x{i}", a, b)
                for i, (a, b) in enumerate(zip(lower, upper, strict=True), start=1)
            )
        )
        if len(outputs) > 1:
            self.reference_point = tuple(function.ref_point.tolist())

    def evaluate(self, X: Tensor) -> Tensor:
        values: Tensor = self.function.evaluate_true(X)
        return values.reshape(*X.shape[:-1], len(self.outputs))


class Branin(_FromBoTorch):
    r"""Three equal minima in two inputs (Dixon & Szego 1978).

    .. math:: y = \left(x_2 - \tfrac{5.1}{4\pi^2} x_1^2 + \tfrac5\pi x_1 - 6\right)^2
        + 10 \left(1 - \tfrac1{8\pi}\right) \cos x_1 + 10,
        \qquad x \in [-5, 10] \times [0, 15]
    """

    best = 0.397887
    minimisers = ((-math.pi, 12.275), (math.pi, 2.275), (9.42478, 2.475))

    def __init__(self) -> None:
        super().__init__(_Branin(), ("y",))


class Ackley(_FromBoTorch):
    r"""One deep minimum at the origin, among a lattice of shallow ones (Ackley 1987).

    .. math:: y = -20 \exp\Big(-0.2 \sqrt{\tfrac1d \textstyle\sum x_i^2}\Big)
        - \exp\Big(\tfrac1d \textstyle\sum \cos 2\pi x_i\Big) + 20 + e,
        \qquad x \in [-32.768, 32.768]^d

    Parameters
    ----------
    num_inputs : int
        d; 10 in Li et al.
    """

    best = 0.0

    def __init__(self, num_inputs: int = 10) -> None:
        super().__init__(_Ackley(dim=_positive("num_inputs", num_inputs)), ("y",))


class BraninCurrin(_FromBoTorch):
    """Branin and Currin's exponential function of two inputs at odds, on the unit square."""

    max_hypervolume = 59.36011874867746

    def __init__(self) -> None:
        super().__init__(_BraninCurrin(), ("branin", "currin"))


class DTLZ1(_FromBoTorch):
    """A plane front behind many local ones (Deb, Thiele, Laumanns & Zitzler 2002).

    Parameters
    ----------
    num_inputs, num_objectives : int
        5 and 2 in Li et al.; more inputs than objectives.
    """

    def __init__(self, num_inputs: int = 5, num_objectives: int = 2) -> None:
        names = _outputs(num_inputs, num_objectives)
        super().__init__(_DTLZ1(dim=num_inputs, num_objectives=num_objectives), names)


class DTLZ5(_FromBoTorch):
    """A curve for a front, whatever the number of objectives (Deb et al. 2002).

    Parameters
    ----------
    num_inputs, num_objectives : int
        More inputs than objectives.
    """

    def __init__(self, num_inputs: int = 6, num_objectives: int = 4) -> None:
        names = _outputs(num_inputs, num_objectives)
        super().__init__(_DTLZ5(dim=num_inputs, num_objectives=num_objectives), names)


class NetworkDraw(ObjectiveFunction):
    r"""A network drawn at random, to be made large: many inputs, all of which matter.

    .. math:: y = W_3 \tanh(W_2 \tanh(W_1 x + b_1) + b_2) + b_3, \qquad W, b \sim N(0, 1),
        \quad x \in [0, 1]^d

    with 256 units in each hidden layer. Most units are saturated: the variance of a first one
    before its activation is about :math:`1 + d/3`.

    Parameters
    ----------
    num_inputs : int
        d; 200 and 400 in Li et al.
    seed : int
        Of the draw.
    """

    direction: Direction = "maximize"
    outputs = ("y",)

    def __init__(self, num_inputs: int = 200, seed: int = 0) -> None:
        self.space = _unit_cube(_positive("num_inputs", num_inputs))
        generator = torch.Generator().manual_seed(seed)
        sizes = (num_inputs, 256, 256, 1)
        self.layers = [
            (_normal((i, o), generator), _normal((o,), generator)) for i, o in pairwise(sizes)
        ]

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        h = X
        for weight, bias in self.layers[:-1]:
            h = torch.tanh(h @ weight + bias)
        weight, bias = self.layers[-1]
        return h @ weight + bias


class PolynomialDraw(ObjectiveFunction):
    r"""A sum of random products of four inputs each, to be made large.

    .. math:: y = \sum_{g=1}^{d/4} \prod_{i=1}^{4} (x_{gi} - c_{gi}), \qquad c \sim N(0, 1),
        \quad x \in [0, 1]^d

    Each product is linear in each of its inputs, so the best of the cube is at a corner, found
    group by group among 16.

    Parameters
    ----------
    num_inputs : int
        d, a multiple of 4; 200 in Li et al.
    seed : int
        Of the draw.
    """

    direction: Direction = "maximize"
    outputs = ("y",)

    def __init__(self, num_inputs: int = 200, seed: int = 0) -> None:
        if num_inputs < 4 or num_inputs % 4:
            raise UserError(f"num_inputs must be a multiple of 4, found {num_inputs}")
        self.space = _unit_cube(num_inputs)
        self.centre = _normal((num_inputs,), torch.Generator().manual_seed(seed))

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        return (X - self.centre).unflatten(-1, (-1, 4)).prod(-1).sum(-1, keepdim=True)

    @cached_property
    def maximiser(self) -> Tensor:
        """A best corner, (d,)."""
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
        groups = self.centre.reshape(-1, 1, 4)
        return corners[(corners - groups).prod(-1).argmax(1)].flatten()

    @property
    def best(self) -> float:  # type: ignore[override]
        """Largest value on the cube."""
        return float(self.evaluate(self.maximiser))


class PestControl(ObjectiveFunction):
    r"""Which of four pesticides to use, if any, at each of a row of stages (Oh et al. 2019).

    From "Combinatorial Bayesian optimization using the graph Cartesian product" (arXiv
    1902.00448), with the constants of its code. A share :math:`z` of the crop is infested, at first
    :math:`z \sim \mathrm{Beta}(1, 30)`. At stage i

    .. math:: y \mathrel{+}= P(z > 0.1) + \text{price}, \qquad
        z \leftarrow \begin{cases} z + s (1 - z) & \text{untreated} \\
        (1 - r) z & \text{treated}\end{cases}

    with :math:`s \sim \mathrm{Beta}(1, 17/3)` and :math:`r \sim \mathrm{Beta}(1, \beta)`. A
    pesticide's :math:`\beta` grows with each use, as the pest becomes tolerant, and its price falls
    with the share of stages that use it. As every first parameter is 1, a draw is
    :math:`1 - (1 - u)^{1/\beta}` of a uniform number; the same numbers serve every plan, so that
    plans are compared on the same seasons.

    Parameters
    ----------
    stages : int
        25 in the paper.
    seasons : int
        Over which the probability is taken; 100 in the paper, drawn afresh at every call there.
    seed : int
        Of the seasons.
    """

    outputs = ("cost",)
    choices = ("none", "first", "second", "third", "fourth")
    threshold = 0.1
    price = torch.tensor([0.0, 1.0, 0.8, 0.7, 0.5], dtype=torch.float64)
    discount = torch.tensor([0.0, 0.2, 0.3, 0.3, 0.0], dtype=torch.float64)
    first_beta = torch.tensor([1.0, 2 / 7, 3 / 7, 3 / 7, 5 / 7], dtype=torch.float64)
    tolerance = torch.tensor([0.0, 1 / 7, 2.5 / 7, 2 / 7, 0.5 / 7], dtype=torch.float64)

    def __init__(self, stages: int = 25, seasons: int = 100, seed: int = 0) -> None:
        stages, seasons = _positive("stages", stages), _positive("seasons", seasons)
        self.space = Space(
            tuple(Categorical(f"stage_{i}", self.choices) for i in range(1, stages + 1))
        )
        generator = torch.Generator().manual_seed(seed)
        u = torch.rand(2 * stages + 1, seasons, generator=generator, dtype=torch.float64)
        self.infested = 1.0 - (1.0 - u[0]) ** (1.0 / 30.0)
        self.spread = 1.0 - (1.0 - u[1 : stages + 1]) ** (3.0 / 17.0)
        self.luck = u[stages + 1 :]

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        plan = X.round().long()
        used = torch.nn.functional.one_hot(plan, len(self.choices)).to(torch.float64)
        share = used.mean(-2)
        cost = (used * (self.price * (1.0 - self.discount * share)).unsqueeze(-2)).sum((-1, -2))
        before = used.cumsum(-2) - used
        beta = self.first_beta + self.tolerance * before / plan.shape[-1]
        beta = beta.gather(-1, plan.unsqueeze(-1))[..., 0]
        z = self.infested.expand(*plan.shape[:-1], -1)
        for i in range(plan.shape[-1]):
            cost = cost + (z > self.threshold).to(z).mean(-1)
            kept = (1.0 - self.luck[i]) ** (1.0 / beta[..., i : i + 1])
            grown = z + self.spread[i] * (1.0 - z)
            z = torch.where(plan[..., i : i + 1] > 0, kept * z, grown)
        return cost.unsqueeze(-1)


class OilSorbent(ObjectiveFunction):
    r"""Three properties of an electrospun oil sorbent, to be made large, of a mixed recipe.

    Quadratic response surfaces of Wang, Cai, Liu, Yang & Ding (2020, ACS Applied Materials &
    Interfaces, "Harnessing a novel machine-learning-assisted evolutionary algorithm to co-optimize
    three characteristics of an electrospun oil sorbent"): water contact angle, oil absorption and
    strength. Five settings have levels, the other two are continuous; each is a share of its
    largest value. Coefficients, levels and reference point are as in the public benchmark codes of
    Daulton et al. (2022, arXiv 2210.10199) and Li et al.
    """

    direction: Direction = "maximize"
    outputs = ("contact_angle", "absorption", "strength")
    reference_point = (125.3865, 57.8292, -43.2665)
    levels = (
        None,
        (0.7, 1.0, 1.4, 1.7, 2.0),
        (12.0, 15.0, 18.0, 21.0, 24.0),
        (0.12, 0.135, 0.15, 0.165, 0.18),
        None,
        (16.0, 20.0, 26.0, 28.0),
        (0.41, 0.6, 0.84, 1.32),
    )
    space = Space(
        (
            Continuous("polystyrene_ratio", 0.0, 1.0),
            Integer("feed_rate_level", 0, 4),  # 0.7 to 2 mL/h
            Integer("distance_level", 0, 4),  # 12 to 24 cm
            Integer("solute_level", 0, 4),  # mass fraction 0.12 to 0.18
            Continuous("silica_share", 0.0, 1.0),
            Integer("voltage_level", 0, 3),  # 16 to 28 kV
            Integer("diameter_level", 0, 3),  # 0.41 to 1.32 mm
        )
    )

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        columns = []
        for level, column in zip(self.levels, X.unbind(-1), strict=True):
            if level is None:
                columns.append(column)
            else:
                table = torch.tensor(level, dtype=X.dtype)
                columns.append((table / table[-1])[column.round().long()])
        V = torch.stack([torch.ones_like(columns[0]), *columns], dim=-1)
        quadratic = torch.stack([_quadratic(rows) for rows in _OIL]).to(V)
        return torch.einsum("...i,mij,...j->...m", V, quadratic, V)


_OIL: tuple[dict[str, float], ...] = (
    {
        "": -197.0928,
        "1": -78.3309, "2": 98.6355, "3": 300.0701, "4": 89.8360, "5": 208.2343, "6": 332.9341,
        "7": 135.6621,
        "12": -11.0715, "13": 201.8934, "14": 17.1270, "15": 2.5198, "16": -109.3922, "17": 30.1607,
        "23": -46.1790, "24": 19.2888, "25": -102.9493, "26": -19.1245, "27": 53.6297,
        "34": -73.0649, "35": -37.7181, "36": -219.1268, "37": -55.3704,
        "45": 3.8778, "46": -6.9252, "47": -105.1650, "56": -34.3181, "57": -36.3892,
        "67": -82.3222, "11": -16.7536, "22": -45.6507, "33": -91.4134, "55": -76.8701,
    },
    {
        "": -212.8531,
        "1": 245.7998, "2": -127.3395, "3": 305.8461, "4": 638.1605, "5": 301.2118, "6": -451.3796,
        "7": -115.5485,
        "12": 42.8351, "13": 262.3775, "14": -103.5274, "15": -196.1568, "16": -394.7975,
        "17": -176.3341, "23": 74.8291, "24": 4.1557, "25": -133.8683, "26": 65.8711,
        "27": -42.6911, "34": -323.9363, "35": -107.3983, "36": -323.2353, "37": 46.9172,
        "45": -144.4199, "46": 272.3729, "47": 49.0799, "56": 318.4706, "57": -236.2498,
        "67": 252.4848, "44": -286.0182, "66": 393.5992,
    },
    {
        "": 7.7696,
        "1": 15.4344, "2": -10.6190, "3": -17.9367, "4": 17.1385, "5": 2.5026, "6": -24.3010,
        "7": 10.6058,
        "12": -1.2041, "13": -37.2207, "14": -3.2265, "15": 7.3121, "16": 52.3994, "17": 9.7485,
        "23": -15.9371, "24": -1.1706, "25": -2.6297, "26": 7.0225, "27": -1.4938,
        "34": 30.2786, "35": 14.5061, "36": 48.5021, "37": -11.4857,
        "45": -3.1381, "46": -14.9747, "47": 4.5204, "56": -17.6907, "57": -19.2489,
        "67": -9.8219, "11": -18.7356, "22": 12.1928, "44": -17.5460, "55": 5.4997, "66": -26.2718,
    },
)  # fmt: skip
"""Coefficients of each output by the settings that they multiply."""


def _quadratic(coefficients: dict[str, float]) -> Tensor:
    """Matrix (8, 8) of a quadratic form in 1 and seven inputs."""
    form = torch.zeros(8, 8, dtype=torch.float64)
    for inputs, value in coefficients.items():
        i, j = (int(c) for c in inputs.rjust(2, "0"))
        form[i, j] = value
    return form


def _unit_cube(n: int) -> Space:
    return Space(tuple(Continuous(f"x{i}", 0.0, 1.0) for i in range(1, n + 1)))


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"{name} must be at least 1, found {value}")
    return value


def _outputs(num_inputs: int, num_objectives: int) -> tuple[str, ...]:
    if not 2 <= num_objectives < num_inputs:
        raise UserError(
            f"num_objectives must be at least 2 and below num_inputs, "
            f"found {num_objectives} and {num_inputs}"
        )
    return tuple(f"f{i}" for i in range(1, num_objectives + 1))
