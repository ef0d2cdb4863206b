r"""PDE-Refiner: steps in time that are refined by denoising (Lippe et al. 2023, arXiv 2308.05732).

What a step has to say is the increment :math:`y = (u_{t+1} - u_t)/s` in units of its own spread.
With K refinements and a smallest noise variance :math:`\sigma^2`, noise is added at levels k = 0 to
K,

.. math:: y_k = \sqrt{\bar\alpha_k}\, y + \sqrt{1 - \bar\alpha_k}\, \epsilon, \qquad
    \bar\alpha_k = \prod_{j \le k} (1 - \beta_j), \qquad \beta_k = \sigma^{2 (K - k)/K},

so that :math:`\bar\alpha_K = 0`, where nothing of y is left, and the noise falls by the same factor
from each level to the next. One network sees the last field, :math:`y_k` and k, and is trained on
all levels alike to give

.. math:: v = \sqrt{\bar\alpha_k}\, \epsilon - \sqrt{1 - \bar\alpha_k}\, y, \qquad\text{hence}\qquad
    \hat y = \sqrt{\bar\alpha_k}\, y_k - \sqrt{1 - \bar\alpha_k}\, v .

At level K that is the plain prediction of a step. Below, whatever is smaller than the noise cannot
be read off the input and has to be known, which forces the network to learn the weak frequencies
that a squared error overlooks. A step goes down the levels, k = K to 0, and draws in between

.. math:: y_{k-1} \sim N\!\left( \frac{\sqrt{\bar\alpha_{k-1}}\, \beta_k\, \hat y
    + \sqrt{1 - \beta_k}\, (1 - \bar\alpha_{k-1})\, y_k}{1 - \bar\alpha_k},\;
    \beta_k \frac{1 - \bar\alpha_{k-1}}{1 - \bar\alpha_k} \right),

the ancestral sampling of a diffusion model, with K + 1 calls of the network. Different noise gives
different rollouts, which part when they cannot be believed any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.one_step import LearnedStepper, ParameterScaling

FirstGuess: TypeAlias = Literal["noise", "zeros"]
ScheduleName: TypeAlias = Literal["geometric", "linear", "cosine"]

INDEX_RANGE = 1000.0


@contextmanager
def full_precision() -> Iterator[None]:
    """Let no device round factors to 10 bits (TF32), as many do unless told otherwise.

    Noise of the smallest level is 6e-4 of the field that it is added to, about as much as such a
    rounding, so that it would be lost in the first convolution.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before


@dataclass(frozen=True)
class NoiseSchedule:
    r"""Levels of noise, from least to most, as Tensors ``(K + 1,)``, float64.

    Parameters
    ----------
    remaining : Tensor
        :math:`\bar\alpha_k`, falling to 0.
    """

    remaining: Tensor

    @classmethod
    def geometric(cls, refinements: int, least: float) -> NoiseSchedule:
        r""":math:`\beta_k = \sigma^{2(K-k)/K}`, that of PDE-Refiner."""
        levels = torch.arange(refinements, -1, -1, dtype=torch.float64) / refinements
        return cls((1.0 - least**levels).cumprod(0))

    @classmethod
    def linear(cls, refinements: int, least: float) -> NoiseSchedule:
        r"""Variances :math:`1 - \bar\alpha_k` equally spaced from the least to 1."""
        return cls(1.0 - torch.linspace(least, 1.0, refinements + 1, dtype=torch.float64))

    @classmethod
    def cosine(cls, refinements: int, least: float) -> NoiseSchedule:
        r""":math:`\bar\alpha_k = \cos^2(\pi (k + 1) / (2K + 2))` (Nichol & Dhariwal 2021).

        As in models of images (arXiv 2102.09672), without regard to the least variance.
        """
        levels = torch.arange(1, refinements + 2, dtype=torch.float64) / (refinements + 1)
        remaining = (0.5 * torch.pi * levels).cos().square()
        remaining[-1] = 0.0
        return cls(remaining)

    @property
    def beta(self) -> Tensor:
        r""":math:`\beta_k = 1 - \bar\alpha_k / \bar\alpha_{k-1}`, without noise before level 0."""
        before = torch.cat((torch.ones(1, dtype=torch.float64), self.remaining[:-1]))
        return 1.0 - self.remaining / before

    @property
    def signal(self) -> Tensor:
        r""":math:`\sqrt{\bar\alpha_k}`."""
        return self.remaining.sqrt()

    @property
    def noise(self) -> Tensor:
        r""":math:`\sqrt{1 - \bar\alpha_k}`."""
        return (1.0 - self.remaining).sqrt()

    def posterior(self, k: int) -> tuple[float, float, float]:
        r"""Weights of :math:`\hat y` and :math:`y_k` in the mean of :math:`y_{k-1}`, and its sd."""
        beta = self.beta[k]
        left, before = 1.0 - self.remaining[k], 1.0 - self.remaining[k - 1]
        of_guess = self.remaining[k - 1].sqrt() * beta / left
        of_noisy = (1.0 - beta).sqrt() * before / left
        return float(of_guess), float(of_noisy), float((beta * before / left).sqrt())


class PDERefiner(LearnedStepper):
    r"""A time-stepping network whose every step is refined.

    Parameters
    ----------
    network : FieldNetwork
        From ``history`` + ``bundle`` times C channels to ``bundle`` times C. Its first parameter is
        the level, from 0 to 1000; those of the equation follow.
    num_refinement_steps : int
        K, at least 1; 3 in the paper.
    min_noise_variance : float in (0, 1)
        Of the last refinement, in units of the increment's variance; 4e-7 in the official code, a
        standard deviation of 6.3e-4. It should be near the variance that the network's own error
        can reach: a quarter of that of a trained one-step model is a good choice.
    first_guess : {"noise", "zeros"}
        What stands in the place of y at level K, in training and in steps: noise in the official
        code, zeros in the paper. Zeros spare the network to unlearn an input that says nothing, so
        that its first guess is more exact after a short training.
    first_share : float in (0, 1), optional
        Share of training spent on level K. All levels have the same share in the paper, which is
        the default; with few steps of training 1/2 learns the strong frequencies sooner.
    antithetic : bool
        Whether noise in training comes in pairs :math:`\pm\epsilon` on the same step and level. The
        loss is the same on average, but what is odd in :math:`\epsilon` cancels in its gradient.
        That is much of its noise, and short trainings come further. Not of the paper.
    schedule : {"geometric", "linear", "cosine"}
        The first is PDE-Refiner's, the others are there for comparison.
    difference : bool
        Whether y is the increment, as in the paper, or the next field itself.
    history, bundle, parameter_scaling, scale_fields
        See :class:`~understudy.models.operators.one_step.LearnedStepper`.
    """

    model = "pde-refiner"
    stochastic = True
    _options = (
        *LearnedStepper._options,
        *("num_refinement_steps", "min_noise_variance", "first_guess", "first_share"),
        *("antithetic", "schedule", "difference"),
    )

    def __init__(
        self,
        network: FieldNetwork,
        *,
        num_refinement_steps: int = 3,
        min_noise_variance: float = 4e-7,
        first_guess: FirstGuess = "noise",
        first_share: float | None = None,
        antithetic: bool = False,
        schedule: ScheduleName = "geometric",
        difference: bool = True,
        history: int = 1,
        bundle: int = 1,
        parameter_scaling: ParameterScaling = "standard",
        scale_fields: bool = True,
    ) -> None:
        super().__init__(
            network,
            history=history,
            bundle=bundle,
            parameter_scaling=parameter_scaling,
            scale_fields=scale_fields,
        )
        if num_refinement_steps < 1:
            raise UserError(
                f"num_refinement_steps must be at least 1, found {num_refinement_steps}"
            )
        if not 0.0 < min_noise_variance < 1.0:
            raise UserError(
                f"min_noise_variance must lie between 0 and 1, found {min_noise_variance:g}"
            )
        if first_share is not None and not 0.0 < first_share < 1.0:
            raise UserError(f"first_share must lie between 0 and 1, found {first_share:g}")
        if first_guess not in ("noise", "zeros"):
            raise UserError(f"first_guess must be 'noise' or 'zeros', found {first_guess!r}")
        if schedule not in ("geometric", "linear", "cosine"):
            raise UserError(
                f"schedule must be 'geometric', 'linear' or 'cosine', found {schedule!r}"
            )
        self.num_refinement_steps = num_refinement_steps
        self.min_noise_variance = min_noise_variance
        self.first_guess: FirstGuess = first_guess
        self.first_share = first_share
        self.antithetic = antithetic
        self.schedule: ScheduleName = schedule
        self.difference = difference
        make = {
            "geometric": NoiseSchedule.geometric,
            "linear": NoiseSchedule.linear,
            "cosine": NoiseSchedule.cosine,
        }[schedule]
        self.levels = make(num_refinement_steps, min_noise_variance)
        self._signal, self._noise = self.levels.signal.float(), self.levels.noise.float()

    # -- learn ----------------------------------------------------------------------------------

    def fit(self, *data: Any, **how: Any) -> Self:
        """Train; the arguments are those of :meth:`LearnedStepper.fit`."""
        with full_precision():
            return super().fit(*data, **how)

    def _loss(
        self, clip: Tensor, p: Tensor | None, generator: torch.Generator, progress: float
    ) -> Tensor:
        k = self._drawn_levels(len(clip), generator, clip.device)
        if self.antithetic:
            rows, k = self._paired(k)
            clip, p = clip[rows], None if p is None else p[rows]
        past, true = clip[:, : self.history], clip[:, self.history :]
        start, scale = self.step_units(past)
        y = ((true - start) / scale).flatten(1, 2)
        e = torch.randn(y.shape, generator=generator, device=y.device)
        if self.antithetic:
            half = len(e) // 2
            e = torch.cat((e[:half], -e[:half], e[2 * half :]))
        signal, noise = (w[k].reshape(-1, *[1] * (y.ndim - 1)) for w in (self._signal, self._noise))
        v = signal * e - noise * y
        seen = signal * y + noise * e
        if self.first_guess == "zeros":
            seen = torch.where(signal > 0.0, seen, 0.0)
        return (self._call(past, seen, k, p) - v).square().mean()

    def _paired(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and levels ``(B,)`` whose second half takes the levels of the first.

        It takes the rows of the first half too, but at level K, where no noise tells them apart.
        """
        half = len(k) // 2
        rows = torch.arange(len(k), device=k.device)
        own = k[:half] == self.num_refinement_steps
        twins = torch.where(own, rows[half : 2 * half], rows[:half])
        paired = torch.cat((k[:half], k[:half], k[2 * half :]))
        return torch.cat((rows[:half], twins, rows[2 * half :])), paired

    def _drawn_levels(self, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        K = self.num_refinement_steps
        if self.first_share is None:
            return torch.randint(K + 1, (count,), generator=generator, device=device)
        below = torch.randint(K, (count,), generator=generator, device=device)
        first = torch.rand(count, generator=generator, device=device) < self.first_share
        return torch.where(first, K, below)

    def _score(self, clip: Tensor, p: Tensor | None, generator: torch.Generator) -> Tensor:
        past, true = clip[:, : self.history], clip[:, self.history :]
        return ((self._next(past, p, [generator]) - true) / self._increment).square().mean()

    # -- step -----------------------------------------------------------------------------------

    def _advance(
        self, past: Tensor, params: Tensor | None, generators: list[torch.Generator]
    ) -> Tensor:
        p = self.scaled_parameters(params, past.device)
        with full_precision():
            ahead = self._next(self._fields.forward(past), p, generators)
        return self._fields.inverse(ahead)

    def _next(self, past: Tensor, p: Tensor | None, generators: list[torch.Generator]) -> Tensor:
        """Next scaled fields ``(S B, bundle, C, *space)``, a generator for each of S samples."""
        start, scale = self.step_units(past)
        channels = self.bundle * past.shape[2]
        shape = (len(past) // len(generators), channels, *past.shape[3:])

        def normal() -> Tensor:
            return torch.cat(
                [torch.randn(shape, generator=g, device=past.device) for g in generators]
            )

        y = normal() if self.first_guess == "noise" else past.new_zeros(len(past), *shape[1:])
        guess = y
        for k in range(self.num_refinement_steps, -1, -1):
            v = self._call(past, y, torch.full((len(y),), k, device=y.device), p)
            guess = self._signal[k] * y - self._noise[k] * v
            if k > 0:
                of_guess, of_noisy, sd = self.levels.posterior(k)
                y = of_guess * guess + of_noisy * y + sd * normal()
        return start + scale * guess.unflatten(1, (self.bundle, -1))

    def _call(self, past: Tensor, y: Tensor, k: Tensor, p: Tensor | None) -> Tensor:
        index = (k * (INDEX_RANGE / self.num_refinement_steps)).to(y.dtype).unsqueeze(1)
        numbers = index if p is None else torch.cat((index, p), dim=1)
        out: Tensor = self.network(torch.cat((past.flatten(1, 2), y), dim=1), numbers)
        return out

    def step_units(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """Where y starts from ``(B, 1, C, *space)``, and its scale."""
        if self.difference:
            return past[:, -1:], self._increment
        return torch.zeros_like(past[:, -1:]), torch.ones_like(self._increment)

    def _to(self, device: torch.device) -> None:
        super()._to(device)
        self._signal, self._noise = self._signal.to(device), self._noise.to(device)

    def _require_fit(self) -> None:
        count = len(self.outputs)
        wanted = {
            "in_channels": (self.history + self.bundle) * count,
            "out_channels": self.bundle * count,
            "num_params": 1 + len(self.parameters),
        }
        for name, need in wanted.items():
            have = self.network.settings.get(name, need)
            if have != need:
                raise UserError(
                    f"a PDE-Refiner of these trajectories needs a network with {name}={need}, "
                    f"found {have}"
                )
