r"""The posterior of parameters and noise of many data sets at once, and its chains.

Parameters and noise are functions of standard normals :math:`z \sim N(0, I)`
(`understudy.search.priors`). Chains move in the coordinates :math:`z = z^* + L w`, where
:math:`z^*` is the mode that damped Gauss-Newton steps find from the best of many prior draws, a
start of its own for each chain, and :math:`L L^\top` the inverse of the Gauss-Newton Hessian there.
Hamiltonian Monte Carlo then meets a target close to a standard normal.

A density of a whole field (`understudy.search.priors.FieldPrior`) is a term of the log posterior,
gradient included; to the Gauss-Newton Hessian, which only sets the coordinates, it adds the
positive part of its own Hessian.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.progress import Listener
from understudy.core.space import nearest
from understudy.sample import HMC, Chains, Plan, resume, sample
from understudy.sample.density import value_and_gradient
from understudy.search.approximation_error import ApproximationError, LowRankNormal
from understudy.search.measurement import Model
from understudy.search.priors import JointPrior, LogNormal, Noise, Prior

_NEWTON = 25
_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Beliefs:
    """Parameters and noise as functions of standard normals.

    Parameters
    ----------
    prior : JointPrior
        Of d parameters, then of the k noises that are inferred.
    inferred : tuple of int
        Outputs whose noise is inferred.
    fixed : Tensor (m,)
        Noise of each output that is known.
    """

    prior: JointPrior
    inferred: tuple[int, ...]
    fixed: Tensor

    @property
    def parameters(self) -> int:
        """Number d of them, without noises."""
        return len(self.prior.names) - len(self.inferred)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (c, d) and noise (c, m)."""
        values = self.prior.values(z)
        columns = list(self.fixed.expand(len(z), -1).unbind(1))
        for k, output in enumerate(self.inferred):
            columns[output] = values[:, self.parameters + k]
        return values[:, : self.parameters], torch.stack(columns, 1)


def beliefs_of(
    model: Model, priors: Mapping[str, Prior], noise: Mapping[str, Noise], y: Tensor
) -> Beliefs:
    """Beliefs about a model; y (k, n) gives the scale of noise that has no prior."""
    for name in noise:
        if name not in model.outputs:
            raise UserError(f"noise: {name!r} is no measured output{nearest(name, model.outputs)}")
    if set(priors) != set(model.space.names):
        missing = [name for name in model.space.names if name not in priors]
        if missing:
            raise UserError(f"parameter {missing[0]!r} has no prior")
    joint = JointPrior.within(priors, model.space)
    order = [joint.names.index(name) for name in model.space.names]
    names = [joint.names[k] for k in order]
    kinds = [joint.priors[k] for k in order]
    lower = [joint.lower[k] for k in order]
    upper = [joint.upper[k] for k in order]
    inferred, fixed = [], torch.zeros(len(model.outputs), dtype=torch.float64)
    for m, output in enumerate(model.outputs):
        given = noise.get(output, "infer")
        if isinstance(given, int | float):
            fixed[m] = float(given)
            continue
        if isinstance(given, str):
            part = y[:, model.group == m]
            scale = float(part.std()) if part.numel() > 1 else float(part.abs().mean())
            given = LogNormal(max(0.1 * scale, 1e-12), 1.5)
        inferred.append(m)
        names.append(f"noise of {output}")
        kinds.append(given)
        lower.append(0.0)
        upper.append(math.inf)
    whole = JointPrior(tuple(names), tuple(kinds), tuple(lower), tuple(upper))
    return Beliefs(whole, tuple(inferred), fixed)


@dataclass(frozen=True)
class Target:
    """Log posterior of each chain, in the coordinates w of its own.

    Parameters
    ----------
    model : Model
    beliefs : Beliefs
    y : Tensor (c, n)
    centre : Tensor (c, d)
    root : Tensor (c, d, d)
    error : ApproximationError, optional
        Of the model.
    log_prior : callable (c, p) -> (c,), optional
        Of the parameters, besides their own priors.
    """

    model: Model
    beliefs: Beliefs
    y: Tensor
    centre: Tensor
    root: Tensor
    error: ApproximationError | None = None
    log_prior: Callable[[Tensor], Tensor] | None = None

    def z(self, w: Tensor) -> Tensor:
        """Standard normals (c, d)."""
        return self.centre + (self.root @ w.unsqueeze(-1)).squeeze(-1)

    def predict(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Means (c, n), and variances of what is independent: noise, the model's own error."""
        theta, sigma = self.beliefs(z)
        mean, variance = self.model(theta)
        variance = variance + sigma[:, self.model.group].square()
        if self.error is None:
            return mean, variance
        return mean + self.error.mean, variance + self.error.diagonal

    def measured(self, z: Tensor) -> LowRankNormal:
        """What would be measured at standard normals (c, d)."""
        factor = None if self.error is None else self.error.factor
        return LowRankNormal(*self.predict(z), factor)

    def log_posterior(self, z: Tensor) -> Tensor:
        """At standard normals (c, d)."""
        value = self.measured(z).log_density(self.y) - 0.5 * z.square().sum(1)
        return value if self.log_prior is None else value + self.log_prior(self.beliefs(z)[0])

    def __call__(self, w: Tensor) -> Tensor:
        """At w (c, d)."""
        return self.log_posterior(self.z(w))

    def information(self, z: Tensor) -> Tensor:
        """Gauss-Newton Hessian (c, d, d) of minus the log posterior, by central differences."""
        with torch.no_grad():
            means, logs = [], []
            for k in range(z.shape[1]):
                step = torch.zeros_like(z)
                step[:, k] = _DIFFERENCE
                above, below = self.predict(z + step), self.predict(z - step)
                means.append((above[0] - below[0]) / (2.0 * _DIFFERENCE))
                logs.append((above[1].log() - below[1].log()) / (2.0 * _DIFFERENCE))
            J, G = torch.stack(means, -1), torch.stack(logs, -1)  # (c, n, d)
            fisher = self.measured(z).fisher(J, G)
        whole = fisher + torch.eye(z.shape[1], dtype=z.dtype)
        return whole if self.log_prior is None else whole + self._curvature(z, self.log_prior)

    def _curvature(self, z: Tensor, log_prior: Callable[[Tensor], Tensor]) -> Tensor:
        """Hessian (c, d, d) of minus the log prior, where it is positive, by differences."""
        evaluate = value_and_gradient(lambda z: -log_prior(self.beliefs(z)[0]))
        columns = []
        for k in range(z.shape[1]):
            step = torch.zeros_like(z)
            step[:, k] = _DIFFERENCE
            columns.append((evaluate(z + step)[1] - evaluate(z - step)[1]) / (2.0 * _DIFFERENCE))
        H = torch.stack(columns, -1)
        values, vectors = torch.linalg.eigh(0.5 * (H + H.mT))
        return vectors @ torch.diag_embed(values.clamp_min(0.0)) @ vectors.mT


def prepared(target: Target, starts: int, generator: torch.Generator) -> Target:
    """Target centred at the mode that each chain finds."""
    z = _best_draws(target, starts, generator)
    evaluate = value_and_gradient(target.log_posterior)
    value, gradient = evaluate(z)
    if not bool(torch.isfinite(value).all()):
        raise UserError("no draw of the prior gives a finite prediction for every measured value")
    damping = torch.full_like(value, 1e-3)
    for _ in range(_NEWTON):
        A = target.information(z)
        A = A + damping[:, None, None] * torch.diag_embed(A.diagonal(dim1=1, dim2=2))
        step = torch.linalg.solve(A, gradient.unsqueeze(-1)).squeeze(-1).clamp(-2.0, 2.0)
        new_value, new_gradient = evaluate(z + step)
        better = new_value > value
        gained = torch.where(better, new_value - value, 0.0)
        z = torch.where(better.unsqueeze(1), z + step, z)
        gradient = torch.where(better.unsqueeze(1), new_gradient, gradient)
        value = torch.where(better, new_value, value)
        damping = torch.where(better, 0.2 * damping, 10.0 * damping).clamp(1e-8, 1e6)
        if bool((gained < 1e-3).all()) and bool((better | (damping > 10.0)).all()):
            break
    A = target.information(z)
    identity = torch.eye(z.shape[1], dtype=z.dtype).expand_as(A)
    root = torch.linalg.solve_triangular(torch.linalg.cholesky(A).mT, identity, upper=True)
    return replace(target, centre=z, root=root)


def _best_draws(target: Target, starts: int, generator: torch.Generator) -> Tensor:
    """Best of each chain's draws of the prior, (c, d)."""
    c, d = len(target.y), len(target.beliefs.prior.names)
    best = torch.zeros(c, d, dtype=torch.float64)
    top = torch.full((c,), -math.inf, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(starts):
            z = torch.randn(c, d, generator=generator, dtype=torch.float64)
            value = target.log_posterior(z).nan_to_num(nan=-math.inf)
            better = value > top
            best = torch.where(better.unsqueeze(1), z, best)
            top = torch.where(better, value, top)
    return best


# -- chains ----------------------------------------------------------------------------------------


def opened(
    model: Model,
    Y: Tensor,
    priors: Mapping[str, Prior],
    noise: Mapping[str, Noise],
    chains: int,
    error: ApproximationError | None = None,
) -> Target:
    """Target of k data sets (k, n), chains of each side by side, not yet centred."""
    beliefs = beliefs_of(model, priors, noise, Y)
    y = Y.repeat_interleave(chains, 0)
    d = len(beliefs.prior.names)
    root = torch.eye(d, dtype=torch.float64).expand(len(y), d, d)
    centre = torch.zeros(len(y), d, dtype=torch.float64)
    return Target(model, beliefs, y, centre, root, error)


def _sampler(shared: bool) -> HMC:
    return HMC(step_size=0.5, path_length=1.6, max_leapfrog=40, jitter=0.3, shared=shared)


def sampled(
    target: Target,
    plan: Plan,
    generator: torch.Generator,
    file: str | Path | None = None,
    listener: Listener | None = None,
    shared: bool = False,
) -> Chains:
    """Chains of a centred target, new ones or those of a file; `shared` is one step size for all.

    Raises
    ------
    UserError
        If the file holds chains of another problem.
    """
    sampler = _sampler(shared)
    start = torch.randn(target.centre.shape, generator=generator, dtype=torch.float64)
    if file is not None and Path(file).exists():
        kept = replace(Chains.load(file, sampler), plan=plan)
        _check_same(target, kept, file)
        found = resume(sampler, target, kept, listener=listener)
    else:
        found = sample(sampler, target, start, plan, generator, listener=listener)
    if file is not None:
        found.save(file, sampler)
    return found


def _check_same(target: Target, chains: Chains, file: str | Path) -> None:
    """Refuse chains of another problem: their log density must be that of this one."""
    position, log_density = chains.state.position, getattr(chains.state, "log_density", None)
    if position.shape == target.centre.shape and log_density is not None:
        again = target(position).detach()
        if torch.allclose(again, log_density, rtol=1e-6, atol=1e-6):
            return
    raise UserError(f"{file} holds chains of another problem; name another file or remove it")
