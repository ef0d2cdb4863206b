"""Whether a network tells digits from what is none, by the entropy of its answers."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from understudy.reproduce.sparse_digits.setting import SIZES, Study


def auroc(study: Study, model: nn.Module) -> dict[str, np.ndarray]:
    """How well the entropy tells test digits from others, by kind of others, (B,) each."""
    x = study.digits.test_x
    generator = torch.Generator().manual_seed(study.seeds[0])
    others = {
        "inverted": x.amin() + x.amax() - x,
        "permuted": x[..., torch.randperm(SIZES[0], generator=generator)],
        "noise": torch.randn(x.shape, generator=generator),
    }
    inside = entropy(study.probabilities(model, x))
    found = {}
    for kind, foreign in others.items():
        outside = entropy(study.probabilities(model, foreign))
        truth = np.repeat([0, 1], x.shape[1])
        found[kind] = np.array(
            [
                roc_auc_score(truth, np.concatenate([a, b]))
                for a, b in zip(inside.numpy(), outside.numpy(), strict=True)
            ]
        )
    return found


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy (...) in nats of probabilities (..., c)."""
    return torch.special.entr(probabilities.double()).sum(-1)
