"""A surrogate beside the simulator that it stands in for: agreement and speed on unseen runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from understudy.models.tabular.fitted import FittedSurrogate

_TIMED_ROWS = 1_000


@dataclass(frozen=True)
class Comparison:
    """Simulated and predicted outputs of the same runs.

    Parameters
    ----------
    first : DataFrame
        One row a target: ``target``, ``simulated``, ``predicted``, ``lower_90`` and ``upper_90`` of
        the first run, and ``inside``, the number of runs whose value lies in its 90 % interval.
    rows : int
        Number of runs.
    simulator_seconds, surrogate_seconds : float
        Time of one run; medians.
    """

    first: pd.DataFrame
    rows: int
    simulator_seconds: float
    surrogate_seconds: float

    @property
    def coverage_90(self) -> float:
        """Share of all values that lie in their 90 % intervals."""
        return float(self.first["inside"].mean() / self.rows)

    @property
    def speed_up(self) -> float:
        """How many predictions one simulation takes the time of."""
        return self.simulator_seconds / self.surrogate_seconds


def compare_with_simulator(
    model: FittedSurrogate, runs: pd.DataFrame, seconds: pd.Series
) -> Comparison:
    """Predict runs that the surrogate has not seen, and time it.

    Parameters
    ----------
    model : FittedSurrogate
    runs : DataFrame
        Inputs, and outputs as simulated.
    seconds : Series
        What each run took to simulate.
    """
    predictions = model.predict_table(runs)
    rows = []
    for target in model.targets:
        simulated = runs[target].to_numpy()
        lower, upper = (predictions[f"{target}_{end}_90"].to_numpy() for end in ("lower", "upper"))
        rows.append(
            {
                "target": target,
                "simulated": float(simulated[0]),
                "predicted": float(predictions[f"{target}_mean"].iloc[0]),
                "lower_90": float(lower[0]),
                "upper_90": float(upper[0]),
                "inside": int(((simulated >= lower) & (simulated <= upper)).sum()),
            }
        )
    return Comparison(
        first=pd.DataFrame(rows),
        rows=len(runs),
        simulator_seconds=float(seconds.median()),
        surrogate_seconds=seconds_per_row(model, runs),
    )


def seconds_per_row(model: FittedSurrogate, table: pd.DataFrame, repeats: int = 3) -> float:
    """Time to predict one of many rows: the median of some calls on a thousand rows or more."""
    rows = model.space.encode(table).repeat(-(-_TIMED_ROWS // len(table)), axis=0)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.predict(rows)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / len(rows)


def set_last_apart(runs: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs to learn from, and the last share of them, two at least, to compare on."""
    count = max(2, round(share * len(runs)))
    return runs.iloc[:-count], runs.iloc[-count:]
