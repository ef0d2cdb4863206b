"""Write a study as one HTML page: its history, what is best, and what its trials have taught."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.models.tabular.sensitivity import sobol_indices
from understudy.report.figures import MOST_BARS, MOST_SLICES, rounded
from understudy.report.page import write_page
from understudy.report.sentences import number
from understudy.search.bayesopt.portfolio import Learnt, Portfolio

if TYPE_CHECKING:
    from understudy.search.study import Study, Trial

_LEARNT_FROM = 400  # trials, the latest
_LEAST = 6  # trials from which on a surrogate is fitted
_BEST = 12  # lines of the table of trials
_LINES = 300  # trials drawn in parallel coordinates, the best
_POINTS = 41
_NINETY = 1.6448536269514722  # deviations to either end of a Gaussian's 90 % interval
_SOBOL_ROWS = 256


def write_study_report(study: Study, path: str | Path) -> Path:
    """Write the report of a study.

    Parameters
    ----------
    study : Study
    path : str or Path
        The HTML file to write.

    Returns
    -------
    Path
        Where it was written.
    """
    trials = study.trials()
    learnt = _learn(study, trials)
    data = figure_data(study, trials, learnt)
    return write_page(Path(path), "study.html.j2", "study.js", context(study, data), data)


# -- what the trials teach -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    """A surrogate of one outcome, which speaks its units.

    The centre is the median, which a transform of the outcome carries over as it is.
    """

    space: Space
    learnt: Learnt

    def quantiles(self, X: Tensor) -> np.ndarray:
        """Median and the ends of the 90 % interval at codes X (n, d), as (3, n)."""
        predictive = self.learnt.surrogate.predictive(self.space.features(X).numpy())
        mean, sd = predictive.mean[:, 0], predictive.sd[:, 0]
        ends = [mean, mean - _NINETY * sd, mean + _NINETY * sd]
        return np.stack([self._in_units(z) for z in ends])

    def median(self, X: Tensor) -> np.ndarray:
        """Median at codes X (n, d), as (n,)."""
        mean = self.learnt.surrogate.mean(self.space.features(X).numpy())
        return self._in_units(mean[:, 0])

    def _in_units(self, z: Tensor) -> np.ndarray:
        scale = self.learnt.scale
        return np.asarray(scale.warp.inverse(z * scale.spread * scale.sign + scale.shift))


def _learn(study: Study, trials: list[Trial]) -> dict[str, _Outcome]:
    """Surrogate of each outcome that varies, of the latest trials that are done."""
    done = [trial for trial in trials if trial.outcomes][-_LEARNT_FROM:]
    if len(done) < _LEAST:
        return {}
    space = study.problem.space
    X = space.features(_codes(space, done))
    learnt = {}
    for name in study.problem.outcomes:
        y = torch.tensor([(t.outcomes or {})[name] for t in done], dtype=torch.float64)
        known = y.isfinite()
        if int(known.sum()) >= _LEAST and float(y[known].max()) > float(y[known].min()):
            learnt[name] = _Outcome(space, Portfolio().fit(X[known], y[known], 1.0))
    return learnt


def _codes(space: Space, trials: list[Trial]) -> Tensor:
    table = pd.DataFrame([trial.config for trial in trials], columns=space.names)
    return torch.from_numpy(space.encode(table))


def _slices(study: Study, trials: list[Trial], learnt: Mapping[str, _Outcome], order: Any) -> Any:
    """Curves along the inputs, the others as in the best trial."""
    space, names = study.problem.space, study.problem.outcomes
    curves = []
    for name, outcome in learnt.items():
        through = _through(study, trials, name)
        centre = _codes(space, [through])[0]
        grids = [_grid(space, k) for k in order[name][:MOST_SLICES]]
        rows = [
            centre.repeat(len(grid), 1).index_fill(1, torch.tensor(k), 0.0)
            + torch.eye(len(space), dtype=torch.float64)[k] * grid.unsqueeze(1)
            for k, grid in zip(order[name], grids, strict=False)
        ]
        found = outcome.quantiles(torch.cat(rows))
        ends = np.cumsum([len(grid) for grid in grids])[:-1]
        for k, grid, part in zip(order[name], grids, np.split(found, ends, axis=1), strict=False):
            item = space.inputs[k]
            together = rounded(part.reshape(-1))
            n = len(grid)
            curves.append(
                {
                    "target": names.index(name),
                    "input": int(k),
                    "x": [str(choice) for choice in item.choices]
                    if isinstance(item, Categorical)
                    else rounded(grid.numpy()),
                    "mean": together[:n],
                    "low": together[n : 2 * n],
                    "high": together[2 * n :],
                    "at": [float(centre[k]), (through.outcomes or {})[name]],
                }
            )
    return curves


def _grid(space: Space, k: int) -> Tensor:
    item = space.inputs[k]
    if isinstance(item, Categorical):
        return torch.arange(len(item.choices), dtype=torch.float64)
    unit = torch.linspace(0.0, 1.0, _POINTS, dtype=torch.float64)
    codes = space.from_unit(unit.unsqueeze(1).expand(-1, len(space)))[:, k]
    return codes.round().unique() if isinstance(item, Integer) else codes


def _through(study: Study, trials: list[Trial], name: str) -> Trial:
    """Best trial by an objective (by the first for a constraint), feasible if there is one."""
    objectives = {part.name: part for part in study.problem.objectives}
    by = objectives.get(name, study.problem.objectives[0])
    done = [trial for trial in trials if trial.outcomes]
    return max(done, key=lambda t: (t.feasible, by.sign * (t.outcomes or {})[by.name]))


def _sensitivity(
    study: Study, learnt: Mapping[str, _Outcome], seed: int = 0
) -> tuple[dict[str, Any] | None, dict[str, list[int]]]:
    """Sobol' indices of the outcomes' medians, and the order of the inputs by them."""
    space, names = study.problem.space, study.problem.outcomes
    order = {name: list(range(len(space))) for name in names}
    if not learnt:
        return None, order
    table = sobol_indices(
        lambda X: np.stack([outcome.median(X) for outcome in learnt.values()], axis=1),
        space,
        _SOBOL_ROWS,
        seed,
        targets=list(learnt),
    )
    parts = ("first", "first_low", "first_high", "total", "total_low", "total_high")
    found: dict[str, list[Any]] = {part: [[] for _ in names] for part in ("inputs", *parts)}
    for j, name in enumerate(names):
        if name not in learnt:
            continue
        rows = table[table["target"] == name].set_index("input").loc[space.names]
        ranked = np.argsort(-rows["total"].to_numpy(), kind="stable")
        order[name] = ranked.tolist()
        found["inputs"][j] = ranked[:MOST_BARS].tolist()
        for part in parts:
            found[part][j] = rounded(rows[part].to_numpy()[ranked[:MOST_BARS]], 3)
    return found, order


# -- what the figures draw -----------------------------------------------------------------------


def figure_data(
    study: Study, trials: list[Trial], learnt: Mapping[str, _Outcome]
) -> dict[str, Any]:
    """Collect what the figures need, as JSON-able lists."""
    problem = study.problem
    objectives = {part.name: part for part in problem.objectives}
    ended = [trial for trial in trials if trial.finished]
    sensitivity, order = _sensitivity(study, learnt)
    front = {trial.number for trial in study.front()} if len(objectives) > 1 else set()
    return {
        "outcomes": [
            {"name": name, "sign": objectives[name].sign if name in objectives else 0}
            for name in problem.outcomes
        ],
        "limits": {
            part.name: [_finite(part.lower), _finite(part.upper)] for part in problem.constraints
        },
        "inputs": [
            {
                "name": item.name,
                "unit": getattr(item, "unit", ""),
                "categorical": isinstance(item, Categorical),
                "log": isinstance(item, Continuous) and item.log,
                "choices": list(map(str, getattr(item, "choices", ()))),
                "range": [_finite(getattr(item, "lower", 0)), _finite(getattr(item, "upper", 0))],
            }
            for item in problem.space
        ],
        "trials": {
            "number": [trial.number for trial in ended],
            "values": [
                [_finite((trial.outcomes or {}).get(name)) for trial in ended]
                for name in problem.outcomes
            ],
            "feasible": [trial.feasible for trial in ended],
            "failed": [trial.state == "failed" for trial in ended],
            "front": [trial.number in front for trial in ended],
            "unit": _unit(problem.space, ended),
            "shown": _ranked(study, ended),
        },
        "sensitivity": sensitivity,
        "slices": _slices(study, trials, learnt, order),
    }


def _unit(space: Space, trials: list[Trial]) -> list[list[Any]]:
    """Inputs on the unit cube, a list for each input."""
    whole = [trial for trial in trials if len(trial.config) == len(space)]
    if not whole:
        return [[None] * len(trials) for _ in space]
    U = iter(space.to_unit(_codes(space, whole)).clamp(0.0, 1.0).numpy())
    rows = [next(U) if len(t.config) == len(space) else [None] * len(space) for t in trials]
    return [
        [None if (value := row[k]) is None else round(float(value), 4) for row in rows]
        for k in range(len(space))
    ]


def _ranked(study: Study, trials: list[Trial]) -> list[int]:
    """Positions of the trials that parallel coordinates show, best first."""
    first = study.problem.objectives[0]
    done = [i for i, trial in enumerate(trials) if trial.outcomes]

    def merit(i: int) -> tuple[bool, float]:
        return trials[i].feasible, first.sign * (trials[i].outcomes or {})[first.name]

    return sorted(done, key=merit, reverse=True)[:_LINES]


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


# -- what the text says --------------------------------------------------------------------------


def context(study: Study, data: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what the page's text and tables say, as plain values."""
    trials = study.trials()
    problem = study.problem
    count = Counter(trial.state for trial in trials)
    several = len(problem.objectives) > 1
    best = study.best()
    chosen = study.front() if several else _best(study, trials)
    seconds = [trial.seconds for trial in trials if math.isfinite(trial.seconds)]
    thought = [t.suggestion_seconds for t in trials if math.isfinite(t.suggestion_seconds)]
    return {
        "name": study.name,
        "storage": str(study.storage),
        "count": {state: count[state] for state in ("done", "failed", "running", "waiting")},
        "trials": len(trials),
        "objectives": [(part.name, part.direction) for part in problem.objectives],
        "constraints": [
            (part.name, _between(part.lower, part.upper)) for part in problem.constraints
        ],
        "several": several,
        "verdict": _verdict(study, best, len(chosen), count["done"]),
        "best": best.config if best is not None and not several else {},
        "units": {item.name: getattr(item, "unit", "") for item in problem.space},
        "outcomes": list(problem.outcomes),
        "names": problem.space.names,
        "table": [_row(trial) for trial in chosen[:_BEST]],
        "more": max(0, len(chosen) - _BEST),
        "failures": Counter(trial.reason for trial in trials if trial.reason).most_common(20),
        "seconds": float(np.mean(seconds)) if seconds else math.nan,
        "suggestion_seconds": float(np.mean(thought)) if thought else math.nan,
        "learnt": bool(data["slices"]),
        "least": _LEAST,
        "drawn": count["done"] + count["failed"] > 0,
        "lines": min(_LINES, count["done"]),
        "inputs": [_input(item) for item in problem.space],
    }


def _best(study: Study, trials: list[Trial]) -> list[Trial]:
    first = study.problem.objectives[0]
    done = [trial for trial in trials if trial.outcomes]
    return sorted(
        done, key=lambda t: (not t.feasible, -first.sign * (t.outcomes or {})[first.name])
    )


def _verdict(study: Study, best: Trial | None, front: int, done: int) -> str:
    if not done:
        return "No trial has given a result yet."
    if best is None or best.outcomes is None:
        return f"None of the {done} trials that are done satisfies every constraint."
    if len(study.problem.objectives) > 1:
        return f"{front} of {done} trials are not beaten in every objective: the Pareto front."
    objective = study.problem.objectives[0]
    kind = "smallest" if objective.direction == "minimize" else "largest"
    feasible = " that satisfies the constraints" if study.problem.constraints else ""
    value = number(best.outcomes[objective.name], 5)
    return f"The {kind} {objective.name}{feasible} is {value}, of trial {best.number}."


def _between(lower: float, upper: float) -> str:
    if math.isinf(lower):
        return f"at most {upper:g}"
    return f"at least {lower:g}" if math.isinf(upper) else f"{lower:g} to {upper:g}"


def _row(trial: Trial) -> dict[str, Any]:
    cells = {
        name: number(value, 4) if isinstance(value, float) else str(value)
        for name, value in trial.config.items()
    }
    values = {name: number(value, 5) for name, value in (trial.outcomes or {}).items()}
    return {"number": trial.number, "feasible": trial.feasible, "inputs": cells, "outcomes": values}


def _input(item: Any) -> dict[str, str]:
    if isinstance(item, Categorical):
        return {"name": item.name, "range": ", ".join(map(str, item.choices)), "unit": ""}
    return {"name": item.name, "range": f"{item.lower:g} to {item.upper:g}", "unit": item.unit}
