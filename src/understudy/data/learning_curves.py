"""Learning curves of small networks on real data sets, measured once and kept with the library.

640 networks with two hidden layers of one width were trained for 50 epochs by stochastic gradient
descent, 80 on each of eight data sets; width, learning rate, batch size, momentum and dropout were
drawn at random. Accuracy and log loss are of a validation split, after each epoch.
``python -m understudy.reproduce.in_context.learning_curves`` measures them anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.data.readers import read_table

EPOCHS = 50
METRICS = ("accuracy", "log_loss")
SETTINGS = ("width", "learning_rate", "batch_size", "momentum", "dropout")
FILE = "learning_curves.csv.gz"


@dataclass(frozen=True)
class LearningCurves:
    """Curves of n networks on one data set.

    Parameters
    ----------
    data_set : str
    configs : DataFrame (n, 5)
        Width, learning rate, batch size, momentum and dropout of each network.
    accuracy : array (n, 50)
        Share of the validation rows that are classified right, after epochs 1 to 50.
    log_loss : array (n, 50)
        Mean negative log probability of the right class.
    classes : int
    """

    data_set: str
    configs: pd.DataFrame
    accuracy: NDArray[np.float64]
    log_loss: NDArray[np.float64]
    classes: int


def learning_curve_sets() -> tuple[str, ...]:
    """Names of the data sets that the curves were measured on."""
    return tuple(dict.fromkeys(_table()["data_set"]))


def load_learning_curves(data_set: str) -> LearningCurves:
    """Load the curves on one data set.

    Raises
    ------
    UserError
        If there are none on a set of that name.
    """
    names = list(learning_curve_sets())
    if data_set not in names:
        raise UserError(
            f"there are no learning curves on {data_set!r}{nearest(data_set, names)}; they are on "
            f"{', '.join(names)}"
        )
    rows = _table()[_table()["data_set"] == data_set]
    parts = {metric: rows[rows["metric"] == metric] for metric in METRICS}
    epochs = [str(t) for t in range(1, EPOCHS + 1)]
    accuracy, log_loss = (part[epochs].to_numpy(np.float64) for part in parts.values())
    configs = parts["accuracy"][list(SETTINGS)].reset_index(drop=True)
    classes = int(parts["accuracy"]["classes"].iloc[0])
    return LearningCurves(data_set, configs, accuracy, log_loss, classes)


@cache
def _table() -> pd.DataFrame:
    with as_file(files("understudy.data") / FILE) as path:
        return read_table(path)
