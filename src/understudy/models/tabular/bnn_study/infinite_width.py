"""The infinitely wide network of Li, Rudner & Wilson (2024, arXiv 2305.20028): nothing is learnt.

"I-BNN" is an exact Gaussian process with the kernel of `understudy.nn.infinite_width` on inputs in
the unit cube as they are, with variances of weights and biases that are given; noise and mean alone
are fitted. Noise has the prior of the Gaussian process that it is compared with.
"""

from __future__ import annotations

from torch import Tensor

from understudy.models.tabular.gamma_prior import gamma_noise
from understudy.models.tabular.infinite_width import InfiniteWidthSurrogate, NetworkLikelihood


class FixedNetworkProcess(InfiniteWidthSurrogate):
    """Gaussian process with the fixed kernel of a network of three infinitely wide ReLU layers.

    Parameters
    ----------
    depth : int
    activation : {"relu", "erf"}
    weight_variance, bias_variance : float
        10 and 1.3 in the paper, 10 and 1.6 for many inputs.
    min_noise : float
        Least noise variance, as a fraction of an output's variance.
    max_exact : int
        Rows up to which all of them choose the noise.
    fold_iterations, max_seconds, seed
        As in `ExactGP`.
    """

    def __init__(
        self,
        *,
        depth: int = 3,
        activation: str = "relu",
        weight_variance: float = 10.0,
        bias_variance: float = 1.3,
        min_noise: float = 1e-4,
        max_exact: int = 2000,
        fold_iterations: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            depth=depth,
            activation=activation,
            weight_variance=weight_variance,
            bias_variance=bias_variance,
            learn_kernel=False,
            min_noise=min_noise,
            max_exact=max_exact,
            fold_iterations=fold_iterations,
            max_seconds=max_seconds,
            seed=seed,
        )

    def _scaled(self, X: Tensor) -> Tensor:
        """Inputs whose distance from the middle of the cube, which the kernel takes, is theirs."""
        return 0.5 * (super()._scaled(X) + 1.0)

    def _likelihood(self, U: Tensor) -> NetworkLikelihood:
        likelihood = super()._likelihood(U)
        likelihood.prior = gamma_noise(likelihood.prior, self.min_noise)
        return likelihood
