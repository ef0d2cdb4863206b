"""The tables that the benchmarks fit, by name, and how they are split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Table:
    """Inputs (n, d) and outputs (n, m) of one data set, float64."""

    X: np.ndarray
    Y: np.ndarray


@dataclass(frozen=True)
class Split:
    """One task: training rows and test rows."""

    X_train: np.ndarray
    Y_train: np.ndarray
    X_test: np.ndarray
    Y_test: np.ndarray


def data_folder() -> Path:
    folder = os.environ.get("UNDERSTUDY_DATA")
    if folder is None:
        raise SystemExit("UNDERSTUDY_DATA is not set; it names the folder with the real data sets")
    return Path(folder)


def simulation(name: str) -> Table:
    """Stored runs of a real simulator."""
    folder = data_folder() / "simulations" / name
    X, Y = (
        np.genfromtxt(folder / file, delimiter=",", skip_header=1)
        for file in ("parameters.csv", "outputs.csv")
    )
    return Table(X, Y.reshape(len(X), -1))


def uci(name: str) -> Table:
    """A UCI set: the target is the last column."""
    rows = np.loadtxt(data_folder() / "uci" / f"{name}.txt")
    return Table(rows[:, :-1], rows[:, -1:])


def simulated(name: str, n: int, noise: float = 0.0) -> Table:
    """Latin hypercube runs of one of our simulators, noise in units of the outputs' spread."""
    from understudy.simulate import functions

    simulator = getattr(functions, name)()
    inputs = simulator.space.sample(n, seed=7, method="lhs")
    Y = simulator.run_many(inputs).to_numpy(dtype=float)
    Y = Y + noise * Y.std(0) * np.random.default_rng(7).standard_normal(Y.shape)
    return Table(simulator.space.encode(inputs), Y)


def smooth(n: int, d: int, m: int, features: int = 64, noise: float = 0.02) -> Table:
    r"""Random smooth functions on the unit cube, with noise.

    :math:`y_j = \sum_k a_{jk} \cos(\omega_k \cdot x + b_k)`, scaled to unit variance, with
    :math:`\omega_k \sim N(0, \mathrm{diag}(\ell)^{-2})` and :math:`\ell_i = 1 + i / 2`: the first
    inputs matter most, late ones hardly at all.
    """
    rng = np.random.default_rng(20)
    X = rng.random((n, d))
    frequencies = rng.standard_normal((d, features)) / (1.0 + np.arange(d) / 2.0)[:, None]
    waves = np.cos(X @ frequencies + rng.uniform(0.0, 2.0 * np.pi, features))
    Y = waves @ rng.standard_normal((features, m))
    Y = (Y - Y.mean(0)) / Y.std(0)
    return Table(X, Y + noise * rng.standard_normal(Y.shape))


DATASETS: dict[str, Callable[[], Table]] = {
    "yacht": partial(uci, "yacht"),
    "energy": partial(uci, "energy"),
    "concrete": partial(uci, "concrete"),
    "engineering1": partial(simulation, "engineering1"),
    "borehole": partial(simulated, "Borehole", 200),
    "projectile": partial(simulated, "Projectile", 300),
    "wing-weight": partial(simulated, "WingWeight", 400, noise=0.01),
    "cardiac1": partial(simulation, "cardiac1"),
    "cardiac3": partial(simulation, "cardiac3"),
    "wine-quality-red": partial(uci, "wine-quality-red"),
    "kin8nm": partial(uci, "kin8nm"),
    "power-plant": partial(uci, "power-plant"),
}

SMOOTH = re.compile(r"smooth-(\d+)x(\d+)x(\d+)")


def table(name: str) -> Table:
    """A named data set, or ``smooth-ROWSxINPUTSxOUTPUTS``."""
    size = SMOOTH.fullmatch(name)
    return smooth(*map(int, size.groups())) if size else DATASETS[name]()


def split(whole: Table, seed: int, max_rows: int | None = None) -> Split:
    """Shuffle by seed, test on the first fifth, train on at most ``max_rows`` of the rest."""
    order = np.random.default_rng(seed).permutation(len(whole.X))
    n_test = round(TEST_FRACTION * len(order))
    test, train = order[:n_test], order[n_test:][:max_rows]
    return Split(whole.X[train], whole.Y[train], whole.X[test], whole.Y[test])
