r"""Parameters from measurements: Bayesian calibration through a surrogate or a simulator.

With parameters :math:`\theta`, measured values :math:`y_i`, a model that predicts each with mean
:math:`f_i(\theta)` and, where it is a surrogate, variance :math:`s_i^2(\theta)` of its own, and
noise :math:`\sigma`, known or with a prior,

.. math:: y_i \mid \theta, \sigma \sim N\big(f_i(\theta),\; \sigma^2 + s_i^2(\theta)\big),

errors taken as independent, unless the surrogate's error is known from further runs of the solver:
values then err together (`understudy.search.approximation_error`). How the posterior is sampled
says `understudy.search.parameter_posterior`; whether it can be trusted, by simulated data,
`understudy.search.simulation_based`.

**Noise by bisection** (arXiv 2312.17329): noise is fixed; it is accepted if all posterior curves
lie within the data plus and minus twice it, and then lowered half-way to the lower limit, else
raised half-way to the upper; ten times from 10 mV between 1 mV and 0.1 V, in the units of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.progress import Listener
from understudy.sample import Chains, Plan, diagnose
from understudy.search.approximation_error import ApproximationError
from understudy.search.measurement import (
    Checks,
    CurveModel,
    Model,
    SurrogateModel,
    check_units,
    read_checks,
    read_measurement,
)
from understudy.search.parameter_posterior import Target, opened, prepared, sampled
from understudy.search.priors import FieldPrior, Noise, Prior
from understudy.search.simulation_based import Ranks, simulation_based_calibration

__all__ = [
    "ApproximationError",
    "Calibration",
    "Checks",
    "CurveModel",
    "FieldPrior",
    "Model",
    "Ranks",
    "SurrogateModel",
    "calibrate",
    "read_checks",
    "read_measurement",
    "simulation_based_calibration",
]

LOWEST, FIRST, HIGHEST, TRIES = 1e-3, 1e-2, 0.1, 10
"""Bracket, start and number of tries of noise by bisection."""

_PRIOR_DRAWS = 64  # of each chain, for its start
_ENVELOPE = 512


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
    error : str
        How large the error of the surrogate is against the noise, where it is known.
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
    error: str = ""

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
    error: ApproximationError | None = None,
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
    error : ApproximationError, optional
        Of a model that is a surrogate, from runs of the solver that it was not trained on.

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
        if error is not None:
            raise UserError(
                'noise by bisection knows no error of a surrogate; give the noise, or "infer" it'
            )
        noise = {model.outputs[0]: _bisect(model, Y, priors, noise, chains, seed)}
    generator = torch.Generator().manual_seed(seed)
    target = opened(model, Y, priors, noise, chains, error)
    _check_explained(target, generator)
    target = prepared(replace(target, log_prior=log_prior), _PRIOR_DRAWS, generator)
    found = sampled(target, Plan(burn_in, samples), generator, file, listener, shared=True)
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


def _check_explained(target: Target, generator: torch.Generator) -> None:
    """Refuse data in other units than the predictions, or that no draw of the prior comes near."""
    z = torch.randn(_ENVELOPE, target.centre.shape[1], generator=generator, dtype=torch.float64)
    with torch.no_grad():
        theta, _ = target.beliefs(z)
        mean, variance = target.model(theta)
    known = torch.isfinite(mean).all(1)
    if not bool(known.any()):
        raise UserError("no draw of the prior gives a prediction for every measured value")
    mean, variance, y = mean[known], variance[known], target.y[0]
    variance = variance.mean(0) + target.beliefs.fixed[target.model.group].square()
    if target.error is not None:
        mean = mean + target.error.mean
        variance = variance + target.error.variance
    room = 4.0 * variance.sqrt()
    low, high = mean.min(0).values - room, mean.max(0).values + room
    for m, output in enumerate(target.model.outputs):
        of = target.model.group == m
        check_units(output, y[of], mean[:, of])
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
        target = opened(model, Y, priors, {model.outputs[0]: sigma}, chains)
        target = prepared(target, 16, generator)
        found = sampled(target, Plan(50, 100), generator, shared=True)
        with torch.no_grad():
            curves = torch.stack([model(target.beliefs(target.z(w))[0])[0] for w in found.draws])
        if bool(((curves - Y).abs() <= 2.0 * sigma).all()):
            accepted, upper = sigma, sigma
            sigma = 0.5 * (lower + sigma)
        else:
            lower = sigma
            sigma = 0.5 * (sigma + upper)
    return accepted


def _summary(target: Target, found: Chains, generator: torch.Generator) -> Calibration:
    """Posterior in the parameters' units, and predictions for repeated measurements."""
    beliefs = target.beliefs
    z = torch.stack([target.z(w) for w in found.draws])
    draws = beliefs.prior.values(z)
    thin = z[:: max(1, len(z) // 100)]
    repeated, far, here = [], [], []
    with torch.no_grad():
        for each in thin:
            measured = target.measured(each)
            again = measured.draw(generator)
            repeated.append(again)
            far.append(measured.distance(again))
            here.append(measured.distance(target.y))
        sigma = torch.stack([beliefs(each)[1] for each in thin]).mean((0, 1))
    whole = torch.cat(repeated)
    lower, median, upper = torch.quantile(
        whole, torch.tensor([0.05, 0.5, 0.95], dtype=whole.dtype), dim=0
    )
    noise = dict(zip(target.model.outputs, sigma.tolist(), strict=True))
    error = "" if target.error is None else target.error.said(target.model.group, noise)
    return Calibration(
        names=beliefs.prior.names,
        draws=draws,
        noise=noise,
        prior_sd=beliefs.prior.spread(),
        y=target.y[0],
        lower=lower,
        median=median,
        upper=upper,
        p_value=float((torch.cat(far) >= torch.cat(here)).double().mean()),
        chains=found,
        error=error,
    )
