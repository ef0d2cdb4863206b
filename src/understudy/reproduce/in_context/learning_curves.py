"""Measure the learning curves that `understudy.data.learning_curves` keeps.

``python -m understudy.reproduce.in_context.learning_curves [FILE]`` trains the networks and writes
the table; by default it replaces the one in the library. It takes some minutes. Three data sets
come with scikit-learn; the others are read from the folder that ``UNDERSTUDY_DATA`` names
(``classification/*.txt`` in LIBSVM's format and the test images of MNIST in
``vision/mnist-t10k-*-ubyte.gz``, of which 2000 are taken and pixels averaged two by two).

All networks of a batch size are trained at once: parameters are stacked, and units beyond a
network's width are switched off.
"""

from __future__ import annotations

import gzip
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_digits, load_svmlight_file, load_wine
from sklearn.model_selection import train_test_split
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.linalg import one_thread
from understudy.data.learning_curves import EPOCHS, FILE, METRICS, SETTINGS

SEED = 2023
CONFIGS = 80
VALIDATION = 0.3
BATCH_SIZES = (32, 64, 128, 256)
_DIGITS = 4
_IMAGES = 2000

Table = tuple[np.ndarray, np.ndarray]


def _libsvm(name: str) -> Callable[[], Table]:
    def load() -> Table:
        X, y = load_svmlight_file(str(_file(f"classification/{name}.txt")))
        return X.toarray(), y

    return load


def _mnist() -> Table:
    """The first 2000 images, of 14 x 14 averaged pixels."""
    images, labels = (
        np.frombuffer(gzip.decompress(_file(f"vision/mnist-t10k-{part}.gz").read_bytes()), "u1")
        for part in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    pixels = images[16:].reshape(-1, 14, 2, 14, 2).mean((2, 4))[:_IMAGES]
    return pixels.reshape(_IMAGES, -1), labels[8 : 8 + _IMAGES]


SETS: dict[str, Callable[[], Table]] = {
    "digits": lambda: load_digits(return_X_y=True),
    "breast-cancer": lambda: load_breast_cancer(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "adult": _libsvm("a1a"),
    "diabetes": _libsvm("diabetes"),
    "german": _libsvm("german.numer"),
    "splice": _libsvm("splice"),
    "mnist": _mnist,
}


def _file(path: str) -> Path:
    folder = os.environ.get("UNDERSTUDY_DATA")
    found = Path(folder or "", path)
    if not folder or not found.exists():
        raise UserError(f"set UNDERSTUDY_DATA to a folder that holds {path}")
    return found


# -- networks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Configs:
    """Settings of C networks, each a tensor (C,)."""

    width: Tensor
    learning_rate: Tensor
    batch_size: Tensor
    momentum: Tensor
    dropout: Tensor

    def __getitem__(self, index: Tensor) -> Configs:
        return Configs(*(getattr(self, name)[index] for name in SETTINGS))


def draw_configs(count: int, generator: torch.Generator) -> Configs:
    """Draw the settings.

    Width in 4 to 64 and learning rate in 1e-4 to 0.5 log-uniform, batch size
    one of 32, 64, 128, 256, momentum uniform up to 0.95, dropout up to 0.6.
    """
    u = torch.rand(5, count, generator=generator)
    sizes = torch.tensor(BATCH_SIZES)
    return Configs(
        width=(4.0 * 16.0 ** u[0]).round().long(),
        learning_rate=1e-4 * 5000.0 ** u[1],
        batch_size=sizes[(u[2] * len(sizes)).long()],
        momentum=0.95 * u[3],
        dropout=0.6 * u[4],
    )


class Networks:
    """C networks with two hidden layers, as stacked parameters.

    Parameters
    ----------
    configs : Configs
    inputs, classes : int
    generator : torch.Generator
        Of the initial weights and of dropout.
    """

    def __init__(
        self, configs: Configs, inputs: int, classes: int, generator: torch.Generator
    ) -> None:
        self._generator = generator
        self._keep = (1.0 - configs.dropout).view(-1, 1, 1)
        most = int(configs.width.max())
        self._active = (torch.arange(most) < configs.width.unsqueeze(1)).float().unsqueeze(1)
        width = configs.width.float().view(-1, 1, 1)
        fan_in = (torch.full_like(width, inputs), width, width)
        shapes = ((inputs, most), (most, most), (most, classes))
        self.parameters = []
        for fan, (rows, columns) in zip(fan_in, shapes, strict=True):
            W = torch.randn(len(width), rows, columns, generator=generator)
            b = torch.zeros(len(width), 1, columns)
            self.parameters += [W * (2.0 / fan).sqrt(), b]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def __call__(self, X: Tensor, training: bool = False) -> Tensor:
        """Logits (C, n, classes) at rows X (C, n, inputs) or (n, inputs)."""
        *hidden, (W, b) = zip(self.parameters[::2], self.parameters[1::2], strict=True)
        h = X
        for V, c in hidden:
            h = torch.relu(h @ V + c) * self._active
            if training:
                kept = torch.rand(h.shape, generator=self._generator) < self._keep
                h = h * kept / self._keep
        return h @ W + b


def train(
    configs: Configs, train_set: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], seed: int
) -> Tensor:
    """Train networks of one batch size for 50 epochs by gradient descent with momentum.

    Parameters
    ----------
    configs : Configs
        Of C networks.
    train_set, validation : pair of Tensor (n, inputs) and (n,)
    seed : int

    Returns
    -------
    Tensor (2, C, 50)
        Accuracy and log loss on the validation rows after each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    X, y = train_set
    classes = int(torch.cat([y, validation[1]]).max()) + 1
    networks = Networks(configs, X.shape[1], classes, generator)
    velocity = [torch.zeros_like(parameter) for parameter in networks.parameters]
    rate, momentum = (v.view(-1, 1, 1) for v in (configs.learning_rate, configs.momentum))
    scores = []
    for _ in range(EPOCHS):
        order = torch.rand(len(rate), len(X), generator=generator).argsort(1)
        for rows in order.split(int(configs.batch_size[0]), dim=1):
            loss = _log_loss(networks(X[rows], training=True), y[rows]).sum()
            gradients = torch.autograd.grad(loss, networks.parameters)
            with torch.no_grad():
                for p, v, g in zip(networks.parameters, velocity, gradients, strict=True):
                    p -= rate * v.mul_(momentum).add_(g)
        scores.append(_scores(networks, *validation))
    return torch.stack(scores, dim=-1)


def _log_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Mean negative log probability (C,) of classes y (C, n) or (n,)."""
    y = y.expand(logits.shape[:-1])
    return F.cross_entropy(logits.movedim(-1, 1), y, reduction="none").mean(1)


@torch.no_grad()
def _scores(networks: Networks, X: Tensor, y: Tensor) -> Tensor:
    logits = networks(X)
    accuracy = (logits.argmax(-1) == y).float().mean(1)
    return torch.stack([accuracy, _log_loss(logits, y)])


# -- table ----------------------------------------------------------------------------------------


def measure(name: str, configs: int = CONFIGS, seed: int = SEED) -> pd.DataFrame:
    """Train networks on a data set; a row for each network and metric, a column for each epoch.

    Networks that diverged, whose log loss is not finite, are left out.
    """
    X, y = SETS[name]()
    codes = np.unique(y, return_inverse=True)[1]
    parts = train_test_split(X, codes, test_size=VALIDATION, stratify=codes, random_state=seed)
    A, B, a, b = (torch.from_numpy(np.asarray(part)) for part in parts)
    mean, sd = A.double().mean(0), A.double().std(0)
    sd = torch.where(sd > 0, sd, 1.0)
    A, B = (((part - mean) / sd).float() for part in (A, B))
    drawn = draw_configs(configs, torch.Generator().manual_seed(seed))
    scores = torch.empty(len(METRICS), configs, EPOCHS)
    for size in drawn.batch_size.unique():
        (index,) = (drawn.batch_size == size).nonzero(as_tuple=True)
        scores[:, index] = train(drawn[index], (A, a), (B, b), seed + int(size))
    return pd.concat(_rows(name, drawn, scores, int(codes.max()) + 1), ignore_index=True)


def _rows(name: str, configs: Configs, scores: Tensor, classes: int) -> Iterator[pd.DataFrame]:
    finite = scores.isfinite().all(-1).all(0).numpy()
    settings = pd.DataFrame({key: getattr(configs, key).numpy() for key in SETTINGS})
    for column in ("learning_rate", "momentum", "dropout"):
        settings[column] = [float(f"{value:.4g}") for value in settings[column]]
    for metric, values in zip(METRICS, scores, strict=True):
        epochs = pd.DataFrame(
            values.double().numpy().round(_DIGITS), columns=[str(t + 1) for t in range(EPOCHS)]
        )
        head = pd.DataFrame(
            {"data_set": name, "classes": classes, "metric": metric}, settings.index
        )
        yield pd.concat([head, settings, epochs], axis=1)[finite]


def main(arguments: list[str]) -> None:
    """Measure all curves and write them to the path given, or into the library."""
    path = Path(arguments[0]) if arguments else Path(__file__).parents[2] / "data" / FILE
    with one_thread():
        tables = []
        for name in SETS:
            print(f"{name}: training {CONFIGS} networks", file=sys.stderr, flush=True)
            tables.append(measure(name))
    table = pd.concat(tables, ignore_index=True)
    if not math.isfinite(float(table["50"].sum())):
        raise RuntimeError("a curve is not finite")
    table.to_csv(path, index=False, compression={"method": "gzip", "mtime": 0})
    print(f"{path}: {len(table)} curves", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
