r"""Deep generative neural operator (Zang & Koutsourelakis 2025, arXiv 2502.06250).

A latent vector :math:`\beta \in (-1, 1)^d`, uniform a priori, stands for a coefficient and for all
that follows from it. Decoders, which are MultiONets, make fields of the *same* :math:`\beta`:

.. math:: a(x) \sim p(a \mid \beta), \qquad u(x; \beta) = \sin \pi x_1 \sin \pi x_2\,
          G_u(\beta)(x), \qquad s(x; \beta) = \big(G_{s_1}, G_{s_2}\big)(\beta)(x),

the coefficient of two phases by :math:`P(a(x) = a_+) = \mathrm{sigmoid}\, G_a(\beta)(x)`, the
solution with its boundary condition, and the flux. The equation enters as virtual observations: its
weak residuals (:mod:`~understudy.models.operators.weak_residual`) were "observed" to be zero. So
unlabelled coefficients are all the data there are; no equation is ever solved. With a point
estimate :math:`\beta = \tanh(\mathrm{encoder}(a))` the loss is

.. math:: w_{pde} \big(\mathrm{mean}\, r^1 + \sqrt{n_c}\, \mathrm{mean}\, (r^2)^2\big)
          + w_{data}\, \mathrm{BCE}\big(G_a(\beta), a\big), \qquad w_{pde} = 1,\ w_{data} = 1/4 .

**Inversion.** Readings :math:`y_i = u(x_i) + \sigma \varepsilon_i` give, with frozen decoders,

.. math:: \log p(\beta \mid y) = -\frac{1}{2 \sigma^2} \sum_i \big(u(x_i; \beta) - y_i\big)^2
          - \frac12 \Big(\lambda_1 \sum_j r^1_j + \lambda_2 \sum_j (r^2_j)^2\Big) + \mathrm{const}

where the coefficient in the residuals is the mean of :math:`p(a \mid \beta)`. It is explored in
:math:`z = \mathrm{artanh}\, \beta`, whose prior is :math:`\prod (1 - \tanh^2 z)/2`: a discontinuous
field is found by a smooth search in few dimensions. The precisions are those at which the residuals
of the training fields are of size one, which is our choice; so are the posterior beyond a point
estimate, which follows from the probabilistic form of the paper, and the starts, which are codes
of training fields.

:class:`PIMultiONet` and :class:`PIDeepONet` are trained by the same residuals, but see the
coefficient's cells in the place of :math:`\beta`, have no decoder of it, and so cannot be inverted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.loop import Outcome, shuffled_batches
from understudy.core.operator import Operator
from understudy.models.operators.multionet import MultiONet, cell_points
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.training import (
    Listener,
    Stored,
    Training,
    read_operator,
    save_operator,
)
from understudy.models.operators.weak_residual import WeakResidual
from understudy.sample import HMC, Chains, Plan, maximise, sample

Method = Literal["map", "vi", "hmc"]
METHODS = ("map", "vi", "hmc")

_FEATURES = 64
_EDGE = 0.999  # codes beyond are pulled back, where tanh is flat
_CHUNK = 256
_STARTS = 8


# -- networks --------------------------------------------------------------------------------------


class FieldEncoder(nn.Module):
    r"""Vector :math:`\beta` of a field: three convolutions of stride two, three dense layers, tanh.

    140,416 weights for 29 x 29 cells and 128 numbers, as in the paper.

    Parameters
    ----------
    shape : (int, int)
        Cells along each axis, at least 15.
    latent_dim : int
    """

    def __init__(self, shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        left = [(((n - 1) // 2 - 1) // 2 - 1) // 2 for n in shape]
        if len(left) != 2 or min(left) < 1:
            raise UserError(
                f"an encoder needs a field of two axes and at least 15 cells each, found {shape}"
            )
        channels = (1, _FEATURES, _FEATURES, _FEATURES)
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, 2) for i, o in pairwise(channels))
        sizes = (_FEATURES * math.prod(left), 128, 128, latent_dim)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def forward(self, a: Tensor) -> Tensor:
        """``(B, latent_dim)`` of fields ``(B, 1, *shape)``."""
        for convolution in self.convolutions:
            a = F.silu(convolution(a))
        h = a.flatten(1)
        *hidden, last = self.layers
        for layer in hidden:
            h = F.silu(layer(h))
        return torch.tanh(last(h))


class MixedFields(FieldNetwork):
    """Decoders of a solution that is zero on the boundary of the unit square, and of its flux.

    A subclass says in :meth:`latent` what they decode.
    """

    points: Tensor
    u: MultiONet
    flux: nn.ModuleList

    def _decoders(
        self,
        shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int],
        activation: str,
        last_only: bool = False,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.register_buffer("points", cell_points(self.shape).float(), persistent=False)
        self.u = MultiONet(2, latent_dim, hidden, activation, last_only)
        self.flux = nn.ModuleList(
            MultiONet(2, latent_dim, hidden, activation, last_only) for _ in range(2)
        )

    def latent(self, a: Tensor) -> Tensor:
        """Vectors ``(B, d)`` of scaled coefficients ``(B, 1, *shape)``."""
        raise NotImplementedError

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Solutions ``(B, 1, *shape)`` of scaled coefficients ``(B, 1, *shape)``."""
        values = self.solution(self.points, self.latent(u))
        return values.unflatten(1, self.shape).unsqueeze(1)

    def solution(self, x: Tensor, beta: Tensor) -> Tensor:
        """Solutions ``(B, N)`` at points ``(N, 2)``."""
        return bubble(x)[0] * self.u(x, beta)

    def gradient(self, x: Tensor, beta: Tensor) -> Tensor:
        """Gradients ``(2, B, N)`` of solutions at points ``(N, 2)``."""
        return Solutions.at(self.u, x).gradient(beta)

    def fluxes(self, x: Tensor, beta: Tensor) -> Tensor:
        """Fluxes ``(2, B, N)`` at points ``(N, 2)``."""
        return torch.stack([decoder(x, beta) for decoder in self.flux])


class GenerativeFields(MixedFields):
    """Encoder, and decoders of solution, flux and coefficient.

    Parameters
    ----------
    shape : (int, int)
        Cells along each axis.
    latent_dim : int
        128 in the paper.
    hidden : sequence of int
        Layers of the decoders.
    activation : str
        Of the decoders.
    """

    kind = "dgno"

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int = 128,
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
    ) -> None:
        super().__init__()
        self.settings = {
            "shape": [int(n) for n in shape],
            "latent_dim": latent_dim,
            "hidden": [int(n) for n in hidden],
            "activation": activation,
        }
        self.latent_dim = latent_dim
        self.encoder = FieldEncoder(shape, latent_dim)
        self._decoders(shape, latent_dim, hidden, activation)
        self.a = MultiONet(2, latent_dim, hidden, activation)

    def latent(self, a: Tensor) -> Tensor:  # noqa: D102
        out: Tensor = self.encoder(a)
        return out


class SensorFields(MixedFields):
    """Decoders of solution and flux that see the coefficient's cells.

    Parameters
    ----------
    shape, hidden, activation
        As of :class:`GenerativeFields`.
    last_only : bool
        Whether decoders are DeepONets.
    """

    kind = "sensor-fields"

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        last_only: bool = False,
    ) -> None:
        super().__init__()
        self.settings = {
            "shape": [int(n) for n in shape],
            "hidden": [int(n) for n in hidden],
            "activation": activation,
            "last_only": last_only,
        }
        self._decoders(shape, math.prod(shape), hidden, activation, last_only)

    def latent(self, a: Tensor) -> Tensor:  # noqa: D102
        return a.flatten(1)


def bubble(x: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\sin \pi x_1 \sin \pi x_2` ``(N,)`` and its gradient ``(2, N)`` at ``(N, 2)``."""
    (s1, s2), (c1, c2) = (f(math.pi * x).unbind(-1) for f in (torch.sin, torch.cos))
    return s1 * s2, math.pi * torch.stack([c1 * s2, s1 * c2])


@dataclass(frozen=True)
class Solutions:
    """A decoder of solutions at points that stay: what depends on the points alone.

    Parameters
    ----------
    decoder : MultiONet
    values : Tensor (N, l h)
    rates : Tensor (2, N, l h)
    factor, slope : Tensor (N,), (2, N)
        Factor that is zero on the boundary, and its gradient.
    """

    decoder: MultiONet
    values: Tensor
    rates: Tensor
    factor: Tensor
    slope: Tensor

    @classmethod
    def at(cls, decoder: MultiONet, x: Tensor) -> Solutions:
        """At points ``(N, 2)``."""
        return cls(decoder, *decoder.basis_with_gradient(x), *bubble(x))

    def gradient(self, beta: Tensor) -> Tensor:
        """Gradients ``(2, B, N)``."""
        c = self.decoder.coefficients(beta)
        inner = self.decoder.combine(c, self.values)
        return torch.matmul(c, self.rates.mT) * self.factor + inner * self.slope.unsqueeze(1)


# -- operators -------------------------------------------------------------------------------------


class WeakFormOperator(Operator):
    """From coefficients of two phases to solutions of Darcy's equation, trained by residuals.

    Parameters
    ----------
    network : MixedFields
    residual : WeakResidual
    phases : (float, float)
        The two values of the coefficient, the lower one first; both positive.
    """

    model: ClassVar[str]
    inputs = ("coefficient",)
    outputs = ("pressure",)
    parameters = ()

    def __init__(
        self,
        network: MixedFields,
        residual: WeakResidual | None = None,
        phases: tuple[float, float] = (5.0, 10.0),
    ) -> None:
        low, high = phases
        if not 0.0 < low < high < math.inf:
            raise UserError(f"phases must be two rising positive numbers, found {low:g}, {high:g}")
        self.network = network
        self.residual = residual or WeakResidual()
        self.phases = (float(low), float(high))
        self.grid = Grid.of(*network.shape, placement="cells")
        self.outcome: Outcome | None = None

    def fit(
        self, a: Tensor, training: Training | None = None, listener: Listener | None = None
    ) -> Self:
        """Train on coefficients without solutions.

        Parameters
        ----------
        a : Tensor (N, 1, n, n)
            In cells of the unit square, first axis x.
        training : Training, optional
        listener : callable (Event) -> None, optional
        """
        plan = training or Training()
        self.network.to(plan.device)
        fields = self._scaled(a)
        batches = shuffled_batches(len(fields), plan.batch_size, plan.seed)

        def loss(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(1_000_003 * plan.seed + step)
            return self._loss(fields[batches(step).to(fields.device)], generator)

        self.outcome = plan.run(self.network, loss, None, listener)
        self._settle(fields, plan.seed)
        return self

    def _loss(self, scaled: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of a batch of scaled coefficients ``(B, 1, n, n)``, which are -1 and 1."""
        beta = self.network.latent(scaled)
        flux, k_gradient = self._fluxes(scaled, beta, self.residual.draw(generator))
        return self.residual.loss(flux, k_gradient)

    def _fluxes(self, scaled: Tensor, beta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Fluxes s and :math:`K \nabla u` ``(2, B, N)`` at points ``(N, 2)``."""
        shape = torch.tensor(self.network.shape)
        i, j = (x * shape).long().minimum(shape - 1).unbind(-1)
        K = self._coefficient(scaled[:, 0, i, j])
        near = x.to(scaled)
        return self.network.fluxes(near, beta), K * self.network.gradient(near, beta)

    def _settle(self, scaled: Tensor, seed: int) -> None:
        """What a subclass finds out after training."""

    def _coefficient(self, scaled: Tensor) -> Tensor:
        low, high = self.phases
        return low + (high - low) * 0.5 * (scaled + 1.0)

    def _scaled(self, a: Tensor) -> Tensor:
        """Coefficients as -1 and 1, on the network's device."""
        self._checked_fields(a, (None, 1), "coefficients")
        if tuple(a.shape[2:]) != self.grid.shape:
            raise UserError(
                f"coefficients have {tuple(a.shape[2:])} cells, the operator {self.grid.shape}"
            )
        low, high = self.phases
        scaled = 2.0 * (a.to(torch.float64) - low) / (high - low) - 1.0
        strange = (scaled.abs() - 1.0).abs() > 1e-5
        if bool(strange.any()):
            raise UserError(
                f"coefficients of this operator are {low:g} or {high:g}, "
                f"found {float(a[strange][0]):g}"
            )
        return scaled.to(next(self.network.parameters()))

    @torch.no_grad()
    def predict(self, u: Tensor, params: Tensor | None = None) -> Tensor:
        """Solutions ``(B, 1, n, n)`` of coefficients ``(B, 1, n, n)``, float32."""
        self._checked_parameters(params, len(u))
        scaled = self._scaled(u)
        parts = [self.network(scaled[i : i + _CHUNK]) for i in range(0, len(scaled), _CHUNK)]
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def solution(self, a: Tensor, x: Tensor) -> Tensor:
        """Solutions ``(B, N)`` of coefficients ``(B, 1, n, n)`` at points ``(N, 2)`` anywhere."""
        scaled = self._scaled(a)
        points = _inside(x, "points").to(scaled)
        return self.network.solution(points, self.network.latent(scaled)).cpu()

    def _settings(self) -> dict[str, Any]:
        return {"residual": asdict(self.residual), "phases": list(self.phases)}

    def _tensors(self) -> dict[str, Tensor]:
        return {}

    def save(self, path: str | Path) -> Path:
        """Write to a ``.us`` file, from which :meth:`load` restores it."""
        return save_operator(
            path, self.model, self.network, self.grid, self._settings(), self._tensors()
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a ``.us`` file."""
        return cls.restore(read_operator(path, cls.model))

    @classmethod
    def restore(cls, stored: Stored) -> Self:
        """Make one of what was stored."""
        new = cls.__new__(cls)
        assert isinstance(stored.network, MixedFields)
        low, high = stored.settings["phases"]
        WeakFormOperator.__init__(
            new, stored.network, WeakResidual(**stored.settings["residual"]), (low, high)
        )
        new._restore(stored.tensors)
        return new

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`_tensors` gave."""


class PIMultiONet(WeakFormOperator):
    """MultiONets of the coefficient's cells, trained by residuals.

    Parameters
    ----------
    shape, hidden, activation
        As of :class:`SensorFields`.
    residual, phases
        As of :class:`WeakFormOperator`.
    """

    model = "pi-multionet"
    last_only: ClassVar[bool] = False

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        residual: WeakResidual | None = None,
        phases: tuple[float, float] = (5.0, 10.0),
    ) -> None:
        network = SensorFields(shape, hidden, activation, self.last_only)
        super().__init__(network, residual, phases)


class PIDeepONet(PIMultiONet):
    """DeepONets of the coefficient's cells, trained by residuals; parameters as `PIMultiONet`."""

    model = "pi-deeponet"
    last_only = True


class DeepGenerativeNeuralOperator(WeakFormOperator):
    r"""Forward and inverse operator of a two-phase coefficient, trained on coefficients alone.

    Parameters
    ----------
    shape : (int, int)
        Cells of the unit square in which coefficients are given.
    latent_dim : int
        d; 128 in the paper.
    hidden, activation
        Of the decoders, see :class:`MultiONet`.
    residual : WeakResidual, optional
        The equation and its residuals.
    phases : (float, float)
        The two values of the coefficient.
    data_weight : float
        :math:`w_{data}`.
    """

    model = "dgno"
    network: GenerativeFields

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int = 128,
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        residual: WeakResidual | None = None,
        phases: tuple[float, float] = (5.0, 10.0),
        data_weight: float = 0.25,
    ) -> None:
        super().__init__(GenerativeFields(shape, latent_dim, hidden, activation), residual, phases)
        self.data_weight = data_weight

    def _loss(self, scaled: Tensor, generator: torch.Generator) -> Tensor:
        beta = self.network.latent(scaled)
        flux, k_gradient = self._fluxes(scaled, beta, self.residual.draw(generator))
        logits = self.network.a(self.network.points, beta)
        reconstruction = F.binary_cross_entropy_with_logits(logits, 0.5 * (scaled.flatten(1) + 1.0))
        return self.residual.loss(flux, k_gradient) + self.data_weight * reconstruction

    @torch.no_grad()
    def _settle(self, scaled: Tensor, seed: int) -> None:
        """Codes of the training fields, and the precisions of their residuals."""
        self.codes = torch.cat([self.network.latent(part) for part in scaled.split(_CHUNK)])
        some = slice(_CHUNK // 4)
        x = self.residual.draw(torch.Generator().manual_seed(seed))
        flux, k_gradient = self._fluxes(scaled[some], self.codes[some], x)
        mean_squares = (
            self.residual.mismatch(flux, k_gradient).mean(),
            self.residual.balance(flux).square().mean(),
        )
        self.precisions = 1.0 / torch.stack(mean_squares).clamp_min(1e-12)

    def _tensors(self) -> dict[str, Tensor]:
        return {"codes": self.codes.cpu(), "precisions": self.precisions.cpu()}

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "data_weight": self.data_weight}

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.codes, self.precisions = tensors["codes"], tensors["precisions"]

    def encode(self, a: Tensor, steps: int = 0, seed: int = 0) -> Tensor:
        r"""Vectors :math:`\beta` ``(B, d)`` of coefficients.

        Parameters
        ----------
        a : Tensor (B, 1, n, n)
        steps : int
            Of Adam on the loss of training, from the encoder's answer, which is the paper's. The
            encoder of few training fields is less sure than the decoders are; it needs no solution.
        seed : int
            Of the discs in which residuals are taken.
        """
        scaled = self._scaled(a)
        with torch.no_grad():
            beta = self.network.latent(scaled)
        if not steps:
            return beta.cpu()
        x = self.residual.draw(torch.Generator().manual_seed(seed))
        weight = math.sqrt(self.residual.n_centres)

        def minus_loss(z: Tensor) -> Tensor:
            code = torch.tanh(z)
            flux, k_gradient = self._fluxes(scaled, code, x)
            pde = self.residual.mismatch(flux, k_gradient).mean(1)
            pde = pde + weight * self.residual.balance(flux).square().mean(1)
            return -pde - self.data_weight * self._misfit(scaled, code).mean(1)

        start = torch.atanh(beta.clamp(-_EDGE, _EDGE))
        return torch.tanh(maximise(minus_loss, start, steps, 0.03)).cpu()

    def _misfit(self, scaled: Tensor, beta: Tensor) -> Tensor:
        """Cross-entropies ``(B, n n)`` of decoded coefficients."""
        logits = self.network.a(self.network.points, beta)
        truth = 0.5 * (scaled.flatten(1) + 1.0)
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="none")

    @torch.no_grad()
    def decode(self, beta: Tensor, x: Tensor | None = None) -> Tensor:
        r"""Means of :math:`p(a \mid \beta)`.

        Parameters
        ----------
        beta : Tensor (B, d)
        x : Tensor (N, 2), optional
            Centres of the cells by default.

        Returns
        -------
        Tensor (B, N), or (B, n, n) without x
        """
        low, high = self.phases
        found = low + (high - low) * self.probability(beta, x)
        return found if x is not None else found.unflatten(-1, self.grid.shape)

    @torch.no_grad()
    def probability(self, beta: Tensor, x: Tensor | None = None) -> Tensor:
        r"""Chance ``(B, N)`` of the higher phase; arguments as of :meth:`decode`."""
        here = self.network.points
        at = here if x is None else _inside(x, "points").to(here)
        return torch.sigmoid(self.network.a(at, beta.to(here))).cpu()

    def infer(
        self,
        u_obs: Tensor,
        x_obs: Tensor,
        noise_sd: float | Tensor,
        method: Method = "map",
        *,
        chains: int = 4,
        samples: int = 250,
        burn_in: int = 250,
        n_centres: int = 100,
        steps: int = 300,
        seed: int = 0,
    ) -> LatentPosterior:
        r"""Posterior of the coefficient given readings of the solution.

        Parameters
        ----------
        u_obs : Tensor (N,) or (I, N)
            Readings; of I fields at once, each by itself, at the same sensors.
        x_obs : Tensor (N, 2)
            Where they were taken, in the unit square.
        noise_sd : float or Tensor (I,)
            Deviation of their errors, that of the operator included.
        method : {"map", "vi", "hmc"}
            The likeliest :math:`\beta`, by Adam; a Gaussian of independent coordinates of z, by the
            gradient of its evidence bound with fixed draws; Hamiltonian Monte Carlo. All start
            from the codes of training fields that explain the readings best.
        chains : int
            Of each field, for ``"vi"`` and ``"hmc"``; from the likeliest of at least eight codes
            that Adam improved.
        samples, burn_in : int
            Draws of each chain.
        n_centres : int
            Discs, fixed, in which residuals are taken; 100 in the paper's inversions.
        steps : int
            Of Adam, before the chains begin too.
        seed : int
        """
        if method not in METHODS:
            raise UserError(f"method must be one of {', '.join(METHODS)}, found {method!r}")
        if chains < 1:
            raise UserError(f"chains must be at least 1, found {chains}")
        starts = max(chains, _STARTS)
        target = self._target(u_obs, x_obs, noise_sd, starts, n_centres, seed)
        z = maximise(target, target.starts(self.codes, starts), steps, 0.03)
        z = _best(z, target(z), starts, 1 if method == "map" else chains)
        target = target.of(starts, chains)
        found: Chains | None = None
        if method == "map":
            draws = z.unsqueeze(1)
        elif method == "vi":
            draws = _gaussian(target, z, chains, samples, steps, seed)
        else:
            sampler = HMC(step_size=0.05, path_length=0.5, max_leapfrog=20, mass="diagonal")
            found = sample(sampler, target, z, Plan(burn_in, samples), seed)
            draws = found.draws.unflatten(1, (-1, chains)).permute(1, 2, 0, 3).flatten(1, 2)
        return LatentPosterior(self, draws, method, seed, found)

    def _target(
        self,
        u_obs: Tensor,
        x_obs: Tensor,
        noise_sd: float | Tensor,
        copies: int,
        n_centres: int,
        seed: int,
    ) -> LatentTarget:
        here = self.network.points
        x = _inside(x_obs, "sensors")
        y = torch.atleast_2d(u_obs)
        if y.ndim != 2 or y.shape[1] != len(x) or not y.numel():
            raise UserError(
                f"readings must be of shape (I, {len(x)}), one a sensor, found {tuple(u_obs.shape)}"
            )
        if not bool(y.isfinite().all()):
            raise UserError("readings must be finite; a NaN or infinity was found")
        noise = torch.as_tensor(noise_sd, dtype=torch.float64).expand(len(y))
        if not bool((noise > 0.0).all() and noise.isfinite().all()):
            raise UserError(f"noise_sd must be positive, found {float(noise.min()):g}")
        rule = WeakResidual(**{**asdict(self.residual), "n_centres": n_centres})
        discs = rule.draw(torch.Generator().manual_seed(seed)).to(here)
        with torch.no_grad():
            x = x.to(here)
            return LatentTarget(
                operator=self,
                residual=rule,
                y=y.to(here).repeat_interleave(copies, 0),
                noise=noise.to(here).repeat_interleave(copies).unsqueeze(1),
                sensors=self.network.u.basis(x) * bubble(x)[0].unsqueeze(1),
                offset=self.network.u.b.detach() * bubble(x)[0],
                solutions=Solutions.at(self.network.u, discs),
                flux=tuple(decoder.basis(discs) for decoder in self.network.flux),  # type: ignore[operator]
                a=self.network.a.basis(discs),
            )


def _inside(x: Tensor, what: str) -> Tensor:
    """Points ``(N, 2)`` of the unit square, or an error that names the first outside."""
    if x.ndim != 2 or x.shape[1] != 2 or not len(x):
        raise UserError(f"{what} must be of shape (N, 2), found {tuple(x.shape)}")
    outside = ~((x >= 0.0) & (x <= 1.0)).all(1)
    if bool(outside.any()):
        i = int(outside.nonzero()[0])
        at = ", ".join(f"{value:g}" for value in x[i].tolist())
        raise UserError(f"{what} must lie in the unit square, but number {i + 1} is at ({at})")
    return x


# -- posterior -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentTarget:
    r"""Log density of :math:`z = \mathrm{artanh}\, \beta` for chains, each with its readings.

    Parameters
    ----------
    operator : DeepGenerativeNeuralOperator
    residual : WeakResidual
    y, noise : Tensor (c, N), (c, 1)
        Readings of each chain and their deviation.
    sensors, offset : Tensor (N, F), (N,)
        Functions of the solution at sensors.
    solutions : Solutions
        At the quadrature points of fixed discs.
    flux : pair of Tensor (Q, F)
    a : Tensor (Q, F)
    """

    operator: DeepGenerativeNeuralOperator
    residual: WeakResidual
    y: Tensor
    noise: Tensor
    sensors: Tensor
    offset: Tensor
    solutions: Solutions
    flux: tuple[Tensor, ...]
    a: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """At ``(c, d)``, or at ``(m c, d)`` for m points of each chain."""
        return self.likelihood(z) - 0.5 * self.virtual(z) + self.prior(z)

    def prior(self, z: Tensor) -> Tensor:
        """Log density ``(c,)`` of uniform vectors, up to a constant."""
        return 2.0 * (math.log(2.0) - z - F.softplus(-2.0 * z)).sum(1)

    def likelihood(self, z: Tensor) -> Tensor:
        """Log likelihood ``(c,)`` of the readings, up to a constant."""
        c = self.operator.network.u.coefficients(torch.tanh(z))
        u = (c @ self.sensors.mT + self.offset).unflatten(0, (-1, len(self.y)))
        return -0.5 * ((u - self.y) / self.noise).square().sum(-1).flatten()

    def virtual(self, z: Tensor) -> Tensor:
        """Residuals ``(c,)``, squared, summed and weighted by their precisions."""
        network, beta = self.operator.network, torch.tanh(z)
        low, high = self.operator.phases
        logits = network.a.combine(network.a.coefficients(beta), self.a)
        K = low + (high - low) * torch.sigmoid(logits)
        s = torch.stack(
            [
                decoder.combine(decoder.coefficients(beta), basis)  # type: ignore[operator]
                for decoder, basis in zip(network.flux, self.flux, strict=True)
            ]
        )
        mismatch = self.residual.mismatch(s, K * self.solutions.gradient(beta))
        first, second = self.operator.precisions.to(z)
        return first * mismatch.sum(1) + second * self.residual.balance(s).square().sum(1)

    def of(self, copies: int, chains: int) -> LatentTarget:
        """Target of another number of chains a field."""
        y, noise = (each[::copies].repeat_interleave(chains, 0) for each in (self.y, self.noise))
        return replace(self, y=y, noise=noise)

    @torch.no_grad()
    def starts(self, codes: Tensor, chains: int) -> Tensor:
        """Codes ``(c, d)`` that explain the readings of each field best, as z."""
        z = torch.atanh(codes.to(self.y).clamp(-_EDGE, _EDGE))
        c = self.operator.network.u.coefficients(torch.tanh(z))
        u = c @ self.sensors.mT + self.offset
        y = self.y[::chains]
        far = torch.cdist(y, u) / self.noise[::chains]
        order = far.argsort(1)
        which = order[:, torch.arange(chains) % len(z)]
        return z[which.flatten()].contiguous()


def _best(z: Tensor, value: Tensor, copies: int, kept: int = 1) -> Tensor:
    """Positions ``(I * kept, d)`` of the highest values among the copies of each field."""
    which = value.unflatten(0, (-1, copies)).topk(kept, dim=1).indices
    fields = torch.arange(len(which), device=z.device).unsqueeze(1)
    return z.unflatten(0, (-1, copies))[fields, which].flatten(0, 1)


def _gaussian(
    target: LatentTarget, z: Tensor, chains: int, samples: int, steps: int, seed: int
) -> Tensor:
    """Draws ``(I, chains * samples, d)`` of Gaussians fitted around positions ``(c, d)``."""
    d = z.shape[1]
    generator = torch.Generator(z.device).manual_seed(seed)
    noise = torch.randn(16, *z.shape, generator=generator, dtype=z.dtype, device=z.device)
    noise = torch.cat([noise, -noise])

    def bound(position: Tensor) -> Tensor:
        mean, log_sd = position.split(d, 1)
        at = mean + log_sd.exp() * noise
        return target(at.flatten(0, 1)).unflatten(0, (len(noise), -1)).mean(0) + log_sd.sum(1)

    fitted = maximise(bound, torch.cat([z, torch.full_like(z, -2.0)], 1), steps, 0.03)
    mean, log_sd = _best(fitted, bound(fitted), chains).split(d, 1)
    draws = torch.randn(
        len(mean), chains * samples, d, generator=generator, dtype=z.dtype, device=z.device
    )
    return mean.unsqueeze(1) + log_sd.exp().unsqueeze(1) * draws


@dataclass(frozen=True)
class LatentPosterior:
    r"""Posterior of coefficients, as draws of :math:`z = \mathrm{artanh}\, \beta`.

    Parameters
    ----------
    operator : DeepGenerativeNeuralOperator
    z : Tensor (I, S, d)
        S draws for each of I fields; one where the method is ``"map"``.
    method : {"map", "vi", "hmc"}
    seed : int
    chains : Chains, optional
        What was sampled, by ``"hmc"``.
    """

    operator: DeepGenerativeNeuralOperator
    z: Tensor
    method: Method
    seed: int
    chains: Chains | None = None

    @property
    def beta(self) -> Tensor:
        """Latent vectors ``(I, S, d)``."""
        return torch.tanh(self.z)

    @property
    def mean(self) -> Tensor:
        """Mean of the coefficient in the cells, ``(I, n, n)``."""
        low, high = self.operator.phases
        return low + (high - low) * self._chance()

    @property
    def std(self) -> Tensor:
        """Standard deviation of the coefficient in the cells, ``(I, n, n)``."""
        low, high = self.operator.phases
        p = self._chance()
        return (high - low) * (p * (1.0 - p)).sqrt()

    def _chance(self) -> Tensor:
        p = self.probability().mean(1)
        return p.unflatten(-1, self.operator.grid.shape)

    def probability(self, x: Tensor | None = None) -> Tensor:
        """Chance of the higher phase by draw, ``(I, S, N)``, at points ``(N, 2)`` or the cells."""
        found = [self.operator.probability(part, x) for part in self.beta.flatten(0, 1).split(512)]
        return torch.cat(found).unflatten(0, self.z.shape[:2])

    def sample_a(self, x: Tensor | None = None) -> Tensor:
        """Coefficients ``(I, S, N)``, one of either phase for each draw and point."""
        low, high = self.operator.phases
        p = self.probability(x)
        uniform = torch.rand(p.shape, generator=torch.Generator().manual_seed(self.seed))
        return torch.where(uniform < p, high, low)

    def interval(self, level: float = 0.9, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ends ``(I, N)`` of central intervals of the coefficient."""
        if not 0.0 < level < 1.0:
            raise UserError(f"level must be between 0 and 1, found {level:g}")
        ends = torch.tensor([0.5 - level / 2.0, 0.5 + level / 2.0])
        low, high = self.operator.phases
        p = self.probability(x).mean(1)
        lower, upper = (torch.where(1.0 - p >= q, low, high) for q in ends)
        return lower, upper

    @torch.no_grad()
    def solution(self, x: Tensor) -> Tensor:
        """Solutions ``(I, S, N)`` at points ``(N, 2)``."""
        network = self.operator.network
        points = _inside(x, "points").to(network.points)
        found = [network.solution(points, part) for part in self.beta.flatten(0, 1).split(512)]
        return torch.cat(found).cpu().unflatten(0, self.z.shape[:2])
