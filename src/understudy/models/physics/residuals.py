r"""Residuals of an equation as one loss, and three ways to weigh them.

.. math:: L = \sum_g \alpha_g \sum_{k \in g} \operatorname{mean}_i (w_{k} \lambda_{k,i}\, r_{k,i})^2

with groups g (interior, boundary, data, regularisation), a weight :math:`w_k` of each residual,
inside the square as in arXiv 2312.17329, and :math:`\lambda` that may adapt:

`FixedWeights`
    :math:`\lambda = 1`.
`AnnealedWeights`
    one factor of the term outside the square, from gradient norms (Wang, Teng & Perdikaris 2021,
    arXiv 2001.04536): with the term whose largest gradient component is largest as reference,
    :math:`\lambda_k \leftarrow (1-b)\lambda_k + b \max|\nabla L_{ref}| / \overline{|\nabla L_k|}`.
`SelfAdaptiveWeights`
    one factor of each collocation point, which climbs the loss while the network descends it
    (McClenny & Braga-Neto 2023, arXiv 2009.04544).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

INTERIOR, BOUNDARY, DATA, REGULARISATION = "interior", "boundary", "data", "regularisation"


@dataclass(frozen=True)
class Term:
    """One residual.

    Parameters
    ----------
    name : str
    residual : Tensor (E, n)
        Of E networks at n points; made dimensionless by its caller.
    weight : float or Tensor (E, n)
        Inside the square.
    group : str
        Interior, boundary, data or regularisation.
    points : str
        Name of the set of points where it was evaluated; empty where it has none.
    """

    name: str
    residual: Tensor
    weight: float | Tensor = 1.0
    group: str = INTERIOR
    points: str = ""


@dataclass(frozen=True)
class Batch:
    """Collocation points.

    Parameters
    ----------
    points : dict of str to Tensor (E, n, d)
        By set.
    rows : dict of str to slice
        Where they lie in their set.
    """

    points: dict[str, Tensor]
    rows: dict[str, slice]

    def __getitem__(self, name: str) -> Tensor:
        return self.points[name]


class FixedWeights(nn.Module):
    """Weights that the terms bring along.

    Parameters
    ----------
    groups : mapping of str to float or Tensor (E,), optional
        Factor of each group, outside the square, and of each network where it is a tensor; 1 by
        default.
    """

    def __init__(self, groups: Mapping[str, float | Tensor] | None = None) -> None:
        super().__init__()
        self.groups = dict(groups or {})

    def each(self, terms: Sequence[Term], batch: Batch) -> Tensor:
        """Losses (terms, E)."""
        return torch.stack(
            [
                self.groups.get(term.group, 1.0) * (term.weight * term.residual).square().mean(-1)
                for term in terms
            ]
        )

    def loss(self, terms: Sequence[Term], batch: Batch) -> Tensor:
        """Loss (E,)."""
        return self.each(terms, batch).sum(0)

    def adapt(self, step: int, terms: Sequence[Term], model: nn.Module) -> None:
        """Called before each step of the first optimiser."""


class AnnealedWeights(FixedWeights):
    """A factor of each term that evens out the sizes of gradients.

    Parameters
    ----------
    groups : mapping of str to float, optional
    rate : float
        b.
    every : int
        Steps between updates; each costs one gradient a term.
    lower, upper : float
        Limits of the factors.
    """

    def __init__(
        self,
        groups: Mapping[str, float | Tensor] | None = None,
        rate: float = 0.09,
        every: int = 1,
        lower: float = 0.1,
        upper: float = 1e6,
    ) -> None:
        super().__init__(groups)
        self.rate, self.every, self.lower, self.upper = rate, every, lower, upper
        self.factors: dict[str, Tensor] = {}

    def each(self, terms: Sequence[Term], batch: Batch) -> Tensor:
        """Losses (terms, E); the terms' own weights are not used."""
        means = torch.stack(
            [self.groups.get(t.group, 1.0) * t.residual.square().mean(-1) for t in terms]
        )
        ones = torch.ones_like(means[0])
        return means * torch.stack([self.factors.get(term.name, ones) for term in terms])

    def adapt(self, step: int, terms: Sequence[Term], model: nn.Module) -> None:
        """Move the factors towards the ratio of gradients."""
        if step % self.every:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        sizes = [_gradient_sizes(term.residual.square().mean(-1), parameters) for term in terms]
        largest = torch.stack([most for most, _ in sizes])
        mean = torch.stack([each for _, each in sizes])
        wanted = largest.max(0).values / mean.clamp_min(1e-300)
        for term, target in zip(terms, wanted, strict=True):
            now = self.factors.get(term.name, torch.ones_like(target))
            moved = (1.0 - self.rate) * now + self.rate * target
            self.factors[term.name] = moved.clamp(self.lower, self.upper)


def _gradient_sizes(losses: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Largest and mean magnitude (E,) of the gradient of each network's loss."""
    E = len(losses)
    found = torch.autograd.grad(losses.sum(), parameters, retain_graph=True, allow_unused=True)
    flat = torch.cat([g.reshape(E, -1).abs() for g in found if g is not None], 1)
    return flat.max(1).values, flat.mean(1)


class SelfAdaptiveWeights(FixedWeights):
    """A factor of each fixed point, inside the square, that ascends.

    Parameters
    ----------
    groups : mapping of str to float, optional
    start : int
        Step from which the factors move.
    rate : float
        Of their Adam; the schedule of the training multiplies it too.
    """

    def __init__(
        self,
        groups: Mapping[str, float | Tensor] | None = None,
        start: int = 500,
        rate: float = 1e-2,
    ) -> None:
        super().__init__(groups)
        self.start, self.rate = start, rate
        self.factors = nn.ParameterDict()
        self._frozen = True

    def prepare(self, terms: Sequence[Term]) -> None:
        """Make the factors of the terms at all points of their sets."""
        for term in terms:
            if term.points:
                factor = nn.Parameter(torch.ones_like(term.residual.detach()))
                factor.register_hook(self._ascend)
                self.factors[_key(term)] = factor

    def _ascend(self, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient) if self._frozen else -gradient

    def each(self, terms: Sequence[Term], batch: Batch) -> Tensor:
        """Losses (terms, E)."""
        found = []
        for term in terms:
            weighted = term.weight * term.residual
            if term.points:
                weighted = weighted * self.factors[_key(term)][:, batch.rows[term.points]]
            found.append(self.groups.get(term.group, 1.0) * weighted.square().mean(-1))
        return torch.stack(found)

    def adapt(self, step: int, terms: Sequence[Term], model: nn.Module) -> None:
        """Hold the factors until their start."""
        self._frozen = step < self.start


def _key(term: Term) -> str:
    return term.name.replace(".", "_").replace(" ", "_")


# -- where -----------------------------------------------------------------------------------------

Sampler = Callable[[torch.Generator, int], Tensor]
"""Draws n points (n, d)."""


@dataclass(frozen=True)
class Box:
    """Uniform points of a box, some coordinates held.

    Parameters
    ----------
    bounds : dict of str to (float, float)
        Of each coordinate, in the order of the columns.
    held : dict of str to float
        Coordinates that keep one value, such as those of a face.
    lean : dict of str to float
        Exponents by which points crowd towards the lower end of a coordinate: of points that are
        uniform in [0, 1] powers are taken.
    """

    bounds: dict[str, tuple[float, float]]
    held: dict[str, float] = field(default_factory=dict)
    lean: dict[str, float] = field(default_factory=dict)

    def __call__(self, generator: torch.Generator, n: int) -> Tensor:
        """Points (n, d), float64; never on the lower end of a coordinate."""
        lower, upper = torch.tensor(list(self.bounds.values()), dtype=torch.float64).unbind(1)
        u = 1.0 - torch.rand(n, len(lower), generator=generator, dtype=torch.float64)
        for name, power in self.lean.items():
            u[:, list(self.bounds).index(name)] **= power
        points = lower + (upper - lower) * u
        for name, value in self.held.items():
            points[:, list(self.bounds).index(name)] = value
        return points

    def hold(self, **held: float) -> Box:
        """The same box with coordinates held."""
        return Box(self.bounds, {**self.held, **held}, self.lean)


class Collocation:
    """Points of each set, for E networks, in batches.

    Parameters
    ----------
    samplers : mapping of str to Sampler
    sizes : mapping of str to int
        Points of each set.
    seeds : sequence of int
        One for each network.
    batches : int
        In which the sets are cut.
    fresh : bool
        Whether each step draws its own points rather than a part of the set.
    grow : int, optional
        Column that is squeezed towards its lower end, 0, and stretched to its full range by half
        of the training.
    device : device
    """

    def __init__(
        self,
        samplers: Mapping[str, Sampler],
        sizes: Mapping[str, int],
        seeds: Sequence[int] = (0,),
        batches: int = 10,
        fresh: bool = False,
        grow: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = device
        self.samplers, self.batches, self.fresh, self.grow = dict(samplers), batches, fresh, grow
        self.sizes = {name: max(batches, sizes[name]) // batches * batches for name in samplers}
        self._generators = [torch.Generator().manual_seed(7919 + seed) for seed in seeds]
        self._whole = self._drawn(1)

    def _drawn(self, parts: int) -> dict[str, Tensor]:
        return {
            name: torch.stack([draw(g, self.sizes[name] // parts) for g in self._generators]).to(
                self.device
            )
            for name, draw in self.samplers.items()
        }

    def whole(self) -> Batch:
        """All points."""
        return Batch(self._whole, {name: slice(None) for name in self._whole})

    def batch(self, step: int, progress: float = 1.0) -> Batch:
        """Points of a step."""
        if self.fresh:
            points = self._drawn(self.batches)
            return Batch(self._grown(points, progress), {name: slice(None) for name in points})
        k = step % self.batches
        rows = {
            name: slice(k * size // self.batches, (k + 1) * size // self.batches)
            for name, size in self.sizes.items()
        }
        points = {name: self._whole[name][:, rows[name]] for name in rows}
        return Batch(self._grown(points, progress), rows)

    def _grown(self, points: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        if self.grow is None or progress >= 0.5:
            return points
        first = next(iter(points.values()))
        factor = first.new_ones(first.shape[-1])
        factor[self.grow] = max(2.0 * progress, 1e-3)
        return {name: each * factor for name, each in points.items()}
