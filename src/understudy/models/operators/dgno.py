r"""Deep generative neural operator (Zang & Koutsourelakis 2025, arXiv 2502.06250).

A latent vector :math:`\beta \in (-1, 1)^d`, uniform a priori, stands for a coefficient and for all
that follows from it. Decoders, which are MultiONets, make fields of the *same* :math:`\beta`:

.. math:: a(x) \sim p(a \mid \beta), \qquad u(x; \beta) = \sin \pi x_1 \sin \pi x_2\,
          G_u(\beta)(x), \qquad s(x; \beta) = \big(G_{s_1}, G_{s_2}\big)(\beta)(x),

the coefficient (of two phases with :math:`P(a(x) = a_+) = \mathrm{sigmoid}\, G_a(\beta)(x)`, or
continuous, see :mod:`~understudy.models.operators.media`), the solution with its boundary
condition, and the flux, where the coefficient jumps. The equation enters as virtual observations:
its weak residuals (:mod:`~understudy.models.operators.weak_residual`) were "observed" to be zero.
So unlabelled coefficients are all the data there are; no equation is ever solved. With a point
estimate :math:`\beta = \tanh(\mathrm{encoder}(a))` the loss is, of two phases,

.. math:: w_{pde} \big(\mathrm{mean}\, r^1 + \sqrt{n_c}\, \mathrm{mean}\, (r^2)^2\big)
          + w_{data}\, \mathrm{BCE}\big(G_a(\beta), a\big), \qquad w_{pde} = 1,\ w_{data} = 1/4 .

A variational encoder gives :math:`q(z \mid a) = N(\mu, \sigma^2)` of
:math:`z = \mathrm{artanh}\, \beta` in the place of a point; with one draw of it the loss, which
is the negative evidence bound over the n cells times :math:`w_{data}`, gains
:math:`w_{data}\, \mathrm{KL}(q \| p) / n`.

For the inverse problem (:mod:`~understudy.models.operators.latent_posterior`) decoders are frozen
and the vector is looked for that explains readings of a solution: a discontinuous field by a smooth
search in few dimensions. The precisions of the virtual observations are those at which the
residuals of the training fields are of size one, which is our choice; so are the posterior beyond a
point estimate, which follows from the probabilistic form of the paper, and the starts, which are
codes of training fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.operators.generative_fields import (
    GenerativeFields,
    Solutions,
    VariationalEncoder,
    bubble,
)
from understudy.models.operators.latent_posterior import (
    EDGE,
    METHODS,
    LatentPosterior,
    LatentTarget,
    Method,
    best,
    gaussian_draws,
)
from understudy.models.operators.media import Continuous, Medium, TwoPhase
from understudy.models.operators.multionet import MultiONet
from understudy.models.operators.residual_operator import CHUNK, WeakFormOperator, inside
from understudy.models.operators.weak_residual import WeakResidual
from understudy.sample import HMC, Chains, Plan, maximise, sample

Likelihood = Literal["bernoulli", "gaussian"]

_STARTS = 8
_STEP = 0.03  # of Adam in z


class DeepGenerativeNeuralOperator(WeakFormOperator[GenerativeFields]):
    r"""Forward and inverse operator of Darcy's equation, trained on coefficients alone.

    Parameters
    ----------
    shape : (int, int)
        Cells of the unit square in which coefficients are given.
    latent_dim : int
        d; 128 in the paper.
    hidden, activation
        Of the decoders, see :class:`~understudy.models.operators.multionet.MultiONet`.
    residual : WeakResidual, optional
        The equation and its residuals.
    phases : (float, float), optional
        The two values of the coefficient, 5 and 10 unless given; only with ``"bernoulli"``.
    data_weight : float
        :math:`w_{data}`.
    likelihood : {"bernoulli", "gaussian"}
        Whether the coefficient is of two phases or continuous.
    variational : bool
        Whether the encoder gives a Gaussian in the place of a point.
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
        phases: tuple[float, float] | None = None,
        data_weight: float = 0.25,
        likelihood: Likelihood = "bernoulli",
        variational: bool = False,
    ) -> None:
        medium = _medium(likelihood, phases)
        network = GenerativeFields(shape, latent_dim, hidden, activation, medium.mixed, variational)
        super().__init__(network, residual, medium)
        self.data_weight = data_weight

    def _loss(self, scaled: Tensor, generator: torch.Generator) -> Tensor:
        beta, divergence = self._drawn(scaled, generator)
        pde = self._pde_loss(scaled, beta, generator)
        cells = scaled[0].numel()
        return pde + self.data_weight * (self._misfit(scaled, beta) + divergence / cells).mean()

    def _drawn(self, scaled: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Vectors ``(B, d)`` and divergences ``(B,)`` from the prior, zero of points."""
        encoder = self.network.encoder
        if not isinstance(encoder, VariationalEncoder):
            return self.network.latent(scaled), scaled.new_zeros(len(scaled))
        noise = torch.randn(len(scaled), self.network.latent_dim, generator=generator)
        z, divergence = encoder.draw(scaled, noise.to(scaled))
        return torch.tanh(z), divergence

    def _misfit(self, scaled: Tensor, beta: Tensor) -> Tensor:
        """Misfits ``(B,)`` of decoded coefficients."""
        return self.medium.misfit(self.network.a(self.network.points, beta), scaled)

    @torch.no_grad()
    def _settle(self, scaled: Tensor, seed: int) -> None:
        """Codes of the training fields, and the precisions of their residuals."""
        self.codes = torch.cat([self.network.latent(part) for part in scaled.split(CHUNK)])
        some = slice(CHUNK // 4)
        x = self.residual.draw(torch.Generator().manual_seed(seed))
        squares = self._squares(scaled[some], self.codes[some], x)
        means = torch.stack([each.mean() for each in squares])
        self.precisions = 1.0 / means.clamp_min(1e-12)

    def _tensors(self) -> dict[str, Tensor]:
        return {"codes": self.codes.cpu(), "precisions": self.precisions.cpu()}

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "data_weight": self.data_weight}

    def _restore(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.data_weight = settings["data_weight"]
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

        def minus_loss(z: Tensor) -> Tensor:
            code = torch.tanh(z)
            pde = self.residual.by_field(self._squares(scaled, code, x))
            return -pde - self.data_weight * self._misfit(scaled, code)

        start = torch.atanh(beta.clamp(-EDGE, EDGE))
        return torch.tanh(maximise(minus_loss, start, steps, _STEP)).cpu()

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
        found = self.medium.mean(self.decoded(beta, x))
        return found if x is not None else found.unflatten(-1, self.grid.shape)

    @torch.no_grad()
    def decoded(self, beta: Tensor, x: Tensor | None = None) -> Tensor:
        r"""Numbers :math:`G_a(\beta)(x)` ``(B, N)``; arguments as of :meth:`decode`."""
        here = self.network.points
        at = here if x is None else inside(x, "points").to(here)
        return self.network.a(at, beta.to(here)).cpu()

    def probability(self, beta: Tensor, x: Tensor | None = None) -> Tensor:
        r"""Chance ``(B, N)`` of the higher of two phases; arguments as of :meth:`decode`."""
        if not isinstance(self.medium, TwoPhase):
            raise UserError("a continuous coefficient has no phases, and so no chance of one")
        return torch.sigmoid(self.decoded(beta, x))

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
        z = maximise(target, target.starts(self.codes, starts), steps, _STEP)
        z = best(z, target(z), starts, 1 if method == "map" else chains)
        target = target.of(starts, chains)
        found: Chains | None = None
        if method == "map":
            draws = z.unsqueeze(1)
        elif method == "vi":
            draws = gaussian_draws(target, z, chains, samples, steps, seed)
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
        x = inside(x_obs, "sensors")
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
                flux=tuple(d.basis(discs) for d in self.network.flux if isinstance(d, MultiONet)),
                a=self.network.a.basis(discs),
            )


def _medium(likelihood: str, phases: tuple[float, float] | None) -> Medium:
    if likelihood == "bernoulli":
        return TwoPhase(*(float(value) for value in phases or (5.0, 10.0)))
    if likelihood != "gaussian":
        raise UserError(f"likelihood must be bernoulli or gaussian, found {likelihood!r}")
    if phases is not None:
        raise UserError("a continuous coefficient has no phases; leave them out")
    return Continuous()
