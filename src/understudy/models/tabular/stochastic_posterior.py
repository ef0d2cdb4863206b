r"""Weights of networks given data and a prior, sampled from a few rows at a time.

Stochastic-gradient HMC (see `understudy.sample.sghmc`) of :math:`\log p(y, \theta)`. Under a
hierarchical prior the precisions :math:`\lambda` of the layers are sampled as well, by turns with
the weights (see `understudy.sample.gibbs`): :math:`\lambda_g \sim \operatorname{Gamma}(a + n/2,
r + |w_g|^2/2)`, as Tran et al. (2022, arXiv 2011.12829) do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.nn.bayesian_mlp import MinibatchJoint, MinibatchLikelihood, Prior
from understudy.nn.layer_priors import HierarchicalLayerPrior
from understudy.sample.chains import Chains, Plan, sample
from understudy.sample.density import Minibatch
from understudy.sample.gibbs import Gibbs
from understudy.sample.sghmc import SGHMC


@dataclass(frozen=True)
class Rows:
    """Rows of a table, and how many a step sees.

    Parameters
    ----------
    counts : int or LongTensor (chains,)
        Rows of each chain.
    batch_size : int
    """

    counts: int | Tensor
    batch_size: int


@dataclass(frozen=True)
class HierarchicalPosterior:
    """Joint density of data, weights and precisions, for `understudy.sample.gibbs.Gibbs`.

    Parameters
    ----------
    likelihood : MinibatchLikelihood
    prior : HierarchicalLayerPrior
    rows : Rows
    """

    likelihood: MinibatchLikelihood
    prior: HierarchicalLayerPrior
    rows: Rows

    def auxiliary(self, position: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the precisions (chains, groups) given positions (chains, dim)."""
        return self.prior.resample(position[:, : self.likelihood.network.dim], generator)

    def given(self, auxiliary: Tensor) -> Minibatch:
        """Density of positions given the precisions (chains, groups)."""
        joint = MinibatchJoint(self.likelihood, self.prior.given(auxiliary))
        return Minibatch(joint, self.rows.counts, self.rows.batch_size)


@dataclass(frozen=True)
class WeightSampler:
    """Samples the posterior of weights by stochastic-gradient HMC.

    Parameters
    ----------
    inner : SGHMC
    plan : Plan
    resample_every : int
        Steps between draws of the precisions of a hierarchical prior.
    """

    inner: SGHMC
    plan: Plan
    resample_every: int = 20

    def run(
        self,
        likelihood: MinibatchLikelihood,
        prior: Prior,
        rows: Rows,
        start: Tensor,
        generator: torch.Generator,
        max_seconds: float | None = None,
    ) -> Chains:
        """Chains from positions ``start`` (chains, dim)."""
        if isinstance(prior, HierarchicalLayerPrior):
            target = HierarchicalPosterior(likelihood, prior, rows)
            gibbs = Gibbs(self.inner, self.resample_every)
            return sample(gibbs, target, start, self.plan, generator, max_seconds)
        joint = Minibatch(MinibatchJoint(likelihood, prior), rows.counts, rows.batch_size)
        return sample(self.inner, joint, start, self.plan, generator, max_seconds)
