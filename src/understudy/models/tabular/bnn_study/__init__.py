"""The surrogates of Li, Rudner & Wilson (2024, arXiv 2305.20028), with the paper's settings.

`study_surrogates` makes all of them. Where a method exists in this package in a form made for use,
the paper's own is here: `ModeEnsemble`, `LinearisedLaplace`, `DeepKernelProcess` and
`FixedNetworkProcess`; HMC and SGHMC are those of `understudy.models.tabular`. Differences between
the paper and its code are resolved in favour of the mathematics: a noise variance is a variance,
the warm start moves the network that is sampled, outputs do not share one kernel.

Inputs are scaled by the range of the training data and outputs to variance 1, as for every
surrogate; the paper scales inputs by the bounds of the space.
"""

from __future__ import annotations

from understudy.core.surrogate import Surrogate
from understudy.models.tabular.bnn_study.deep_kernel import DeepKernelProcess
from understudy.models.tabular.bnn_study.ensemble import ModeEnsemble
from understudy.models.tabular.bnn_study.infinite_width import FixedNetworkProcess
from understudy.models.tabular.bnn_study.laplace import LinearisedLaplace
from understudy.models.tabular.exact_gp import ExactGP
from understudy.models.tabular.hmc import HMCSurrogate
from understudy.models.tabular.sghmc import SGHMCSurrogate

__all__ = [
    "DeepKernelProcess",
    "FixedNetworkProcess",
    "LinearisedLaplace",
    "ModeEnsemble",
    "study_surrogates",
]


def study_surrogates(low_dimensional: bool = True, seed: int = 0) -> dict[str, Surrogate]:
    """Surrogates of the study, unfitted, by the paper's names.

    Parameters
    ----------
    low_dimensional : bool
        Settings for few inputs: three layers of 128 units. Otherwise those of the paper's network
        and polynomial draws of 200 and 400 inputs: two layers of 256.
    seed : int

    Returns
    -------
    dict of str to Surrogate
        ``gp`` with the gamma priors of 2023, ``gp-2024`` with the dimension-scaled prior of
        Hvarfner et al. (2024), which the paper could not know, ``hmc``, ``sghmc``, ``ensemble``,
        ``lla``, ``ibnn`` and ``dkl``.
    """
    hidden = (128, 128, 128) if low_dimensional else (256, 256)
    hmc = HMCSurrogate(hidden=hidden, seed=seed)
    if not low_dimensional:
        hmc = HMCSurrogate(
            hidden=hidden, burn_in=200, samples=100, step_size=0.002, path_length=0.01, seed=seed
        )
    bias = 1.3 if low_dimensional else 1.6
    rate = 1e-3 if low_dimensional else 1e-4
    return {
        "gp": ExactGP(prior="gamma", min_noise=1e-4, seed=seed),
        "gp-2024": ExactGP(seed=seed),
        "hmc": hmc,
        "sghmc": SGHMCSurrogate(hidden=hidden, seed=seed),
        "ensemble": ModeEnsemble(hidden=hidden, seed=seed),
        "lla": LinearisedLaplace(hidden=hidden, seed=seed),
        "ibnn": FixedNetworkProcess(bias_variance=bias, seed=seed),
        "dkl": DeepKernelProcess(hidden=hidden, learning_rate=rate, seed=seed),
    }
