"""What a sparse Bayesian network costs: its size on disk, and the arithmetic of training it.

A layer with n weights of which a are active is stored as one bit a weight, which says where the
active ones are, and two float32 numbers (mean and raw deviation) an active weight: n / 8 + 8 a
bytes, against 8 n for dense mean-field inference. Whole numbers for columns would cost 4 a bytes
instead of n / 8, which is more above a density of 1/32. A dense layer has no bits.

The file has no code in it, so it does not know the network's architecture: loading fills a network
that was made in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from understudy.core import artifact
from understudy.core.artifact import ArtifactError
from understudy.core.errors import UserError
from understudy.nn.sparse_bayesian import SparseBayesianLayer, evaluating, sparse_layers

KIND = "sparse-bayesian-network"
_OWN = ("mean", "raw_deviation", "support")


@dataclass(frozen=True)
class CompactLayer:
    """Name, shape of the means (with stacked networks first) and number of active weights."""

    name: str
    shape: tuple[int, ...]
    active: int

    @property
    def weights(self) -> int:
        """Number of positions."""
        return int(np.prod(self.shape))

    @property
    def is_dense(self) -> bool:
        """Whether all positions are active, so that none needs a bit."""
        return self.active == self.weights


@dataclass(frozen=True)
class CompactNetwork:
    """A sparse Bayesian network without the weights that it does not have.

    Parameters
    ----------
    layers : tuple of CompactLayer
    mean, raw_deviation : Tensor (active,)
        Of the active weights of all layers, in order.
    support : ByteTensor (bytes,)
        Bits of the layers that are not dense, each from a byte of its own, first weight highest.
    others : mapping of str to Tensor
        Biases, normalisation and whatever else the network's state holds.
    """

    layers: tuple[CompactLayer, ...]
    mean: Tensor
    raw_deviation: Tensor
    support: Tensor
    others: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name; with `layers` all there is."""
        own = {name: getattr(self, name) for name in _OWN}
        return own | {f"other.{name}": value for name, value in self.others.items()}

    @classmethod
    def from_tensors(
        cls, layers: tuple[CompactLayer, ...], tensors: Mapping[str, Tensor]
    ) -> CompactNetwork:
        """Return what `tensors` described, refused where it contradicts itself."""
        try:
            mean, deviation, support = (tensors[name] for name in _OWN)
        except KeyError as error:
            raise ArtifactError(f"the network has no tensor {error.args[0]!r}") from error
        others = {
            name.removeprefix("other."): value
            for name, value in tensors.items()
            if name.startswith("other.")
        }
        network = cls(layers, mean, deviation, support, others)
        network._check()
        return network

    def _check(self) -> None:
        active = sum(layer.active for layer in self.layers)
        size = sum(-(-layer.weights // 8) for layer in self.layers if not layer.is_dense)
        if self.mean.shape != (active,) or self.raw_deviation.shape != (active,):
            raise ArtifactError(
                f"the layers have {active} active weights, but there are {len(self.mean)} means "
                f"and {len(self.raw_deviation)} deviations"
            )
        if self.support.shape != (size,) or self.support.dtype != torch.uint8:
            raise ArtifactError(f"the support takes {size} bytes, found {self.support.numel()}")
        for layer, mask in zip(self.layers, self.masks(), strict=True):
            if int(mask.sum()) != layer.active:
                raise ArtifactError(
                    f"layer {layer.name!r} has {layer.active} active weights, its support "
                    f"{int(mask.sum())}"
                )

    def masks(self) -> list[Tensor]:
        """Support of each layer, of its shape."""
        found, at = [], 0
        for layer in self.layers:
            if layer.is_dense:
                found.append(torch.ones(layer.shape, dtype=torch.bool))
                continue
            length = -(-layer.weights // 8)
            bits = np.unpackbits(self.support[at : at + length].numpy(), count=layer.weights)
            found.append(torch.from_numpy(bits.astype(bool)).reshape(layer.shape))
            at += length
        return found

    def fill(self, model: nn.Module) -> nn.Module:
        """Give a network of the same architecture these weights, and return it.

        Raises
        ------
        ArtifactError
            If its layers or the rest of its state differ.
        """
        layers = sparse_layers(model)
        mine = {layer.name: (layer.shape, layer.active) for layer in self.layers}
        theirs = {name: (tuple(m.mu.shape), len(m.index)) for name, m in layers.items()}
        if mine != theirs:
            raise ArtifactError(f"the file holds layers {mine}, the network has {theirs}")
        sizes = [layer.active for layer in self.layers]
        state = dict(self.others)
        for layer, mask, mean, deviation in zip(
            self.layers,
            self.masks(),
            self.mean.split(sizes),
            self.raw_deviation.split(sizes),
            strict=True,
        ):
            for key, values in (("mu", mean), ("rho", deviation)):
                dense = torch.zeros(layer.shape, dtype=values.dtype)
                state[_key(layer.name, key)] = dense.masked_scatter_(mask, values)
            state[_key(layer.name, "mask")] = mask
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ArtifactError(f"the network has another architecture: {error}") from error
        return model

    def save(self, path: str | Path) -> Path:
        """Write a ``.us`` file."""
        layers = [[layer.name, list(layer.shape), layer.active] for layer in self.layers]
        return artifact.write(path, {"kind": KIND, "layers": layers}, self.tensors())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote.

        Raises
        ------
        ArtifactError
            If it is no such file.
        """
        content = artifact.read(path)
        if content.manifest["kind"] != KIND:
            raise ArtifactError(f"{path} holds a {content.manifest['kind']}, not a {KIND}")
        layers = _layers(path, content.manifest.get("layers"))
        found = cls.from_tensors(layers, content.tensors)
        assert isinstance(found, cls)
        return found


def _layers(path: str | Path, described: Any) -> tuple[CompactLayer, ...]:
    try:
        found = tuple(
            CompactLayer(str(name), tuple(int(side) for side in shape), int(active))
            for name, shape, active in described
        )
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path} does not describe its layers") from error
    for layer in found:
        if min(layer.shape, default=0) < 1 or not 0 < layer.active <= layer.weights:
            raise ArtifactError(f"{path} describes an impossible layer {layer.name!r}")
    return found


def _key(layer: str, tensor: str) -> str:
    return f"{layer}.{tensor}" if layer else tensor


def to_compact(model: nn.Module) -> CompactNetwork:
    """Take out of a network what has to be kept: active weights, where they are, and the rest."""
    layers = sparse_layers(model)
    own = {_key(name, key) for name in layers for key in ("mu", "rho", "mask")}
    parts = list(layers.values())
    bits = [np.packbits(m.mask.cpu().numpy().reshape(-1)) for m in parts if not _is_dense(m)]
    support = np.concatenate([np.zeros(0, dtype=np.uint8), *bits])
    return CompactNetwork(
        layers=tuple(
            CompactLayer(name, tuple(m.mu.shape), len(m.index)) for name, m in layers.items()
        ),
        mean=torch.cat([m.on_support(m.mu.detach()) for m in parts]).cpu(),
        raw_deviation=torch.cat([m.on_support(m.rho.detach()) for m in parts]).cpu(),
        support=torch.from_numpy(support),
        others={k: v.detach().cpu() for k, v in model.state_dict().items() if k not in own},
    )


def _is_dense(layer: SparseBayesianLayer) -> bool:
    return len(layer.index) == layer.mask.numel()


# -- arithmetic -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerFlops:
    """A layer's weights, those active, and the output positions that share them (1 if linear)."""

    name: str
    weights: int
    active: int
    positions: int


@dataclass(frozen=True)
class FlopsReport:
    r"""Floating-point operations of sparse and of dense training, counted for one row.

    A step multiplies by means and by variances, forwards, and each twice backwards: 6 products,
    and 12 operations an active weight and position. Every `delta` steps the gradient of the means
    is taken at all weights, which adds 2 for each that is not active. Elementwise work is left out
    on both sides, as is the input gradient that the first layer does not need.

    Parameters
    ----------
    layers : tuple of LayerFlops
    delta : int, optional
        Steps between dense gradients; None for a support that stays.
    """

    layers: tuple[LayerFlops, ...]
    delta: int | None

    @property
    def density(self) -> float:
        """Share of all weights that is active."""
        return sum(p.active for p in self.layers) / sum(p.weights for p in self.layers)

    @property
    def dense_training(self) -> float:
        """Operations of a step of dense mean-field inference."""
        return float(sum(12 * p.weights * p.positions for p in self.layers))

    @property
    def training(self) -> float:
        """Operations of a step, with its share of the dense gradients."""
        inside = sum(12 * p.active * p.positions for p in self.layers)
        outside = sum(2 * (p.weights - p.active) * p.positions for p in self.layers)
        return inside + (outside / self.delta if self.delta else 0.0)

    @property
    def ratio(self) -> float:
        """How many times fewer than dense training takes."""
        return self.dense_training / self.training


@torch.no_grad()
def flops_report(model: nn.Module, example: Tensor, delta: int | None = 100) -> FlopsReport:
    """Count the arithmetic of training a sparse Bayesian network.

    It is what sparse arithmetic would take: the layers here emulate it with dense tensors and are
    no faster than dense ones.

    Parameters
    ----------
    model : nn.Module
    example : Tensor (n, ...)
        Rows as the model takes them, which tell how often a convolution's weights are used.
    delta : int, optional
        Steps between dense gradients, as the scheduler has them.
    """
    if delta is not None and delta < 1:
        raise UserError(f"delta must be at least 1, got {delta}")
    layers, positions = sparse_layers(model), dict[str, int]()
    hooks = [
        layer.register_forward_hook(_count_into(positions, name)) for name, layer in layers.items()
    ]
    try:
        with evaluating(model):
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return FlopsReport(
        tuple(
            LayerFlops(name, layer.flat(layer.mask).shape[1], layer.active, positions.get(name, 0))
            for name, layer in layers.items()
        ),
        delta,
    )


def _count_into(positions: dict[str, int], name: str) -> Any:
    def hook(layer: SparseBayesianLayer, inputs: object, output: Tensor) -> None:
        spatial = output.shape[-2] * output.shape[-1] if layer.mu.ndim >= 4 else 1
        positions[name] = positions.get(name, 0) + spatial

    return hook
