r"""What single points are worth to an in-context network: exact, from its bars.

Expected improvement of a bar distribution is a finite sum (Müller et al. 2023, arXiv 2305.17535).
Points that are being run are taken to have the outcome that the network expects of them: reading a
few rows more costs it one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.core.posterior import BinnedPosterior
from understudy.models.incontext.estimators import PFNSurrogate
from understudy.search.bayesopt.beliefs import Beliefs

_LEAST = 1e-12  # improvement, in units of the learnt scale, below which the logarithm is cut


@dataclass(frozen=True)
class LogBarEI:
    """Log expected improvement over a value.

    Parameters
    ----------
    beliefs : Beliefs
    surrogate : PFNSurrogate
        Of one objective, which has read what is pending.
    best : Tensor ()
    """

    beliefs: Beliefs
    surrogate: PFNSurrogate
    best: Tensor

    def __call__(self, U: Tensor) -> Tensor:
        """Return what points (b, 1, d) are worth, (b,)."""
        posterior = self.surrogate.posterior(self.beliefs.model.cube.features(U))
        if not isinstance(posterior, BinnedPosterior):
            raise TypeError("only bars have an exact expected improvement here")
        improvement = posterior.bars.expected_excess(self.best)[..., 0, 0]
        return (improvement + _LEAST).log()


def in_context(beliefs: Beliefs) -> PFNSurrogate | None:
    """Return the network where it alone, and no constraint, decides what a point is worth."""
    first, *others = beliefs.model.parts
    alone = not others and not beliefs.intervals and beliefs.model.num_outputs == 1
    return first if alone and isinstance(first, PFNSurrogate) else None


@torch.no_grad()
def log_bar_ei(
    beliefs: Beliefs, surrogate: PFNSurrogate, pending: Tensor, best: Tensor
) -> LogBarEI:
    """Log expected improvement, with pending points (p, d) taken as run."""
    if len(pending):
        features = beliefs.model.cube.features(pending)
        expected = surrogate.mean(features)
        surrogate = surrogate.extended(features, expected)
        best = torch.maximum(best, expected.max())
    return LogBarEI(beliefs, surrogate, best)
