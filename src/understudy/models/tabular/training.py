"""How a `FittedSurrogate` learns: transforms, race, stack, calibration, evaluation."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

import understudy
from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.progress import Listener, Progress, Standing
from understudy.core.space import Continuous, Space, nearest
from understudy.core.warp import Warp, WarpedPredictive
from understudy.data.table import Table
from understudy.models.tabular import stacking
from understudy.models.tabular.conformal import Conformal, temperature
from understudy.models.tabular.evaluation import evaluation_table, held_out_table
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.models.tabular.outputs import choose_warps
from understudy.models.tabular.portfolio import PORTFOLIO, Candidate
from understudy.models.tabular.race import Contender, Race, assign_folds
from understudy.models.tabular.scales import choose_scales

METRICS = ("nlpd", "rmse", "crps")
CALIBRATIONS = ("cross-validation", "split")
_SCALES_SHARE = 0.1  # of the budget, for the scales of inputs
_SPLIT_SHARE = 0.2
_SPLIT_ROWS = 2_000
_LEAST_SPLIT = 60
_KEPT_ROWS = 2_000
_NESTED_FOLDS = 5
_FACTORS = torch.logspace(-0.5, 1.0, 61, base=10.0, dtype=torch.float64)


@dataclass(frozen=True)
class Unseen:
    """Test rows: inputs X (n, d) in code units, outputs Y (n, m), row numbers (n,)."""

    X: NDArray[np.float64]
    Y: NDArray[np.float64]
    rows: NDArray[np.int_]


def train(
    model: FittedSurrogate,
    table: Table,
    test: Unseen | None = None,
    listener: Listener | None = None,
    source: str = "DataFrame",
) -> FittedSurrogate:
    """Fit the model to a prepared table and evaluate it on unseen rows."""
    candidates = chosen_candidates(model)
    start = time.monotonic()
    report = _Reporter(listener, start, model.budget)
    table, calibration = _set_aside(table, model)

    report("transform", "choosing scales of inputs and outputs")
    seconds = _SCALES_SHARE * model.budget
    space, notes = choose_scales(table.space, table.X, table.Y, model.seed, seconds)
    table = replace(table, space=space, warnings=(*table.warnings, *notes))
    X = table.space.features(torch.from_numpy(table.X)).numpy()
    warps = choose_warps(X, table.Y, model.seed)
    Z = torch.stack(
        [w.forward(torch.from_numpy(table.Y[:, j])) for j, w in enumerate(warps)], dim=1
    )
    report("candidates", "cross-validating the portfolio")
    folds = assign_folds(table.X, model.seed)
    deadline = start + model.budget
    race = Race(X, Z.numpy(), folds, deadline, model.seed, report.standings)
    contenders = race.run(candidates)

    report("stack", "weighting the models")
    held = folds >= 0
    blend = _Blend.learn(contenders, Z[held], warps, table.Y[held], model.metric, model.seed)

    report("calibrate", "calibrating intervals")
    used = [j for j in range(len(contenders)) if bool((blend.weights[j] > 0).any())]
    model._become(
        space=table.space,
        fill=dict(table.fill),
        targets=table.targets,
        members=[(contenders[j].name, contenders[j].surrogate) for j in used],
        weights=blend.weights[used],
        warps=warps,
        factor=blend.factor,
        conformal=blend.conformal,
        one_dimensional=getattr(model, "_one_dimensional", False),
    )
    if calibration is not None:
        blend = blend.recalibrated(model.calibrate(calibration.X, calibration.Y))
    report("test", "scoring unseen rows")
    parts = [blend.held_out(table.targets, table.Y[held], table.rows[held], warps)]
    if test is not None:
        parts.append(_tested(model, test))
    whole = pd.concat(parts, ignore_index=True)
    model.evaluation = evaluation_table(whole, model.seed)
    model.held_out = _at_most(whole, _KEPT_ROWS, model.seed)
    model.training = _training_frame(table, model.held_out, model.seed)
    model.leaderboard = _leaderboard(race, blend, Z[held], warps, table.Y[held], X)
    model.notes = tuple(table.warnings)
    model.settings = _settings(model, table, source, time.monotonic() - start, race.interrupted)
    report("done", "interrupted: the best so far is kept" if race.interrupted else "")
    return model


def train_on_arrays(
    model: FittedSurrogate, X: NDArray[np.float64], y: NDArray[np.float64]
) -> FittedSurrogate:
    """Fit the model to plain arrays, named x0, x1, ... and y0, y1, ..."""
    X, Y = (np.require(part, requirements=["C", "W"]) for part in (X, y.reshape(len(X), -1)))
    lower, upper = X.min(0), X.max(0)
    upper = np.where(upper > lower, upper, lower + 1.0)
    bounds = zip(lower.tolist(), upper.tolist(), strict=True)
    names = getattr(model, "feature_names_in_", [f"x{k}" for k in range(X.shape[1])])
    space = Space(
        tuple(Continuous(str(n), lo, hi) for n, (lo, hi) in zip(names, bounds, strict=True))
    )
    table = Table(
        space=space,
        X=X,
        Y=Y,
        targets=tuple(f"y{j}" for j in range(Y.shape[1])),
        rows=np.arange(len(X)),
        warnings=(),
        fill=dict(zip(map(str, names), np.median(X, axis=0).tolist(), strict=True)),
    )
    return train(model, table)


def _set_aside(table: Table, model: FittedSurrogate) -> tuple[Table, Unseen | None]:
    """Rows to learn from, and those that only calibrate where intervals are split conformal."""
    if model.calibration == "cross-validation":
        return table, None
    rows = len(table.X)
    if rows < _LEAST_SPLIT:
        raise UserError(
            f"split calibration needs {_LEAST_SPLIT} rows, found {rows}; "
            "calibrate by cross-validation"
        )
    return split_table(table, min(round(_SPLIT_SHARE * rows), _SPLIT_ROWS), model.seed + 1)


def split_table(table: Table, count: int, seed: int) -> tuple[Table, Unseen]:
    """Set ``count`` random rows of a table apart from the others."""
    order = np.random.default_rng(seed).permutation(len(table.X))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    apart = Unseen(table.X[held], table.Y[held], table.rows[held])
    return replace(table, X=table.X[kept], Y=table.Y[kept], rows=table.rows[kept]), apart


@dataclass(frozen=True)
class _Blend:
    """The stack in transformed units: final weights, and what rows not seen by them would get."""

    weights: Tensor
    factor: Tensor
    conformal: Conformal
    unseen: Predictive
    bounds: tuple[Tensor, Tensor]

    @classmethod
    def learn(
        cls,
        contenders: list[Contender],
        z: Tensor,
        warps: tuple[Warp, ...],
        Y: NDArray[np.float64],
        metric: str,
        seed: int,
    ) -> _Blend:
        """Weights on all held-out rows, and on nested folds of them for an honest evaluation."""
        parts = [contender.out_of_fold for contender in contenders]
        learner = _weight_learner(parts, z, warps, torch.from_numpy(Y), metric)
        rows = len(z)
        nested = np.random.default_rng(seed).permutation(rows) % min(_NESTED_FOLDS, rows)
        stacked = torch.empty(len(parts), rows, z.shape[1], dtype=z.dtype)
        single = torch.empty_like(stacked)
        for fold in np.unique(nested):
            inside = torch.from_numpy(np.flatnonzero(nested != fold))
            outside = torch.from_numpy(np.flatnonzero(nested == fold))
            stacked[:, outside] = learner.stack(inside).unsqueeze(1)
            single[:, outside] = learner.single(inside).unsqueeze(1)
        stack_wins = learner.loss(stacked) < learner.loss(single)
        everything = torch.arange(rows)
        weights = torch.where(stack_wins, learner.stack(everything), learner.single(everything))
        blended = _mixture(parts, torch.where(stack_wins, stacked, single))
        factor = _spread(blended, z)
        unseen = blended.widened(factor)
        cdf = unseen.cdf(z)
        conformal = Conformal.calibrate(cdf)
        low = torch.empty(len(conformal.levels), rows, z.shape[1], dtype=z.dtype)
        high = torch.empty_like(low)
        for fold in np.unique(nested):
            outside = torch.from_numpy(np.flatnonzero(nested == fold))
            others = Conformal.calibrate(cdf[torch.from_numpy(nested != fold)])
            ends = others.probabilities(others.levels)
            low[:, outside], high[:, outside] = (end.unsqueeze(1) for end in ends)
        return cls(weights, factor, conformal, unseen, (low, high))

    def recalibrated(self, conformal: Conformal) -> _Blend:
        """Return the same stack with intervals from rows that it has not seen at all."""
        shape = self.bounds[0].shape
        low, high = (
            end.unsqueeze(1).expand(shape) for end in conformal.probabilities(conformal.levels)
        )
        return replace(self, conformal=conformal, bounds=(low, high))

    def held_out(
        self,
        targets: tuple[str, ...],
        Y: NDArray[np.float64],
        rows: NDArray[np.int_],
        warps: tuple[Warp, ...],
    ) -> pd.DataFrame:
        """Predictions of the cross-validated rows, by weights that have not seen them."""
        marginals = WarpedPredictive(self.unseen, warps)
        lower, upper = (marginals.quantile(p) for p in self.bounds)
        return held_out_table("cross-validation", rows, targets, Y, marginals, lower, upper)


@dataclass(frozen=True)
class _Learner:
    """Learns weights from some held-out rows and scores weights given for each row."""

    stack: Callable[[Tensor], Tensor]
    single: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor], Tensor]


def _weight_learner(
    parts: list[Predictive],
    z: Tensor,
    warps: tuple[Warp, ...],
    y: Tensor,
    metric: str,
) -> _Learner:
    """Stacking for the metric; ``loss`` takes weights (J, n, m) and returns (m,)."""
    if metric == "rmse":
        means = torch.stack([WarpedPredictive(part, warps).mean for part in parts])
        errors = (means - y).square()
        return _Learner(
            stack=lambda r: stacking.pruned(stacking.squared_error_weights(means[:, r], y[r])),
            single=lambda r: stacking.best_single(errors[:, r].mean(1)),
            loss=lambda w: ((w * means).sum(0) - y).square().mean(0),
        )
    if metric == "crps":
        distance = torch.stack([part.distance_to(z) for part in parts])
        among = torch.stack([torch.stack([a.expected_distance(b) for b in parts]) for a in parts])
        own = distance - 0.5 * torch.diagonal(among, dim1=0, dim2=1).permute(2, 0, 1)
        return _Learner(
            stack=lambda r: stacking.pruned(
                stacking.crps_weights(
                    distance[:, r].mean(1).T, among[:, :, r].mean(2).permute(2, 0, 1)
                )
            ),
            single=lambda r: stacking.best_single(own[:, r].mean(1)),
            loss=lambda w: (
                (w * distance).sum(0) - 0.5 * torch.einsum("inm,jnm,ijnm->nm", w, w, among)
            ).mean(0),
        )
    densities = torch.stack([part.log_density(z) for part in parts])
    return _Learner(
        stack=lambda r: stacking.pruned(stacking.log_score_weights(densities[:, r])),
        single=lambda r: stacking.best_single(-densities[:, r].mean(1)),
        loss=lambda w: -torch.logsumexp(densities + w.log(), 0).mean(0),
    )


def _mixture(parts: list[Predictive], weights: Tensor) -> Predictive:
    """Mixture with weights (J, n, m) that differ from row to row."""
    weight = torch.cat(
        [w * p.weight.expand(p.loc.shape) for w, p in zip(weights, parts, strict=True)]
    )
    loc = torch.cat([part.loc for part in parts])
    return Predictive(loc, torch.cat([part.scale for part in parts]), weight)


def _spread(unseen: Predictive, z: Tensor) -> Tensor:
    """Factor by which each output's distributions should be wider or narrower."""
    densities = []
    for factor in _FACTORS:
        widened = unseen.widened(factor.expand(z.shape[1]))
        densities.append(widened.log_density(z))
    return temperature(densities, _FACTORS)


def _tested(model: FittedSurrogate, test: Unseen) -> pd.DataFrame:
    marginals = model.predictive(test.X)
    lower, upper = (torch.from_numpy(end) for end in model.intervals(test.X))
    return held_out_table("test", test.rows, model.targets, test.Y, marginals, lower, upper)


def chosen_candidates(model: FittedSurrogate) -> list[Candidate]:
    """Members of the portfolio that the settings name; settings that will not do are refused."""
    if model.metric not in METRICS:
        raise UserError(f"unknown metric {model.metric!r}; accepted are {', '.join(METRICS)}")
    if model.calibration not in CALIBRATIONS:
        accepted = " or ".join(CALIBRATIONS)
        raise UserError(f"calibration must be {accepted}, got {model.calibration!r}")
    if not model.budget > 0:
        raise UserError(f"the budget must be a positive number of seconds, got {model.budget}")
    if model.members is None:
        return list(PORTFOLIO)
    known = {candidate.name: candidate for candidate in PORTFOLIO}
    for name in model.members:
        if name not in known:
            raise UserError(f"unknown member {name!r}{nearest(name, list(known))}")
    return [known[name] for name in known if name in model.members]


def _leaderboard(
    race: Race,
    blend: _Blend,
    z: Tensor,
    warps: tuple[Warp, ...],
    Y: NDArray[np.float64],
    X: NDArray[np.float64],
) -> pd.DataFrame:
    """Cross-validated scores of all candidates, averaged over outputs in standardised units."""
    y = torch.from_numpy(Y)
    rows = []
    for contender, weight in zip(race.contenders, blend.weights, strict=True):
        marginals = WarpedPredictive(contender.out_of_fold, warps)
        scores = _standardised_scores(marginals, y)
        rows.append(
            {
                "name": contender.name,
                **scores,
                "weight": float(weight.mean()),
                "fit_seconds": contender.seconds,
                "predict_seconds": _seconds_for_10000(contender, X),
                "status": "done",
            }
        )
    rows.append(
        {
            "name": "stack",
            **_standardised_scores(WarpedPredictive(blend.unseen, warps), y),
            "weight": 1.0,
            "fit_seconds": sum(c.seconds for c in race.contenders),
            "predict_seconds": float("nan"),
            "status": "used",
        }
    )
    for standing in race.standings.values():
        if standing.status not in ("done", "running", "waiting"):
            status = f"{standing.status}: {standing.reason}".rstrip(": ")
            rows.append({"name": standing.name, "weight": 0.0, "status": status})
    return pd.DataFrame(rows)


def _standardised_scores(marginals: WarpedPredictive, y: Tensor) -> dict[str, float]:
    sd = y.std(0).clamp_min(1e-300)
    levels = torch.tensor([0.05, 0.95], dtype=torch.float64)
    low, high = marginals.quantile(levels)
    error = (marginals.mean - y).square().mean(0)
    return {
        "r2": float((1.0 - error / y.var(0, correction=0).clamp_min(1e-300)).mean()),
        "rmse": float((error.sqrt() / sd).mean()),
        "nlpd": float(-(marginals.log_density(y) + sd.log()).mean()),
        "crps": float((marginals.crps(y) / sd).mean()),
        "coverage_90": float(((y >= low) & (y <= high)).double().mean()),
    }


def _seconds_for_10000(contender: Contender, X: NDArray[np.float64]) -> float:
    """Time for 10,000 rows, measured on 1,000 of them."""
    rows = np.resize(X, (1_000, X.shape[1]))
    start = time.perf_counter()
    contender.surrogate.predictive(rows)
    return 10.0 * (time.perf_counter() - start)


def _training_frame(table: Table, held_out: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Training rows to keep: those whose held-out predictions are kept, then any."""
    predicted = held_out.loc[held_out["split"] != "test", "row"].unique()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table.X))
    order = order[np.argsort(~np.isin(table.rows[order], predicted), kind="stable")]
    rows = np.sort(order[:_KEPT_ROWS])
    frame = table.space.decode(table.X[rows])
    for j, target in enumerate(table.targets):
        frame[target] = table.Y[rows, j]
    if "row" not in frame:
        frame["row"] = table.rows[rows]
    return frame.reset_index(drop=True)


def _at_most(held_out: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """Keep the same random rows of every target and split."""
    rng = np.random.default_rng(seed)
    parts = []
    for _, frame in held_out.groupby("split", sort=False):
        numbers = frame["row"].unique()
        kept = rng.permutation(numbers)[:rows]
        parts.append(frame[frame["row"].isin(kept)])
    return pd.concat(parts, ignore_index=True)


def _settings(
    model: FittedSurrogate, table: Table, source: str, seconds: float, interrupted: bool
) -> dict[str, Any]:
    return {
        "source": source,
        "rows": len(table.X),
        "budget": model.budget,
        "metric": model.metric,
        "calibration": model.calibration,
        "calibrated_on": model.calibration_rows,
        "seed": model.seed,
        "seconds": round(seconds, 2),
        "interrupted": interrupted,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threads": torch.get_num_threads(),
        "versions": {
            "understudy": understudy.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "botorch", "scikit-learn", "numpy")},
        },
    }


class _Reporter:
    """Turns moments of training into `Progress`."""

    def __init__(self, listener: Listener | None, start: float, budget: float) -> None:
        self._listener, self._start, self._budget = listener, start, budget
        self._latest: tuple[Standing, ...] = ()
        self._stage = "read"

    def __call__(self, stage: str, message: str = "") -> None:
        self._stage = stage
        if self._listener is not None:
            elapsed = time.monotonic() - self._start
            self._listener(Progress(stage, elapsed, self._budget, message, self._latest))

    def standings(self, standings: tuple[Standing, ...]) -> None:
        self._latest = standings
        self(self._stage)
