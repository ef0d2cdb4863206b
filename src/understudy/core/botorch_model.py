"""Any surrogate as a BoTorch model."""

from __future__ import annotations

from typing import Any

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.posteriors import Posterior
from botorch.posteriors.transformed import TransformedPosterior
from torch import Tensor

from understudy.core.surrogate import Surrogate


class SurrogateModel(Model):
    """BoTorch's face of a fitted surrogate.

    Parameters
    ----------
    surrogate : Surrogate
        Fitted; queried in the units of its training data.
    outputs : list of int, optional
        Outputs shown; all by default.
    """

    def __init__(self, surrogate: Surrogate, outputs: list[int] | None = None) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.outputs = list(range(surrogate.n_outputs_)) if outputs is None else outputs

    @property
    def num_outputs(self) -> int:
        """Number of outputs."""
        return len(self.outputs)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: one model."""
        return torch.Size()

    def subset_output(self, idcs: list[int]) -> SurrogateModel:
        """Return the model of some outputs."""
        return SurrogateModel(self.surrogate, [self.outputs[i] for i in idcs])

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
        **kwargs: Any,
    ) -> Posterior:
        """Joint posterior at X (*batch, q, d)."""
        chosen = (
            self.outputs if output_indices is None else [self.outputs[i] for i in output_indices]
        )
        posterior = self.surrogate.posterior(X, observation_noise=bool(observation_noise))
        if chosen != list(range(self.surrogate.n_outputs_)):
            posterior = _some_outputs(posterior, chosen)
        return posterior if posterior_transform is None else posterior_transform(posterior)


def _some_outputs(posterior: Posterior, outputs: list[int]) -> Posterior:
    at = torch.tensor(outputs)

    def pick(values: Tensor) -> Tensor:
        return values.index_select(-1, at)

    return TransformedPosterior(
        posterior,
        sample_transform=pick,
        mean_transform=lambda mean, variance: pick(mean),
        variance_transform=lambda mean, variance: pick(variance),
    )
