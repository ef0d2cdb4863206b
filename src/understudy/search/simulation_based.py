"""Whether posteriors can be trusted: simulation-based calibration.

Talts et al. (2018, arXiv 1804.06788): parameters drawn from the prior, data from the model, and the
rank of each truth among L thinned posterior draws; ranks are uniform on 0..L if the posterior is
right. Data of the model itself tell nothing of the model's own error: data of a solver do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
import torch
from scipy.stats import chi2
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.progress import Listener
from understudy.sample import Plan, diagnose
from understudy.search.approximation_error import ApproximationError
from understudy.search.measurement import Model
from understudy.search.parameter_posterior import opened, prepared, sampled
from understudy.search.priors import Noise, Prior


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
    error: ApproximationError | None = None,
    solver: Model | None = None,
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
    error : ApproximationError, optional
        Of the model, which the likelihood then has; data are drawn with it.
    solver : Model, optional
        Simulates the data in place of the model, with the same parameters and measured values.
        Ranks then also tell whether the model's error is taken into account.
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
    blank = opened(model, one, priors, noise, 1, error)
    d = len(blank.beliefs.prior.names)
    z = torch.randn(simulations, d, generator=generator, dtype=torch.float64)
    source = blank if solver is None else replace(blank, model=solver, error=None)
    with torch.no_grad():
        Y = source.measured(z).draw(generator)
    target = opened(model, Y, priors, noise, chains, error)
    target = prepared(target, 16, generator)
    found = sampled(target, Plan(burn_in, samples), generator, listener=listener)
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
