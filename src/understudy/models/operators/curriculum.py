r"""From true to own inputs: rollouts that grow while a network is trained on them.

Takamoto, Alesiani & Niepert (2023, arXiv 2304.14118). On a trajectory :math:`u_0, \dots, u_{T-1}`
with parameters p the network N predicts one field after the other,

.. math:: \hat u_t = N(x_{t-1} + \varepsilon, p), \qquad
    x_t = \begin{cases} \hat u_t & t < T_a \\ u_t & \text{else} \end{cases}, \qquad
    L = \sum_{t=1}^{T-1} r(\hat u_t, u_t) + \lambda\, A

with r the relative error :math:`\|\hat u_t - u_t\| / \max(\|u_t\|, f\,\|u_0\|)`, where f is 0 in
the paper, and gradients through all inputs that are the network's own. The number of those grows
with the share s of training that is done,

.. math:: T_a = \mathrm{clip}\left(\left\lfloor \tfrac T2 \left(1 + \tanh\frac{s - 1/2}{1/5}\right)
    \right\rfloor, 1, T\right).

A block that guesses the next fields :math:`\tilde u_t` (see
:mod:`~understudy.models.operators.cape`) is held to :math:`a_t = r(\tilde u_t, u_t)`: in training's
first epochs it alone is trained, by :math:`\sum_t a_t` alone. Later :math:`A = \sum_t a_t`, or, as
in the official code, where earlier steps count up to T - 1 times,
:math:`A = \sum_t \sum_{s \le t} a_s`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.operators.cape import ParameterConditioned
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.one_step import LearnedStepper, ParameterScaling
from understudy.models.operators.training import Training

Schedule: TypeAlias = Literal["tanh", "teacher", "autoregressive"]
"""``tanh``: the paper's; ``teacher``: true inputs always; ``autoregressive``: own ones always."""
AuxiliaryMode: TypeAlias = Literal["sum", "cumulative"]

STEEPNESS = 0.2
PENALTY_RANGE = (0.5, 2.0)


def own_steps(schedule: Schedule, share: float, times: int) -> int:
    """Time :math:`T_a`, from 1 to T, before which the network goes on from its own fields.

    Parameters
    ----------
    schedule : {"tanh", "teacher", "autoregressive"}
    share : float in [0, 1]
        Of training after the warm-up.
    times : int
        T, the fields of a trajectory.
    """
    if schedule == "teacher":
        return 1
    if schedule == "autoregressive":
        return times
    grown = int(times * 0.5 * (1.0 + math.tanh((share - 0.5) / STEEPNESS)))
    return min(max(grown, 1), times)


class CurriculumRollout(LearnedStepper):
    r"""A network trained on rollouts of its own that grow.

    Unless `fit` is told how to train it is as in :func:`paper_training`; validation is by rollouts.

    Parameters
    ----------
    network : FieldNetwork
        From C channels to C; the auxiliary terms are those of a
        :class:`~understudy.models.operators.cape.ParameterConditioned` one.
    schedule : {"tanh", "teacher", "autoregressive"}
        The paper's, or what it is compared with.
    unroll : int, optional
        Steps T - 1 of a rollout in training, from any time of a trajectory; by default, and in the
        paper, all of it. Memory grows with them.
    noise : float
        Spread of Gaussian noise on every input in training, in the units of the network.
    warmup_epochs : float
        Passes over the trajectories in which the block alone is trained; 3 in the paper.
    warmup_share : float in [0, 1), optional
        The same as a share of training, in place of `warmup_epochs`, where passes cannot be counted
        beforehand: because time is what ends it, or because no run comes twice. The paper's 3
        of 100 are 0.03.
    auxiliary_weight : float
        :math:`\lambda`; with ``"cumulative"`` the paper has 5.7e-5 in one dimension and 8.34e-5 in
        two, which is about 1e-3 a step of its 40.
    auxiliary_mode : {"sum", "cumulative"}
    floor : float
        Share f of the first field's size below which errors are no longer relative: fields that die
        out would else outweigh all others. 0 in the paper.
    penalty_weight, penalty_norm : float
        Weight w and norm k of :math:`w\,(\|\partial_p \sum \hat u_1\|_2 - k)^2` at parameters drawn
        from half the least to twice the greatest of a batch; 5.16e-4 and 4.58 in the paper in one
        dimension, 0 in two.
    parameter_scaling, scale_fields
        See :class:`~understudy.models.operators.one_step.LearnedStepper`; neither is in the paper.
    """

    model = "curriculum"
    _options = (
        *("parameter_scaling", "scale_fields", "schedule", "unroll", "noise", "warmup_epochs"),
        *(
            "warmup_share",
            "auxiliary_weight",
            "auxiliary_mode",
            "floor",
            "penalty_weight",
            "penalty_norm",
        ),
    )

    def __init__(
        self,
        network: FieldNetwork,
        *,
        schedule: Schedule = "tanh",
        unroll: int | None = None,
        noise: float = 1e-3,
        warmup_epochs: float = 3.0,
        warmup_share: float | None = None,
        auxiliary_weight: float = 1e-3,
        auxiliary_mode: AuxiliaryMode = "sum",
        floor: float = 0.1,
        penalty_weight: float = 0.0,
        penalty_norm: float = 4.58,
        parameter_scaling: ParameterScaling = "none",
        scale_fields: bool = False,
    ) -> None:
        super().__init__(network, parameter_scaling=parameter_scaling, scale_fields=scale_fields)
        _check_choice("schedule", schedule, ("tanh", "teacher", "autoregressive"))
        _check_choice("auxiliary_mode", auxiliary_mode, ("sum", "cumulative"))
        amounts = {
            **{"noise": noise, "warmup_epochs": warmup_epochs},
            **{"auxiliary_weight": auxiliary_weight, "penalty_weight": penalty_weight},
            "floor": floor,
        }
        for name, amount in amounts.items():
            if not 0.0 <= amount < math.inf:
                raise UserError(f"{name} must be at least 0, found {amount}")
        if warmup_share is not None and not 0.0 <= warmup_share < 1.0:
            raise UserError(f"warmup_share must be at least 0 and below 1, found {warmup_share}")
        if unroll is not None and unroll < 1:
            raise UserError(f"unroll must be at least 1, found {unroll}")
        self.schedule: Schedule = schedule
        self.unroll, self.noise = unroll, noise
        self.warmup_epochs, self.warmup_share = warmup_epochs, warmup_share
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary_mode: AuxiliaryMode = auxiliary_mode
        self.floor = floor
        self.penalty_weight, self.penalty_norm = penalty_weight, penalty_norm
        self._times = 2 if unroll is None else unroll + 1
        self._warmup = (warmup_share or 0.0) if self._guesses else 0.0

    @property
    def _guesses(self) -> bool:
        return isinstance(self.network, ParameterConditioned)

    @property
    def _clip_length(self) -> int:
        return self._times

    # -- learn ----------------------------------------------------------------------------------

    def _plan(self, trajectories: Tensor, training: Training | None) -> Training:
        plan = training or paper_training(len(trajectories))
        if self.unroll is None and trajectories.ndim > 1:
            self._times = max(2, trajectories.shape[1])
        if self.warmup_share is not None:
            return plan
        epoch = len(trajectories) / min(plan.batch_size, len(trajectories))
        self._warmup = self.warmup_epochs * epoch / plan.steps if self._guesses else 0.0
        if self._warmup >= 1.0:
            raise UserError(
                f"warmup_epochs of {self.warmup_epochs:g} leave none of {plan.steps} steps, which "
                f"are {plan.steps / epoch:.3g} passes over the trajectories"
            )
        return plan

    def _loss(
        self, clip: Tensor, p: Tensor | None, generator: torch.Generator, progress: float
    ) -> Tensor:
        warming = progress < self._warmup
        share = (progress - self._warmup) / (1.0 - self._warmup)
        own = 1 if warming else own_steps(self.schedule, share, clip.shape[1])
        x, total, guessed = clip[:, 0], clip.new_zeros(()), []
        size = self.floor * clip[:, 0].flatten(1).norm(dim=1)
        for t in range(1, clip.shape[1]):
            noise = torch.randn(x.shape, generator=generator, device=x.device)
            x = x + self.noise * noise
            if warming:
                guess, x = self._conditioned.cape(x, p), clip[:, t]
            else:
                predicted, guess = self._with_guess(x, p)
                total = total + relative_error(predicted, clip[:, t], size).mean()
                x = predicted if t < own else clip[:, t]
            if guess is not None:
                guessed.append(guess_error(guess, clip[:, t:], size))
        if warming:
            return torch.stack(guessed).sum()
        if guessed:
            total = total + self.auxiliary_weight * auxiliary(guessed, self.auxiliary_mode)
        if self.penalty_weight and p is not None:
            total = total + self.penalty_weight * self._penalty(clip[:, 0], p, generator)
        return total

    def _score(self, clip: Tensor, p: Tensor | None, generator: torch.Generator) -> Tensor:
        x, total = clip[:, 0], clip.new_zeros(())
        size = self.floor * x.flatten(1).norm(dim=1)
        for t in range(1, clip.shape[1]):
            x = self.network(x, p)
            total = total + relative_error(x, clip[:, t], size).mean()
        return total / (clip.shape[1] - 1)

    def _draw(self, data: Tensor, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if data.shape[1] == self._times and batch >= len(data):
            return data, torch.arange(len(data), device=data.device)
        return super()._draw(data, batch, generator)

    @property
    def _conditioned(self) -> ParameterConditioned:
        assert isinstance(self.network, ParameterConditioned)
        return self.network

    def _with_guess(self, x: Tensor, p: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.network, ParameterConditioned):
            return self.network.with_guess(x, p)
        return self.network(x, p), None

    def _penalty(self, u: Tensor, p: Tensor, generator: torch.Generator) -> Tensor:
        low, high = PENALTY_RANGE[0] * p.amin(0), PENALTY_RANGE[1] * p.amax(0)
        drawn = torch.rand(p.shape, generator=generator, device=p.device)
        at = (low + (high - low) * drawn).requires_grad_(True)
        total = self.network(u, at).sum()
        (slope,) = torch.autograd.grad(total, at, create_graph=True)
        return (slope.norm(dim=1) - self.penalty_norm).square().mean()

    # -- use ------------------------------------------------------------------------------------

    def _advance(
        self, past: Tensor, params: Tensor | None, generators: list[torch.Generator]
    ) -> Tensor:
        p = self.scaled_parameters(params, past.device)
        x = self._fields.forward(past)[:, -1]
        return self._fields.inverse(self.network(x, p).unsqueeze(1))


def paper_training(trajectories: int, epochs: int = 100, batch_size: int = 50) -> Training:
    """Adam at 3e-3 with a weight decay of 1e-4, for 100 passes in batches of 50.

    The learning rate falls along half a cosine, where the paper halves it after every fifth of the
    run.
    """
    size = min(batch_size, trajectories)
    steps = max(1, epochs * trajectories // size)
    return Training(
        steps=steps,
        batch_size=size,
        learning_rate=3e-3,
        weight_decay=1e-4,
        warmup=0.0,
        floor=1.0 / 32.0,
        ema_decay=None,
        clip_norm=None,
        validate_every=max(1, trajectories // size),
    )


def relative_error(predicted: Tensor, true: Tensor, least: Tensor) -> Tensor:
    """Error ``(B,)`` of fields ``(B, ...)`` over the size of the true ones, or the `least` size."""
    error = (predicted - true).flatten(1).norm(dim=1)
    size = torch.maximum(true.flatten(1).norm(dim=1), least)
    return error / size.clamp_min(torch.finfo(true.dtype).tiny)


def guess_error(guess: Tensor, ahead: Tensor, least: Tensor) -> Tensor:
    """Mean relative error of guesses ``(B, m C, *space)`` of fields ``(B, >= 1, C, *space)``.

    Where a trajectory ends before the last of m times, only those that it has are compared.
    """
    times = guess.unflatten(1, (-1, ahead.shape[2]))
    count = min(times.shape[1], ahead.shape[1])
    errors = [relative_error(times[:, i], ahead[:, i], least) for i in range(count)]
    return torch.stack(errors).mean()


def auxiliary(errors: Sequence[Tensor], mode: AuxiliaryMode) -> Tensor:
    """Sum of errors, or of their running sums."""
    a = torch.stack(list(errors))
    return (a if mode == "sum" else a.cumsum(0)).sum()


def _check_choice(name: str, found: str, accepted: tuple[str, ...]) -> None:
    if found not in accepted:
        raise UserError(f"{name} must be one of {', '.join(accepted)}, found {found!r}")
