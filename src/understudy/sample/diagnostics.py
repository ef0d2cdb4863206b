r"""How far to trust chains.

:math:`\hat R` is rank-normalised and split, effective sample sizes are of the bulk and of the tails
(Vehtari et al. 2021, arXiv 1903.08008), both by ArviZ. The energy Bayesian fraction of missing
information (Betancourt 2016, arXiv 1604.00695) of a chain with energies :math:`E_n` is

.. math:: \text{E-BFMI} = \frac{\sum_n (E_n - E_{n-1})^2}{\sum_n (E_n - \bar E)^2};

below 0.3, momenta change the energy too little to reach the tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from understudy.core.errors import UserError


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of every quantity; NaN where it does not vary at all.

    Parameters
    ----------
    r_hat : Tensor (k,)
        1 where chains agree; above 1.01 they do not yet.
    ess_bulk, ess_tail : Tensor (k,)
        Independent draws that would estimate the mean, and the 5 % and 95 % quantiles, as well.
    """

    r_hat: Tensor
    ess_bulk: Tensor
    ess_tail: Tensor

    def trusted(self, r_hat: float = 1.01, ess: float = 400.0) -> bool:
        """Whether every quantity has at most that R-hat and at least that many effective draws."""
        least = torch.minimum(self.ess_bulk, self.ess_tail)
        return bool((self.r_hat <= r_hat).all() and (least >= ess).all())


def diagnose(draws: Tensor) -> Diagnostics:
    """Diagnose draws (samples, chains, k) of k quantities; at least 4 samples.

    Weights of a network have symmetries, so chains that agree on the function may disagree on
    them: give its predictions.
    """
    from arviz_stats.base.array import BaseArray

    if draws.ndim != 3 or len(draws) < 4:
        raise UserError(
            f"diagnostics need draws (samples, chains, k) with 4 samples, got {tuple(draws.shape)}"
        )
    array_stats = BaseArray()
    array = draws.detach().cpu().double().numpy()
    along = {"chain_axis": 1, "draw_axis": 0}
    ess = partial(array_stats.ess, array, **along)
    found = (
        array_stats.rhat(array, **along),
        ess(method="bulk"),
        ess(method="tail", prob=(0.05, 0.95)),
    )
    return Diagnostics(*(torch.as_tensor(values) for values in found))


def e_bfmi(energy: Tensor) -> Tensor:
    """E-BFMI (chains,) of energies (samples, chains)."""
    change = energy.diff(dim=0).square().sum(0)
    return change / (energy - energy.mean(0)).square().sum(0)
