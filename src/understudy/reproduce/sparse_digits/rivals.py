"""What SSVI is compared with: pruning, fine-tuned or not, and the counts of a large network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from understudy.nn.sparse_bayesian import sparse_layers, support_size
from understudy.nn.sparse_compact import LayerFlops
from understudy.nn.sparse_subspace import removal_scores
from understudy.reproduce.sparse_digits.setting import DENSITIES, Study


@torch.no_grad()
def pruned_to(study: Study, dense: nn.Module, density: float) -> nn.Module:
    """Keep the weights of the highest score in every layer of a dense network."""
    model = study.network(density)
    for target, source in zip(
        sparse_layers(model).values(), sparse_layers(dense).values(), strict=True
    ):
        scores = source.flat(removal_scores("snr_abs", source.mu, source.sigma))
        best = scores.topk(target.active, dim=1).indices
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
        target.set_support(mask.reshape(target.mask.shape))
        for name in ("mu", "rho"):
            getattr(target, name).copy_(getattr(source, name) * target.mask)
        if target.bias is not None and source.bias is not None:
            target.bias.copy_(source.bias)
    return model.eval()


def fine_tuned(study: Study) -> dict[float, np.ndarray]:
    """Accuracy by density of pruning three quarters through the epochs."""
    later = max(study.size.epochs // 4, 1)
    dense = study.trained(1.0, epochs=max(study.size.epochs - later, 1))
    found = {}
    for density in DENSITIES:
        model = pruned_to(study, dense, density)
        training = replace(study.training, epochs=later, alpha=0.0)
        training.fit(model, study.digits.x, study.digits.y)
        found[density] = study.score(model).accuracy
    return found


def resnet18(density: float) -> tuple[LayerFlops, ...]:
    """Layers of ResNet-18 with the stem for 32 x 32 images; the stem stays dense."""
    shapes, inputs = [(3, 64, 9, 32 * 32)], 64
    for width, side in ((64, 32), (128, 16), (256, 8), (512, 4)):
        if width != inputs:
            shapes.append((inputs, width, 1, side * side))
        shapes.append((inputs, width, 9, side * side))
        shapes += [(width, width, 9, side * side)] * 3
        inputs = width
    shapes.append((512, 10, 1, 1))
    layers = []
    for number, (i, o, kernel, positions) in enumerate(shapes):
        weights = i * o * kernel
        active = weights if number == 0 else support_size(weights, density)
        layers.append(LayerFlops(str(number), weights, active, positions))
    return tuple(layers)
