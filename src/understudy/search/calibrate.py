r"""Parameters from measurements: Bayesian calibration through a surrogate or a simulator.

With parameters :math:`\theta`, measured values :math:`y_i`, a model that predicts each with mean
:math:`f_i(\theta)` and, where it is a surrogate, variance :math:`s_i^2(\theta)` of its own, and
noise :math:`\sigma`, known or with a prior,

.. math:: y_i \mid \theta, \sigma \sim N\big(f_i(\theta),\; \sigma^2 + s_i^2(\theta)\big),

errors taken as independent. The posterior is sampled in the coordinates
:math:`z = z^* + L w`, where :math:`z \sim N(0, I)` a priori (`understudy.search.priors`),
:math:`z^*` is the mode that damped Gauss-Newton steps find from the best of many prior draws, a
start of its own for each chain, and :math:`L L^\top` the inverse of the Gauss-Newton Hessian there.
Hamiltonian Monte Carlo then meets a target close to a standard normal. Many data sets of the same
model are calibrated at once: each chain has its own.

**Noise by bisection** (arXiv 2312.17329): noise is fixed; it is accepted if all posterior curves
lie within the data plus and minus twice it, and then lowered half-way to the lower limit, else
raised half-way to the upper; ten times from 10 mV between 1 mV and 0.1 V, in the units of the data.

**A prior of a whole field.** Where the parameters are the values of a field, or make one, their
independent priors can be multiplied by a density of the field, such as that of a learned proximal
network, :math:`\log p = -R(x)/\sigma^2` up to a constant (arXiv 2310.14344). It is a term of the
log posterior, gradient included; to the Gauss-Newton Hessian, which only sets the coordinates, it
adds the positive part of its own Hessian.

**Simulation-based calibration** (Talts et al. 2018, arXiv 1804.06788): parameters drawn from the
prior, data from the model, and the rank of each truth among L thinned posterior draws; ranks are
uniform on 0..L if the posterior is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import torch
from scipy.stats import chi2
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.progress import Listener
from understudy.core.space import Categorical, Space, nearest
from understudy.sample import HMC, Chains, Plan, diagnose, resume, sample
from understudy.sample.density import value_and_gradient
from understudy.search.priors import JointPrior, LogNormal, Noise, Prior

LOWEST, FIRST, HIGHEST, TRIES = 1e-3, 1e-2, 0.1, 10
"""Bracket, start and number of tries of noise by bisection."""

_PRIOR_DRAWS = 64  # of each chain, for its start
_NEWTON = 25
_DIFFERENCE = 1e-4
_ENVELOPE = 512
_TIME = ("time", "t", "seconds", "t_s")


class Model(Protocol):
    """What is calibrated: parameters in, the n measured quantities out.

    Attributes
    ----------
    space : Space
        Of the parameters, in order.
    outputs : tuple of str
        Names of the quantities that have a noise of their own.
    group : LongTensor (n,)
        Which output each measured value is of.
    """

    space: Space
    outputs: tuple[str, ...]
    group: Tensor

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances (c, n) at parameters (c, d), differentiable."""
        ...


class CurveModel:
    """A curve of a simulator that computes many at once, exactly.

    Parameters
    ----------
    simulator : BatchedSimulator
        `evaluate` maps parameters (c, d) to curves (c, n).
    output : str
        Name of what is measured.
    """

    def __init__(self, simulator: Any, output: str = "voltage") -> None:
        self.simulator = simulator
        self.space: Space = simulator.space
        self.outputs = (output,)
        self.group = torch.zeros(len(simulator.outputs), dtype=torch.long)

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Curves, and no variance."""
        mean = self.simulator.evaluate(theta)
        return mean, torch.zeros_like(mean)


class SurrogateModel:
    """A surrogate at measured conditions.

    Parameters
    ----------
    surrogate : FittedSurrogate
        With ``space``, ``targets`` and a differentiable ``posterior``.
    parameters : sequence of str
        Inputs to infer.
    conditions : DataFrame
        A row for each measurement, with a column for each other input.
    outputs : sequence of str
        Targets that were measured.
    """

    def __init__(
        self,
        surrogate: Any,
        parameters: Sequence[str],
        conditions: pd.DataFrame,
        outputs: Sequence[str],
    ) -> None:
        whole: Space = surrogate.space
        self.surrogate = surrogate
        self.space = Space(tuple(whole[name] for name in parameters))
        self.outputs = tuple(outputs)
        self.group = torch.arange(len(self.outputs)).repeat(len(conditions))
        self._targets = [surrogate.targets.index(name) for name in self.outputs]
        self._at = [whole.names.index(name) for name in parameters]
        rows = torch.zeros(len(conditions), len(whole), dtype=torch.float64)
        known = [j for j in range(len(whole)) if j not in self._at]
        if known:
            part = Space(tuple(whole.inputs[j] for j in known))
            rows[:, known] = torch.tensor(part.encode(conditions))
        self._rows = rows

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances (c, rows * outputs)."""
        c, n = len(theta), len(self._rows)
        columns = list(self._rows.unsqueeze(0).expand(c, -1, -1).unbind(-1))
        for k, j in enumerate(self._at):
            columns[j] = theta[:, k : k + 1].expand(-1, n)
        X = torch.stack(columns, -1).reshape(c * n, 1, -1)
        posterior = self.surrogate.posterior(X)
        mean, variance = (
            each.reshape(c, n, -1)[..., self._targets].reshape(c, -1)
            for each in (posterior.mean, posterior.variance)
        )
        return mean, variance.clamp_min(0.0)


class FieldPrior:
    """A density of whole fields as a prior of the parameters that they are made of.

    Parameters
    ----------
    density : object
        With `shape`, that of a field, and ``log_prior(x)``, ``(c,)`` of ``(c, *shape)``,
        differentiable: a learned proximal network (`understudy.models.inverse.lpn`).
    decode : callable (c, d) -> (c, *shape), optional
        Fields of parameters, differentiable. By default the parameters are the values.
    """

    def __init__(self, density: Any, decode: Callable[[Tensor], Tensor] | None = None) -> None:
        self.density, self.decode = density, decode

    def __call__(self, theta: Tensor) -> Tensor:
        """Log densities (c,) of parameters (c, d), up to a constant."""
        shape = tuple(self.density.shape)
        if self.decode is None and theta.shape[1] != math.prod(shape):
            raise UserError(
                f"a field of shape {shape} has {math.prod(shape)} values; there are "
                f"{theta.shape[1]} parameters: give decode"
            )
        x = theta.reshape(-1, *shape) if self.decode is None else self.decode(theta)
        return torch.as_tensor(self.density.log_prior(x))

    @classmethod
    def load(cls, path: str | Path, parameters: int) -> Self:
        """Prior of a learned proximal network in a file, whose values are the parameters.

        Parameters
        ----------
        path : str or Path
        parameters : int
            How many there are.

        Raises
        ------
        UserError
            If there is no such file, it holds something else, or a field of another size.
        """
        from understudy.models.inverse.lpn import LearnedProximalNetwork

        if not Path(path).exists():
            raise UserError(f"{path}: there is no such file, named as the density of a field")
        density = LearnedProximalNetwork.load(path).double()
        values = math.prod(density.shape)
        if values != parameters:
            raise UserError(
                f"{path} is a prior of fields of {values} values; there are {parameters} parameters"
            )
        return cls(density)


# -- data ------------------------------------------------------------------------------------------


def read_measurement(
    surrogate: Any, table: pd.DataFrame, parameters: Sequence[str]
) -> tuple[SurrogateModel, Tensor]:
    """Model and values (n,) of a table of measurements.

    Every target of the surrogate that is a column was measured; every input that is no parameter
    must be a column, within the range that the surrogate was trained on.

    Raises
    ------
    UserError
        No rows, no target, a missing column, an empty cell, time that does not increase, a value
        outside the trained range, among these a current of the wrong sign.
    """
    space: Space = surrogate.space
    for name in parameters:
        if name not in space:
            raise UserError(
                f"prior: {name!r} is no input of the surrogate{nearest(name, space.names)}"
            )
    if not len(table):
        raise UserError("the measurement has no rows")
    outputs = [name for name in surrogate.targets if name in table.columns]
    if not outputs:
        raise UserError(
            f"the measurement has no column of an output; the surrogate predicts "
            f"{', '.join(map(repr, surrogate.targets))}"
        )
    for name in [*space.names, *outputs]:
        if name in parameters:
            if name in table.columns:
                raise UserError(f"column {name!r} is measured and has a prior; it can be only one")
            continue
        if name not in table.columns:
            raise UserError(
                f"input {name!r} has neither a prior nor a column"
                f"{nearest(name, [str(column) for column in table.columns])}"
            )
        _check_column(name, table[name], space)
    conditions = table[[name for name in space.names if name not in parameters]]
    model = SurrogateModel(surrogate, parameters, conditions, outputs)
    values = table[outputs].to_numpy(dtype=np.float64)
    return model, torch.tensor(values).reshape(-1)


def _check_column(name: str, column: pd.Series, space: Space) -> None:
    """Refuse cells that are empty, text, out of order or outside the trained range."""
    if name in space and isinstance(space[name], Categorical):
        return
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).any():
        raise UserError(f"column {name!r} is empty")
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise UserError(f"column {name!r}, row {bad[0] + 1}: a number is missing")
    word = name.lower().split(" ")[0].split("[")[0]
    if word in _TIME or word.startswith("time"):
        back = np.flatnonzero(np.diff(numbers) <= 0.0)
        if len(back):
            row = int(back[0]) + 1
            raise UserError(
                f"column {name!r} must increase, but row {row + 1} has {numbers[row]:g} after "
                f"{numbers[row - 1]:g}"
            )
    if name not in space:
        return
    item = space[name]
    assert not isinstance(item, Categorical)
    lower, upper = float(item.lower), float(item.upper)
    room = 1e-9 * (upper - lower)
    outside = np.flatnonzero((numbers < lower - room) | (numbers > upper + room))
    if not len(outside):
        return
    row = int(outside[0])
    turned = bool(((-numbers >= lower - room) & (-numbers <= upper + room)).all())
    hint = "; it seems to have the wrong sign" if turned else ""
    raise UserError(
        f"column {name!r}, row {row + 1}: {numbers[row]:g} is outside {lower:g} to {upper:g}, the "
        f"range that the surrogate was trained on{hint}"
    )


# -- the posterior ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Beliefs:
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
        return len(self.prior.names) - len(self.inferred)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (c, d) and noise (c, m)."""
        values = self.prior.values(z)
        columns = list(self.fixed.expand(len(z), -1).unbind(1))
        for k, output in enumerate(self.inferred):
            columns[output] = values[:, self.parameters + k]
        return values[:, : self.parameters], torch.stack(columns, 1)


def _beliefs(
    model: Model, priors: Mapping[str, Prior], noise: Mapping[str, Noise], y: Tensor
) -> _Beliefs:
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
    return _Beliefs(whole, tuple(inferred), fixed)


@dataclass(frozen=True)
class _Target:
    """Log posterior of each chain, in the coordinates w of its own.

    Parameters
    ----------
    model : Model
    beliefs : _Beliefs
    y : Tensor (c, n)
    centre : Tensor (c, d)
    root : Tensor (c, d, d)
    log_prior : callable (c, p) -> (c,), optional
        Of the parameters, besides their own priors.
    """

    model: Model
    beliefs: _Beliefs
    y: Tensor
    centre: Tensor
    root: Tensor
    log_prior: Callable[[Tensor], Tensor] | None = None

    def z(self, w: Tensor) -> Tensor:
        """Standard normals (c, d)."""
        return self.centre + (self.root @ w.unsqueeze(-1)).squeeze(-1)

    def predict(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, noise included, (c, n)."""
        theta, sigma = self.beliefs(z)
        mean, variance = self.model(theta)
        return mean, variance + sigma[:, self.model.group].square()

    def log_posterior(self, z: Tensor) -> Tensor:
        """At standard normals (c, d)."""
        mean, variance = self.predict(z)
        likelihood = (self.y - mean).square() / variance + variance.log()
        value = -0.5 * likelihood.sum(1) - 0.5 * z.square().sum(1)
        return value if self.log_prior is None else value + self.log_prior(self.beliefs(z)[0])

    def __call__(self, w: Tensor) -> Tensor:
        """At w (c, d)."""
        return self.log_posterior(self.z(w))

    def information(self, z: Tensor) -> Tensor:
        """Gauss-Newton Hessian (c, d, d) of minus the log posterior, by central differences."""
        with torch.no_grad():
            _, variance = self.predict(z)
            means, logs = [], []
            for k in range(z.shape[1]):
                step = torch.zeros_like(z)
                step[:, k] = _DIFFERENCE
                above, below = self.predict(z + step), self.predict(z - step)
                means.append((above[0] - below[0]) / (2.0 * _DIFFERENCE))
                logs.append((above[1].log() - below[1].log()) / (2.0 * _DIFFERENCE))
            J, G = torch.stack(means, -1), torch.stack(logs, -1)  # (c, n, d)
            fisher = (J / variance.unsqueeze(-1)).mT @ J + 0.5 * G.mT @ G
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


def _prepared(target: _Target, starts: int, generator: torch.Generator) -> _Target:
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


def _best_draws(target: _Target, starts: int, generator: torch.Generator) -> Tensor:
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


# -- results ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Posterior of the parameters of one data set.

    Parameters
    ----------
    names : tuple of str
        Parameters, then ``noise of ...`` where it was inferred.
    draws : Tensor (samples, chains, d)
    noise : dict of str to float
        Posterior mean of the noise of each output, or its value.
    prior_sd : Tensor (d,)
    y, lower, median, upper : Tensor (n,)
        Measured values, and quantiles (5, 50, 95 %) of what is predicted for repeated measurements.
    p_value : float
        Chance that repeated data lie as far from their prediction as these or further.
    chains : Chains
    """

    names: tuple[str, ...]
    draws: Tensor
    noise: dict[str, float]
    prior_sd: Tensor
    y: Tensor
    lower: Tensor
    median: Tensor
    upper: Tensor
    p_value: float
    chains: Chains

    @property
    def coverage(self) -> float:
        """Share of measured values within their 90 % interval."""
        return float(((self.y >= self.lower) & (self.y <= self.upper)).double().mean())

    @property
    def correlations(self) -> Tensor:
        """Of the draws, (d, d)."""
        return torch.corrcoef(self.draws.reshape(-1, len(self.names)).T).reshape(
            len(self.names), -1
        )

    def table(self) -> pd.DataFrame:
        """A row for each parameter: moments, quantiles, shrinkage of the prior, diagnostics."""
        flat = self.draws.reshape(-1, len(self.names))
        lower, median, upper = torch.quantile(
            flat, torch.tensor([0.05, 0.5, 0.95], dtype=flat.dtype), dim=0
        )
        found = diagnose(self.draws)
        return pd.DataFrame(
            {
                "parameter": list(self.names),
                "mean": flat.mean(0).numpy(),
                "sd": flat.std(0).numpy(),
                "lower_90": lower.numpy(),
                "median": median.numpy(),
                "upper_90": upper.numpy(),
                "sd_of_prior": (flat.std(0) / self.prior_sd).numpy(),
                "r_hat": found.r_hat.numpy(),
                "ess": torch.minimum(found.ess_bulk, found.ess_tail).numpy(),
            }
        )

    def warnings(self) -> list[str]:
        """What should be known before the numbers are used, in sentences."""
        said = []
        for row in self.table().to_dict("records"):
            if row["r_hat"] > 1.01 or row["ess"] < 400:
                said.append(
                    f"{row['parameter']}: chains have not settled (R-hat {row['r_hat']:.3f}, "
                    f"{row['ess']:.0f} effective draws); sample longer"
                )
            if row["sd_of_prior"] > 0.9 and not row["parameter"].startswith("noise of"):
                said.append(
                    f"{row['parameter']} is not identified: its posterior is as wide as its prior"
                )
        R = self.correlations
        for i, j in torch.triu_indices(len(self.names), len(self.names), 1).T.tolist():
            if abs(float(R[i, j])) > 0.95:
                said.append(
                    f"{self.names[i]} and {self.names[j]} are known only together: "
                    f"their correlation is {float(R[i, j]):.3f}"
                )
        if not 0.01 <= self.p_value <= 0.99:
            way = "worse" if self.p_value < 0.01 else "better"
            said.append(
                f"the model explains the data {way} than its noise allows "
                f"(posterior predictive p = {self.p_value:.3f})"
            )
        return said


def calibrate(
    model: Model,
    y: Tensor,
    priors: Mapping[str, Prior],
    noise: Mapping[str, Noise] | None = None,
    chains: int = 4,
    burn_in: int = 200,
    samples: int = 500,
    seed: int = 0,
    file: str | Path | None = None,
    listener: Listener | None = None,
    log_prior: Callable[[Tensor], Tensor] | None = None,
) -> Calibration:
    """Sample the posterior of a model's parameters.

    Parameters
    ----------
    model : Model
    y : Tensor (n,)
        Measured values.
    priors : mapping of str to Prior
        One for each parameter of the model.
    noise : mapping of str to Noise, optional
        Of each output; inferred by default.
    chains, burn_in, samples : int
    seed : int
    file : str or Path, optional
        Where chains are kept; those that are there go on. They must be of the same problem.
    listener : callable, optional
        Receives `Progress`.
    log_prior : callable (c, d) -> (c,), optional
        Differentiable log density of parameters in float64, up to a constant, which multiplies
        their priors; see `FieldPrior`.

    Raises
    ------
    UserError
        Data with values that are not finite or that nothing in the prior explains; priors that
        are not those of the model.
    """
    if chains < 1 or samples < 4:
        raise UserError(f"needs 1 chain and 4 samples at least, got {chains} and {samples}")
    noise = dict(noise or {})
    Y = _checked(model, y).unsqueeze(0)
    if "bisect" in noise.values():
        noise = {model.outputs[0]: _bisect(model, Y, priors, noise, chains, seed)}
    generator = torch.Generator().manual_seed(seed)
    target = _open(model, Y, priors, noise, chains, generator)
    _check_explained(target, generator)
    target = _prepared(replace(target, log_prior=log_prior), _PRIOR_DRAWS, generator)
    found = _sampled(target, Plan(burn_in, samples), generator, file, listener, shared=True)
    if len(found.kept) < 4:
        raise UserError("sampling was stopped before there was anything to report")
    return _summary(target, found, generator)


def _checked(model: Model, y: Tensor) -> Tensor:
    y = y.to(torch.float64).reshape(-1)
    if len(y) != len(model.group):
        raise UserError(f"the model predicts {len(model.group)} values, found {len(y)} measured")
    bad = (~torch.isfinite(y)).nonzero().flatten().tolist()
    if bad:
        raise UserError(f"measured value {bad[0] + 1} is not a finite number")
    return y


def _open(
    model: Model,
    Y: Tensor,
    priors: Mapping[str, Prior],
    noise: Mapping[str, Noise],
    chains: int,
    generator: torch.Generator,
) -> _Target:
    """Target of k data sets (k, n), chains of each side by side, not yet centred."""
    beliefs = _beliefs(model, priors, noise, Y)
    y = Y.repeat_interleave(chains, 0)
    d = len(beliefs.prior.names)
    root = torch.eye(d, dtype=torch.float64).expand(len(y), d, d)
    return _Target(model, beliefs, y, torch.zeros(len(y), d, dtype=torch.float64), root)


def _sampler(shared: bool) -> HMC:
    return HMC(step_size=0.5, path_length=1.6, max_leapfrog=40, jitter=0.3, shared=shared)


def _sampled(
    target: _Target,
    plan: Plan,
    generator: torch.Generator,
    file: str | Path | None = None,
    listener: Listener | None = None,
    shared: bool = False,
) -> Chains:
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


def _check_same(target: _Target, chains: Chains, file: str | Path) -> None:
    """Refuse chains of another problem: their log density must be that of this one."""
    position, log_density = chains.state.position, getattr(chains.state, "log_density", None)
    if position.shape == target.centre.shape and log_density is not None:
        again = target(position).detach()
        if torch.allclose(again, log_density, rtol=1e-6, atol=1e-6):
            return
    raise UserError(f"{file} holds chains of another problem; name another file or remove it")


def _check_explained(target: _Target, generator: torch.Generator) -> None:
    """Refuse data in other units than the predictions, or that no draw of the prior comes near."""
    z = torch.randn(_ENVELOPE, target.centre.shape[1], generator=generator, dtype=torch.float64)
    with torch.no_grad():
        theta, _ = target.beliefs(z)
        mean, variance = target.model(theta)
    known = torch.isfinite(mean).all(1)
    if not bool(known.any()):
        raise UserError("no draw of the prior gives a prediction for every measured value")
    mean, variance, y = mean[known], variance[known], target.y[0]
    room = 4.0 * (variance.mean(0) + target.beliefs.fixed[target.model.group].square()).sqrt()
    low, high = mean.min(0).values - room, mean.max(0).values + room
    for m, output in enumerate(target.model.outputs):
        of = target.model.group == m
        _check_units(output, y[of], mean[:, of])
        spread = (high - low)[of] if m in target.beliefs.inferred else torch.zeros_like(y[of])
        away = (y[of] < low[of] - spread) | (y[of] > high[of] + spread)
        if away.double().mean() > 0.5:
            at = int(away.nonzero()[0])
            raise UserError(
                f"the prior excludes the data: {int(away.sum())} of {len(away)} values of "
                f"{output!r} lie beyond all that it predicts, such as {float(y[of][at]):.4g} in "
                f"row {at + 1}, where it gives {float(low[of][at]):.4g} to "
                f"{float(high[of][at]):.4g}"
            )


def _check_units(output: str, y: Tensor, mean: Tensor) -> None:
    """Refuse values about a thousand times or a thousandth of what is predicted."""
    measured, predicted = float(y.abs().median()), float(mean.abs().median())
    if measured <= 0.0 or predicted <= 0.0:
        return
    for factor, told in ((1e3, "multiplied by 1000 (milli-units?)"), (1e-3, "divided by 1000")):
        if 0.5 < measured / predicted / factor < 2.0:
            raise UserError(
                f"column {output!r} seems to be {told}: its median is {measured:.4g}, that of the "
                f"predictions {predicted:.4g}"
            )


def _bisect(
    model: Model,
    Y: Tensor,
    priors: Mapping[str, Prior],
    noise: Mapping[str, Noise],
    chains: int,
    seed: int,
) -> float:
    """Least noise, by ten halvings, of which all posterior curves lie within twice of the data."""
    if len(model.outputs) > 1:
        raise UserError("noise by bisection needs a single measured output")
    lower, sigma, upper = LOWEST, FIRST, max(2.0 * LOWEST, HIGHEST)
    accepted = upper
    for _ in range(TRIES):
        generator = torch.Generator().manual_seed(seed)
        target = _open(model, Y, priors, {model.outputs[0]: sigma}, chains, generator)
        target = _prepared(target, 16, generator)
        found = _sampled(target, Plan(50, 100), generator, shared=True)
        with torch.no_grad():
            curves = torch.stack([model(target.beliefs(target.z(w))[0])[0] for w in found.draws])
        if bool(((curves - Y).abs() <= 2.0 * sigma).all()):
            accepted, upper = sigma, sigma
            sigma = 0.5 * (lower + sigma)
        else:
            lower = sigma
            sigma = 0.5 * (sigma + upper)
    return accepted


def _summary(target: _Target, found: Chains, generator: torch.Generator) -> Calibration:
    """Posterior in the parameters' units, and predictions for repeated measurements."""
    beliefs = target.beliefs
    z = torch.stack([target.z(w) for w in found.draws])
    draws = beliefs.prior.values(z)
    thin = z[:: max(1, len(z) // 100)]
    repeated, far, here = [], [], []
    with torch.no_grad():
        for each in thin:
            mean, variance = target.predict(each)
            again = mean + variance.sqrt() * torch.randn(
                mean.shape, generator=generator, dtype=mean.dtype
            )
            repeated.append(again)
            far.append(((again - mean).square() / variance).sum(1))
            here.append(((target.y - mean).square() / variance).sum(1))
        sigma = torch.stack([beliefs(each)[1] for each in thin]).mean((0, 1))
    whole = torch.cat(repeated)
    lower, median, upper = torch.quantile(
        whole, torch.tensor([0.05, 0.5, 0.95], dtype=whole.dtype), dim=0
    )
    return Calibration(
        names=beliefs.prior.names,
        draws=draws,
        noise=dict(zip(target.model.outputs, sigma.tolist(), strict=True)),
        prior_sd=beliefs.prior.spread(),
        y=target.y[0],
        lower=lower,
        median=median,
        upper=upper,
        p_value=float((torch.cat(far) >= torch.cat(here)).double().mean()),
        chains=found,
    )


# -- simulation-based calibration ------------------------------------------------------------------


@dataclass(frozen=True)
class Ranks:
    """Where k truths rank among draws of their posteriors.

    Parameters
    ----------
    names : tuple of str
    ranks : LongTensor (k, d)
        From 0 to L.
    of : int
        L, number of draws.
    covered : BoolTensor (k, d)
        Whether the 90 % interval holds the truth.
    r_hat : Tensor (k,)
        Largest of each data set.
    """

    names: tuple[str, ...]
    ranks: Tensor
    of: int
    covered: Tensor
    r_hat: Tensor

    def table(self, bins: int = 8) -> pd.DataFrame:
        """Chi-square test of uniform ranks, and coverage, for each parameter.

        Parameters
        ----------
        bins : int
            Of ranks; L + 1 should be a multiple.
        """
        rows = []
        for k, name in enumerate(self.names):
            at = (self.ranks[:, k] * bins) // (self.of + 1)
            counts = torch.bincount(at, minlength=bins).double()
            mean = len(self.ranks) / bins
            statistic = float(((counts - mean).square() / mean).sum())
            rows.append(
                {
                    "parameter": name,
                    "chi_square": statistic,
                    "p_value": float(chi2.sf(statistic, bins - 1)),
                    "coverage_90": float(self.covered[:, k].double().mean()),
                }
            )
        return pd.DataFrame(rows)


def simulation_based_calibration(
    model: Model,
    priors: Mapping[str, Prior],
    noise: Mapping[str, Noise],
    simulations: int = 100,
    draws: int = 63,
    chains: int = 2,
    burn_in: int = 100,
    samples: int = 200,
    seed: int = 0,
    listener: Listener | None = None,
) -> Ranks:
    """Calibrate many simulated data sets at once and rank their truths.

    Parameters
    ----------
    model : Model
    priors, noise : mapping
        As of `calibrate`; noise must be a number or a distribution.
    simulations : int
        Data sets, at least 8.
    draws : int
        L, thinned draws among which a truth is ranked.
    chains, burn_in, samples : int
        Of each data set.
    seed : int
    listener : callable, optional
    """
    if simulations < 8:
        raise UserError(f"ranks need at least 8 simulations, found {simulations}")
    for output in model.outputs:
        if isinstance(noise.get(output, "infer"), str):
            raise UserError(
                f"to simulate data, the noise of {output!r} must be a number or a distribution"
            )
    if draws > chains * samples:
        raise UserError(f"cannot thin {chains * samples} draws to {draws}")
    generator = torch.Generator().manual_seed(seed)
    one = torch.zeros(1, len(model.group), dtype=torch.float64)
    blank = _open(model, one, priors, noise, 1, generator)
    d = len(blank.beliefs.prior.names)
    z = torch.randn(simulations, d, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        mean, variance = blank.predict(z)
    Y = mean + variance.sqrt() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    target = _open(model, Y, priors, noise, chains, generator)
    target = _prepared(target, 16, generator)
    found = _sampled(target, Plan(burn_in, samples), generator, listener=listener)
    after = torch.stack([target.z(w) for w in found.draws])  # (s, k * chains, d)
    after = after.reshape(len(after), simulations, chains, d)
    flat = after.permute(0, 2, 1, 3).reshape(-1, simulations, d)
    at = torch.linspace(0, len(flat) - 1, draws).round().long()
    lower, upper = torch.quantile(flat, torch.tensor([0.05, 0.95], dtype=flat.dtype), dim=0)
    r_hat = diagnose(after.permute(0, 2, 1, 3).reshape(len(after), chains, -1)).r_hat
    return Ranks(
        names=blank.beliefs.prior.names,
        ranks=(flat[at] < z).sum(0),
        of=draws,
        covered=(z >= lower) & (z <= upper),
        r_hat=r_hat.reshape(simulations, d).max(1).values,
    )
