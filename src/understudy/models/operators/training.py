"""How operators are trained and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.loop import Event, Outcome, Settings, Trainer, cosine
from understudy.models.operators.network import FieldNetwork, build
from understudy.nn.soap import SOAP, groups_of

KIND = "operator"

Listener = Callable[[Event], None]
"""Is told of every step."""


@dataclass(frozen=True)
class Training:
    """For how long and how an operator is trained.

    Parameters
    ----------
    steps : int
        Optimiser steps at most.
    batch_size : int
    learning_rate : float
        Of the optimiser, falling to `floor` times it along half a cosine after a share `warmup`
        of the run.
    weight_decay : float
        Of Adam, coupled (an L2 term of the gradient); of SOAP, decoupled.
    ema_decay : float, optional
        Of the moving average of the weights, which is what is kept.
    clip_norm : float, optional
    max_seconds : float, optional
        Wall time at most; the schedule anneals within it.
    device : {"cpu", "cuda"}
        Where the network and the data are put.
    checkpoint : Path, optional
        File from which a run that was cut off goes on.
    optimizer : {"adam", "soap", "soap-kernels"}
        SOAP (:class:`~understudy.nn.soap.SOAP`) needs fewer steps where losses are ill-conditioned,
        as those of residuals of equations are. It sees weights as stacks of matrices, or, with
        ``"soap-kernels"``, a kernel of a convolution as one matrix.
    """

    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: float = 0.02
    floor: float = 0.01
    ema_decay: float | None = 0.995
    clip_norm: float | None = 1.0
    max_seconds: float | None = None
    validate_every: int = 200
    seed: int = 0
    device: str = "cpu"
    checkpoint: Path | None = None
    interrupt: Literal["raise", "return"] = "return"
    optimizer: Literal["adam", "soap", "soap-kernels"] = "adam"

    def run(
        self,
        network: nn.Module,
        loss: Callable[[int], Tensor],
        validate: Callable[[], Tensor] | None = None,
        listener: Listener | None = None,
    ) -> Outcome:
        """Train a network on its device; `loss` takes the step, `validate` gives a score."""
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer: Any
        if self.optimizer != "adam":
            groups = groups_of(network) if self.optimizer == "soap-kernels" else trained
            optimizer = SOAP(groups, self.learning_rate, weight_decay=self.weight_decay)
        else:
            optimizer = torch.optim.Adam(
                trained, self.learning_rate, weight_decay=self.weight_decay, foreach=True
            )
        settings = Settings(
            max_steps=self.steps,
            max_seconds=self.max_seconds,
            schedule=cosine(warmup=self.warmup, floor=self.floor),
            clip_norm=self.clip_norm,
            ema_decay=self.ema_decay,
            validate_every=self.validate_every,
            interrupt=self.interrupt,
            checkpoint=self.checkpoint,
        )
        trainer = Trainer(network, optimizer, settings)
        if self.checkpoint is not None and self.checkpoint.exists():
            trainer.resume(self.checkpoint)
        network.train()
        outcome = trainer.run(loss, validate, listener)
        network.eval()
        return outcome


def save_operator(
    path: str | Path,
    model: str,
    network: FieldNetwork,
    grid: Grid,
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> Path:
    """Write a trained operator to a ``.us`` file: JSON and tensors, no code."""
    manifest = {
        "kind": KIND,
        "model": model,
        "network": network.describe(),
        "settings": dict(settings),
        "grid": {
            "shape": list(grid.shape),
            "lower": list(grid.lower),
            "upper": list(grid.upper),
            "placement": grid.placement,
        },
    }
    weights: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        real = torch.view_as_real(value) if value.is_complex() else value
        weights[f"network.{name}"] = real
    return artifact.write(path, manifest, {**weights, **tensors})


@dataclass(frozen=True)
class Stored:
    """What :func:`read_operator` found."""

    model: str
    network: FieldNetwork
    grid: Grid
    settings: dict[str, Any]
    tensors: dict[str, Tensor]


def read_operator(path: str | Path, model: str | None = None) -> Stored:
    """Read what :func:`save_operator` wrote; with `model`, that of another kind is refused.

    Raises
    ------
    UserError
        If the file holds something else, or parts that do not fit.
    """
    stored = artifact.read(path)
    if stored.manifest.get("kind") != KIND:
        raise UserError(f"{path} holds a {stored.manifest.get('kind')!r}, not an operator")
    try:
        shape = stored.manifest["grid"]
        grid = Grid(
            tuple(shape["shape"]), tuple(shape["lower"]), tuple(shape["upper"]), shape["placement"]
        )
        network = build(stored.manifest["network"])
        kind, settings = stored.manifest["model"], stored.manifest["settings"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: its description lacks {error}") from error
    weights, rest = {}, {}
    own = network.state_dict()
    for name, value in stored.tensors.items():
        part, _, key = name.partition(".")
        if part != "network":
            rest[name] = value
        elif key in own and own[key].is_complex():
            weights[key] = torch.view_as_complex(value.contiguous())
        else:
            weights[key] = value
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path} is damaged: its weights do not fit its network") from error
    if model is not None and kind != model:
        raise UserError(f"{path} holds a {kind!r}, not a {model!r}")
    network.eval()
    return Stored(kind, network, grid, settings, rest)
