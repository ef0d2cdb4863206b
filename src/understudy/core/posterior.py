"""Joint predictions: posteriors that BoTorch's acquisition functions and samplers accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from botorch.posteriors import GPyTorchPosterior, Posterior
from botorch.posteriors.ensemble import EnsemblePosterior
from botorch.posteriors.transformed import TransformedPosterior
from botorch.sampling.base import MCSampler
from botorch.sampling.get_sampler import GetSampler, get_sampler
from botorch.sampling.normal import SobolQMCNormalSampler
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from understudy.core.bars import BarDistribution


class FunctionSamplePosterior(EnsemblePosterior):
    """A posterior whose every draw is one whole function.

    A draw picks one of S functions and evaluates it at all q points, so joint batches keep their
    correlation (resampling weights point by point would destroy it).

    Parameters
    ----------
    samples : Tensor (S, *batch, q, m)
        Values of S functions at the query points.
    noise_variance : Tensor broadcastable to (*batch, q, m), optional
        Variance of independent observation noise, added to draws and to the variance.
    """

    def __init__(self, samples: Tensor, noise_variance: Tensor | None = None) -> None:
        super().__init__(values=samples.movedim(0, -3))
        self.noise_variance = noise_variance

    @property
    def variance(self) -> Tensor:
        """Marginal variance, (*batch, q, m)."""
        among = super().variance
        return among if self.noise_variance is None else among + self.noise_variance

    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        """Functions picked by index, plus fresh noise where the posterior is of observations."""
        draws = super().rsample_from_base_samples(sample_shape, base_samples)
        if self.noise_variance is None:
            return draws
        return draws + self.noise_variance.sqrt() * torch.randn_like(draws)

    def rescale(self, shift: Tensor, scale: Tensor) -> FunctionSamplePosterior:
        """Posterior of ``shift + scale * f`` for (m,) shift and scale."""
        samples = shift + scale * self.values.movedim(-3, 0)
        noise = None if self.noise_variance is None else scale.square() * self.noise_variance
        return FunctionSamplePosterior(samples, noise)


class _LatentPosterior(Posterior):
    """A posterior of which a draw is one of many Gaussians, the same for all points of a draw.

    Beside q standard normals an output, a draw takes one more, which picks the Gaussian.
    """

    @property
    def batch_shape(self) -> torch.Size:
        """Batch dimensions, without q and m."""
        return self.mean.shape[:-2]

    @property
    def base_sample_shape(self) -> torch.Size:
        """Shape (*batch, q + 1, m): q standard normals an output, then the one that picks."""
        *batch, q, m = self._extended_shape()
        return torch.Size([*batch, q + 1, m])

    @property
    def batch_range(self) -> tuple[int, int]:
        """Dimensions over which base samples are shared."""
        return (0, -2)

    def _extended_shape(self, sample_shape: torch.Size = torch.Size()) -> torch.Size:  # noqa: B008
        return torch.Size([*sample_shape, *self.mean.shape])

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """Draws, (*sample_shape, *batch, q, m)."""
        shape = torch.Size([1]) if sample_shape is None else torch.Size(sample_shape)
        base = torch.randn(*shape, *self.base_sample_shape, dtype=self.dtype, device=self.device)
        return self.rsample_from_base_samples(shape, base)


class MixturePosterior(_LatentPosterior):
    r"""Mixture of K posteriors of the same points, weighted per output.

    A draw first picks a component for each output (by inverse transform of one uniform number),
    then takes that component's whole draw, so draws are functions and, given base samples,
    smooth in the query points.

    Parameters
    ----------
    components : sequence of Posterior
        Each over (*batch, q, m).
    weights : Tensor (K, m)
        Non-negative, summing to 1 over K.
    """

    def __init__(self, components: Sequence[Posterior], weights: Tensor) -> None:
        self.components = tuple(components)
        self.weights = weights

    @property
    def mean(self) -> Tensor:
        """Mean, (*batch, q, m)."""
        return sum(w * c.mean for w, c in zip(self.weights, self.components, strict=True))

    @property
    def variance(self) -> Tensor:
        """Marginal variance by the law of total variance, (*batch, q, m)."""
        pairs = list(zip(self.weights, self.components, strict=True))
        second = sum(w * (c.variance + c.mean.square()) for w, c in pairs)
        return (second - self.mean.square()).clamp_min(0.0)

    @property
    def device(self) -> torch.device:
        """Device of the components."""
        return self.components[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the components."""
        return self.components[0].dtype

    def _extended_shape(self, sample_shape: torch.Size = torch.Size()) -> torch.Size:  # noqa: B008
        return torch.Size([*sample_shape, *self.components[0].mean.shape])

    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        """Draws by base samples of shape sample_shape x base_sample_shape."""
        base = base_samples.expand(*sample_shape, *self.base_sample_shape)
        normals, pick = base[..., :-1, :], torch.special.ndtr(base[..., -1:, :])
        upper = self.weights.cumsum(0)
        lower = upper - self.weights
        draws = torch.zeros(self._extended_shape(sample_shape), dtype=self.dtype)
        for k, component in enumerate(self.components):
            here = (pick >= lower[k]) & ((pick < upper[k]) | (k == len(self.components) - 1))
            within = ((pick - lower[k]) / self.weights[k].clamp_min(1e-12)).clamp(0.0, 1.0)
            values = _draw(component, sample_shape, normals, within)
            draws = torch.where(here, values, draws)
        return draws


class ScaleMixturePosterior(_LatentPosterior):
    r"""Gaussian process whose covariance has one unknown factor :math:`s` for each output.

    .. math:: f = m + \sqrt{s}\,(g - m), \qquad g \sim GP(m, k), \quad s \sim q

    A draw takes one s an output for all its points, so draws are functions, exact, and smooth in
    the query points given base samples. With q inverse gamma f is a Student-t process.

    Parameters
    ----------
    gaussian : Posterior
        Of g, over (*batch, q, m).
    quantile : callable
        Maps probabilities (..., m) to s, output by output.
    mean_scale : Tensor (m,)
        Mean of s.
    """

    def __init__(
        self, gaussian: Posterior, quantile: Callable[[Tensor], Tensor], mean_scale: Tensor
    ) -> None:
        self.gaussian = gaussian
        self.quantile = quantile
        self.mean_scale = mean_scale

    @property
    def mean(self) -> Tensor:
        """Mean, (*batch, q, m)."""
        return self.gaussian.mean

    @property
    def variance(self) -> Tensor:
        """Marginal variance, (*batch, q, m); infinite where the mean of s is."""
        return self.mean_scale * self.gaussian.variance

    @property
    def device(self) -> torch.device:
        """Device of the Gaussian."""
        return self.gaussian.device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the Gaussian."""
        return self.gaussian.dtype

    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        """Draws by base samples of shape sample_shape x base_sample_shape."""
        base = base_samples.expand(*sample_shape, *self.base_sample_shape)
        uniform = torch.special.ndtr(base[..., -1:, :])
        return self.draw(sample_shape, base[..., :-1, :], uniform)

    def draw(self, sample_shape: torch.Size, normals: Tensor, uniform: Tensor) -> Tensor:
        """Draws by normals (..., q, m) and the probabilities (..., 1, m) of their s."""
        root = self.quantile(uniform.detach()).sqrt()
        values = _draw(self.gaussian, sample_shape, normals, uniform)
        return self.mean + root * (values - self.mean)


class BinnedPosterior(Posterior):
    """Bar distributions of q points and m outputs, independent of one another.

    Parameters
    ----------
    bars : BarDistribution
        Of cells (*batch, q, m).
    """

    def __init__(self, bars: BarDistribution) -> None:
        self.bars = bars

    @property
    def mean(self) -> Tensor:
        """Mean, (*batch, q, m)."""
        return self.bars.mean

    @property
    def variance(self) -> Tensor:
        """Variance, (*batch, q, m)."""
        return self.bars.variance

    def quantile(self, value: Tensor) -> Tensor:
        """Quantiles at levels (l,), (l, *batch, q, m)."""
        return self.bars.quantile(value.reshape(-1))

    def density(self, value: Tensor) -> Tensor:
        """Density of outcomes."""
        return self.bars.log_density(value).exp()

    @property
    def device(self) -> torch.device:
        """Device of the bars."""
        return self.bars.logits.device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the bars."""
        return self.bars.logits.dtype

    @property
    def batch_shape(self) -> torch.Size:
        """Batch dimensions, without q and m."""
        return self.base_sample_shape[:-2]

    @property
    def base_sample_shape(self) -> torch.Size:
        """Shape (*batch, q, m): a standard normal a cell."""
        return self.bars.logits.shape[:-1]

    @property
    def batch_range(self) -> tuple[int, int]:
        """Dimensions over which base samples are shared."""
        return (0, -2)

    def _extended_shape(self, sample_shape: torch.Size = torch.Size()) -> torch.Size:  # noqa: B008
        return torch.Size([*sample_shape, *self.base_sample_shape])

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """Draws, (*sample_shape, *batch, q, m)."""
        shape = torch.Size([1]) if sample_shape is None else torch.Size(sample_shape)
        base = torch.randn(*shape, *self.base_sample_shape, dtype=self.dtype, device=self.device)
        return self.rsample_from_base_samples(shape, base)

    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        """Draws by inverse transform, differentiable in the bars."""
        base = base_samples.expand(*sample_shape, *self.base_sample_shape)
        levels = torch.special.ndtr(base).clamp(1e-6, 1.0 - 1e-6)
        flat = levels.reshape(-1, *self.base_sample_shape)
        return self.bars.quantile(flat).reshape(base.shape)


def _draw(posterior: Posterior, shape: torch.Size, normals: Tensor, uniform: Tensor) -> Tensor:
    """Draw whole functions from one component: by index where it is a set of functions."""
    if isinstance(posterior, TransformedPosterior):
        inner = _draw(posterior._posterior, shape, normals, uniform)
        return posterior._sample_transform(inner)
    if isinstance(posterior, ScaleMixturePosterior):
        return posterior.draw(shape, normals, uniform)
    if not isinstance(posterior, EnsemblePosterior):
        flat = len(posterior.base_sample_shape) < normals.dim() - len(shape)  # one output
        return posterior.rsample_from_base_samples(shape, normals[..., 0] if flat else normals)
    size = posterior.ensemble_size
    index = (uniform[..., 0, 0] * size).long().clamp(max=size - 1)
    return posterior.rsample_from_base_samples(shape, index)


@GetSampler.register(BinnedPosterior)
@GetSampler.register(_LatentPosterior)
def _normal_sampler(
    posterior: Posterior, sample_shape: torch.Size, *, seed: int | None = None
) -> MCSampler:
    return SobolQMCNormalSampler(sample_shape=sample_shape, seed=seed)


@GetSampler.register(FunctionSamplePosterior)
def _function_sampler(
    posterior: FunctionSamplePosterior, sample_shape: torch.Size, *, seed: int | None = None
) -> MCSampler:
    from botorch.sampling.index_sampler import IndexSampler

    return IndexSampler(sample_shape=sample_shape, seed=seed)


def independent_gaussian(mean: Tensor, variance: Tensor) -> GPyTorchPosterior:
    """Posterior with no correlation among points or outputs, from (*batch, q, m) moments."""
    if mean.shape[-1] == 1:
        normal = MultivariateNormal(mean[..., 0], DiagLinearOperator(variance[..., 0]))
        return GPyTorchPosterior(normal)
    parts = [
        MultivariateNormal(mean[..., j], DiagLinearOperator(variance[..., j]))
        for j in range(mean.shape[-1])
    ]
    return GPyTorchPosterior(MultitaskMultivariateNormal.from_independent_mvns(parts))


def rescale(posterior: Posterior, shift: Tensor, scale: Tensor) -> Posterior:
    """Posterior of ``shift + scale * f`` for (m,) shift and positive scale; keeps its family."""
    from botorch.models.transforms.outcome import Standardize

    if isinstance(posterior, MixturePosterior):
        parts = [rescale(component, shift, scale) for component in posterior.components]
        return MixturePosterior(parts, posterior.weights)
    if isinstance(posterior, ScaleMixturePosterior):
        gaussian = rescale(posterior.gaussian, shift, scale)
        return ScaleMixturePosterior(gaussian, posterior.quantile, posterior.mean_scale)
    if isinstance(posterior, FunctionSamplePosterior):
        return posterior.rescale(shift, scale)
    if isinstance(posterior, BinnedPosterior):
        return BinnedPosterior(posterior.bars.affine(shift, scale))
    outcome = Standardize(m=len(shift))
    outcome.means, outcome.stdvs = shift.unsqueeze(0), scale.unsqueeze(0)
    outcome._stdvs_sq = outcome.stdvs.square()
    outcome._is_trained = torch.tensor(True)
    return outcome.eval().untransform_posterior(posterior)


def sampler_for(posterior: Posterior, num_samples: int, seed: int) -> Any:
    """Quasi-random sampler suited to the posterior's family."""
    return get_sampler(posterior, sample_shape=torch.Size([num_samples]), seed=seed)
