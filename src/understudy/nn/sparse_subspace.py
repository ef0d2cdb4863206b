r"""Which weights of a sparse Bayesian network are active, and how the set of them moves.

Li, Miao, Qiu & Zhang 2024 (arXiv 2402.11025). Optimiser steps inside the support alternate with
updates of it, every :math:`\Delta` steps while :math:`t < T`. An update of a layer with n active
weights drops and adds

.. math:: K = \lfloor f_t\, n \rfloor, \qquad f_t = \tfrac{\alpha}{2} (1 + \cos(\pi t / T))

of them: it drops those of the lowest score, and adds, among all positions that were not kept, those
of the largest :math:`|\partial \mathrm{loss} / \partial \mu|`. New weights have mean 0 and the raw
deviation of the layer's active weights on average. The optimiser's step is skipped then.

Scores are of a weight :math:`\theta \sim N(m, v^2)`, with :math:`r = |m|/v` and the unit normal
loss :math:`\varepsilon(r) = \phi(r) - r\,\Phi(-r)`:

.. math::
    E|\theta| = v\,(r + 2\varepsilon), \qquad
    \mathrm{Var}\,|\theta| = v^2 (1 - 4 r \varepsilon - 4 \varepsilon^2)

which is the folded normal's variance without its cancellation at :math:`r \gg 1`, and

.. math::
    E\,e^{\lambda|\theta|} = e^{s^2/2 + a}\,\Phi(r + s) + e^{s^2/2 - a}\,\Phi(s - r), \qquad
    a = \lambda |m|,\ s = \lambda v.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.loop import Optimizer
from understudy.nn.sparse_bayesian import SparseBayesianLayer, sparse_layers

_FOLDED = 6.0
"""Ratio |m|/v beyond which the sign of a weight is certain to nine digits."""

_SMALL = 1e-4
_OWN_STATE = ("subspace_mask", "subspace_clock", "subspace_generator", "subspace_gradient")

# -- removal --------------------------------------------------------------------------------------


def _ratio(m: Tensor, v: Tensor) -> Tensor:
    return m.abs() / v


def _normal_loss(r: Tensor) -> Tensor:
    density = torch.exp(-0.5 * r.square()) / math.sqrt(2.0 * math.pi)
    return (density - r * torch.special.ndtr(-r)).clamp_min(0.0)


def magnitude(m: Tensor, v: Tensor) -> Tensor:
    r"""Return :math:`|m|`."""
    return m.abs()


def mean_abs(m: Tensor, v: Tensor) -> Tensor:
    r"""Return :math:`E|\theta|`."""
    return m.abs() + 2.0 * v * _normal_loss(_ratio(m, v))


def snr(m: Tensor, v: Tensor) -> Tensor:
    r"""Return :math:`|m| / v`."""
    return _ratio(m, v)


def snr_abs(m: Tensor, v: Tensor) -> Tensor:
    r"""Return :math:`E|\theta| / \sqrt{\mathrm{Var}\,|\theta|}`; at least 1.32."""
    r = _ratio(m, v)
    loss = _normal_loss(r)
    spread = (1.0 - 4.0 * torch.where(loss > 0.0, r * loss, 0.0) - 4.0 * loss.square()).sqrt()
    return (r + 2.0 * loss) / spread


def _log_mean_exp(a: Tensor, s: Tensor, r: Tensor) -> Tensor:
    r"""Logarithm of :math:`E\,e^{\lambda|\theta|}`."""
    above = a + torch.special.log_ndtr(r + s)
    below = torch.special.log_ndtr(s - r) - a
    return 0.5 * s.square() + torch.logaddexp(above, below)


def mean_exp(m: Tensor, v: Tensor, rate: float = 1.0) -> Tensor:
    r"""Return :math:`E\,e^{\lambda|\theta|}` with :math:`\lambda` the rate, 1 as in the paper."""
    return torch.exp(_log_mean_exp(rate * m.abs(), rate * v, _ratio(m, v)))


def snr_exp(m: Tensor, v: Tensor, rate: float = 1.0) -> Tensor:
    r"""Return :math:`E\,e^{\lambda|\theta|} / \sqrt{\mathrm{Var}\,e^{\lambda|\theta|}}`.

    Where the sign is certain it is that of a log-normal, :math:`(e^{s^2} - 1)^{-1/2}`; where all is
    small, the first two terms of the variance in s; elsewhere a difference of logarithms.
    """
    r, a, s = _ratio(m, v), rate * m.abs(), rate * v
    lognormal = torch.expm1(s.square()).rsqrt()
    twice = _log_mean_exp(2.0 * a, 2.0 * s, r)
    general = torch.expm1((twice - 2.0 * _log_mean_exp(a, s, r)).clamp_min(0.0)).rsqrt()
    near = torch.where(s < _SMALL, _snr_exp_small(s, r.clamp_max(_FOLDED)), general)
    return torch.where(r > _FOLDED, lognormal, near)


def _snr_exp_small(s: Tensor, r: Tensor) -> Tensor:
    """Return the same to first order in s, from the folded normal's first three moments."""
    loss = _normal_loss(r)
    first, second = r + 2.0 * loss, r.square() + 1.0
    density = torch.exp(-0.5 * r.square()) / math.sqrt(2.0 * math.pi)
    third = (r**3 + 3.0 * r) * (1.0 - 2.0 * torch.special.ndtr(-r))
    third = third + 2.0 * (r.square() + 2.0) * density
    variance = 1.0 - 4.0 * r * loss - 4.0 * loss.square() + s * (third - first * second)
    return (1.0 + s * first + 0.5 * s.square() * second) / (s * variance.sqrt())


REMOVAL: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "magnitude": magnitude,
    "mean_abs": mean_abs,
    "snr": snr,
    "snr_abs": snr_abs,
    "mean_exp": mean_exp,
    "snr_exp": snr_exp,
}
"""Scores of means and deviations in float64, elementwise; the lowest are dropped."""


def removal_scores(which: str, m: Tensor, v: Tensor) -> Tensor:
    """Scores by one of `REMOVAL`, in float64: finite, with 0 for what is not a number."""
    scores = REMOVAL[which](m.double(), v.double())
    return scores.nan_to_num(nan=0.0, posinf=torch.finfo(torch.float64).max)


# -- schedule -------------------------------------------------------------------------------------


class SubspaceScheduler:
    """An optimiser that stays inside the support and now and then moves it.

    It wraps an optimiser and has its interface, so that a training loop needs to know of nothing
    else: `step` updates either the weights or the support. What the optimiser remembers of a weight
    (momentum, second moment) is cleared where the weight leaves or joins the support. The size of
    every layer's support never changes.

    Parameters
    ----------
    model : nn.Module
        With sparse Bayesian layers, which hold the support.
    optimizer : Optimizer
        Over the parameters of the model; elementwise, such as SGD with momentum or Adam.
    t_end : int
        Step from which the support stays; 0.75 of all steps in the official code.
    delta : int
        Steps between updates of the support; 100 in the official code.
    alpha : float in [0, 1]
        Share of the support that the first update would exchange; 0.3 in the official code. With 0
        the support stays as it is.
    removal : str
        One of `REMOVAL`, or ``"random"``, the control.
    addition : {"grad", "random"}
        Largest gradient, or a random choice, the control.
    accumulation : int
        Steps whose gradients are averaged for the addition; 1 as in the official code.
    seed : int
        Of the random choices.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        t_end: int,
        delta: int = 100,
        alpha: float = 0.3,
        removal: str = "snr_abs",
        addition: str = "grad",
        accumulation: int = 1,
        seed: int = 0,
    ) -> None:
        if removal not in (*REMOVAL, "random"):
            known = ", ".join((*REMOVAL, "random"))
            raise UserError(f"removal must be one of {known}, got {removal!r}")
        if addition not in ("grad", "random"):
            raise UserError(f"addition must be 'grad' or 'random', got {addition!r}")
        if not 0.0 <= alpha <= 1.0:
            raise UserError(f"alpha must be between 0 and 1, got {alpha!r}")
        if accumulation < 1 or delta <= accumulation:
            raise UserError(
                f"delta must be above accumulation and both at least 1, got {delta} and "
                f"{accumulation}"
            )
        if t_end < 0:
            raise UserError(f"t_end must be at least 0, got {t_end}")
        self.optimizer = optimizer
        self.layers = sparse_layers(model)
        self.t_end, self.delta, self.alpha = t_end, delta, alpha
        self.removal, self.addition, self.accumulation = removal, addition, accumulation
        self.steps = 0
        self.exchanged = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._gradients: dict[str, Tensor] = {}
        self._sizes = {n: layer.flat(layer.mask).sum(1) for n, layer in self.layers.items()}
        self._check_covers()

    def _check_covers(self) -> None:
        held = {id(p) for group in self.param_groups for p in group["params"]}
        for name, layer in self.layers.items():
            if id(layer.mu) not in held or id(layer.rho) not in held:
                raise UserError(f"the optimiser does not hold the parameters of layer {name!r}")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the wrapped optimiser."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def update_is_due(self) -> bool:
        """Whether the next `step` moves the support rather than the weights."""
        if self.alpha == 0.0 or not 0 < self.steps < self.t_end:
            return False
        return self.steps % self.delta == 0

    def exchange_fraction(self, step: int) -> float:
        r"""Share :math:`f_t` of the support that an update at that step exchanges."""
        return 0.5 * self.alpha * (1.0 + math.cos(math.pi * min(step / max(self.t_end, 1), 1.0)))

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights inside the support, or the support."""
        self._accumulate()
        if self.update_is_due:
            fraction = self.exchange_fraction(self.steps)
            for name, layer in self.layers.items():
                self._move_support(name, layer, fraction)
            self._gradients.clear()
        else:
            for layer in self.layers.values():
                if layer.mu.grad is not None and len(layer.index) < layer.mask.numel():
                    layer.mu.grad.mul_(layer.mask)
            self.optimizer.step()
        self.steps += 1

    def _accumulate(self) -> None:
        """Add up the dense gradients of the last steps before an update."""
        update = -(-max(self.steps, 1) // self.delta) * self.delta
        is_near = update - self.steps < self.accumulation and update < self.t_end
        if self.addition != "grad" or self.alpha == 0.0 or not is_near:
            return
        for name, layer in self.layers.items():
            if layer.mu.grad is not None:
                total = self._gradients.get(name)
                new = layer.mu.grad
                self._gradients[name] = new.clone() if total is None else total + new

    def _move_support(self, name: str, layer: SparseBayesianLayer, fraction: float) -> None:
        active = layer.flat(layer.mask)
        size = self._sizes[name]
        count = min(int(fraction * int(size[0])), active.shape[1] - int(size[0]))
        if count == 0:
            return
        score = self._scores(layer).masked_fill(~active, torch.inf)
        dropped = score.topk(count, dim=1, largest=False).indices
        kept = active.scatter(1, dropped, False)
        wanted = self._wanted(name, layer).masked_fill(kept, -1.0)
        added = wanted.topk(count, dim=1).indices
        now = kept.scatter(1, added, True)
        if not torch.equal(now.sum(1), size):
            raise RuntimeError(f"the support of layer {name!r} changed its size")
        rho = layer.flat(layer.rho)
        typical = (rho * active).sum(1, keepdim=True) / size.unsqueeze(1)
        layer.mu.mul_(kept.reshape(layer.mu.shape))
        new_rho = torch.where(kept, rho, typical) * now
        layer.rho.copy_(new_rho.reshape(layer.rho.shape))
        layer.set_support(now.reshape(layer.mask.shape))
        self.exchanged += count
        for parameter in (layer.mu, layer.rho):
            self._forget(parameter, kept.reshape(parameter.shape))

    def _scores(self, layer: SparseBayesianLayer) -> Tensor:
        if self.removal == "random":
            return self._uniform(layer)
        return layer.flat(removal_scores(self.removal, layer.mu, layer.sigma))

    def _wanted(self, name: str, layer: SparseBayesianLayer) -> Tensor:
        if self.addition == "random":
            return self._uniform(layer)
        gradient = self._gradients.get(name)
        if gradient is None:
            raise RuntimeError(f"layer {name!r} has no gradient to choose new weights by")
        return layer.flat(gradient.abs().nan_to_num())

    def _uniform(self, layer: SparseBayesianLayer) -> Tensor:
        shape = layer.flat(layer.mask).shape
        return torch.rand(shape, generator=self._generator).to(layer.mu.device)

    def _forget(self, parameter: nn.Parameter, kept: Tensor) -> None:
        """Clear what the optimiser remembers of weights that were dropped or added."""
        state = getattr(self.optimizer, "state", {})
        for value in state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value.mul_(kept)

    # -- resumption -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors of every parameter by its number, with the support and the clock among them."""
        inner = self.optimizer.state_dict()
        slots = {number: dict(values) for number, values in inner["state"].items()}
        for name, layer in self.layers.items():
            own = slots.setdefault(self._number(layer.mu), {})
            own["subspace_mask"] = layer.mask
            if name in self._gradients:
                own["subspace_gradient"] = self._gradients[name]
        first = slots[self._number(next(iter(self.layers.values())).mu)]
        first["subspace_clock"] = torch.tensor([self.steps, self.exchanged])
        first["subspace_generator"] = self._generator.get_state()
        return {**inner, "state": slots}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        slots = {number: dict(values) for number, values in state_dict["state"].items()}
        self._gradients = {}
        for name, layer in self.layers.items():
            own = slots[self._number(layer.mu)]
            layer.set_support(own["subspace_mask"])
            if "subspace_gradient" in own:
                self._gradients[name] = own["subspace_gradient"]
            if "subspace_clock" in own:
                self.steps, self.exchanged = map(int, own["subspace_clock"].tolist())
                self._generator.set_state(own["subspace_generator"])
        inner = {
            number: kept
            for number, values in slots.items()
            if (kept := {k: v for k, v in values.items() if k not in _OWN_STATE})
        }
        self.optimizer.load_state_dict({**state_dict, "state": inner})

    def _number(self, parameter: nn.Parameter) -> int:
        flat = [p for group in self.param_groups for p in group["params"]]
        return next(i for i, p in enumerate(flat) if p is parameter)
