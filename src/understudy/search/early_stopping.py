r"""Stop a training run when its learning curve says that it will not be the best.

After epoch T of m, a run is stopped when no epoch to come is likely to beat the best value so far
(Adriaensen et al. 2023, arXiv 2310.20447, section 5.3):

.. math:: P(y_{t'} > y_{best} \mid y_{1 \dots T}) \le \delta
          \quad \text{for every } t' \in (T, m], \qquad \delta = 0.05.

The probabilities are those of `LCPFN`, which takes milliseconds. The rule is used by hand
(`PredictiveStopper`), as a pruner of Optuna (`LearningCurvePruner`) and as a callback of Lightning
(`lightning_callback`). `Patience` is the rule that it is measured against.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import TrialState

from understudy.core.errors import UserError
from understudy.models.incontext.curve_normaliser import CurveNormaliser
from understudy.models.incontext.curve_prior import EPOCHS
from understudy.models.incontext.lcpfn import (
    LCPFN,
    EpochGrid,
    chance_above,
    default_normaliser,
)

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

COARSE = (0.1, 0.2, 0.4, 0.8)
"""Shares of a run after which the coarse rule decides; the fine one does after every epoch."""

Cutoffs = Literal["fine", "coarse"] | Collection[int]


class StoppingRule(Protocol):
    """Decides whether a run goes on."""

    def should_stop(self, curve: ArrayLike, best: float | None = None) -> bool:
        """Whether to stop a run of these values after epochs 1 to T.

        Parameters
        ----------
        curve : array (T,)
        best : float, optional
            Best value of other runs; None where there is none yet.
        """
        ...


def cutoff_epochs(cutoffs: Cutoffs, horizon: int) -> frozenset[int]:
    """Epochs after which a rule decides."""
    if cutoffs == "fine":
        return frozenset(range(1, horizon))
    if cutoffs == "coarse":
        return frozenset(math.ceil(share * horizon) for share in COARSE) - {horizon}
    if isinstance(cutoffs, str):
        raise UserError(f"cutoffs are 'fine', 'coarse' or epochs, got {cutoffs!r}")
    epochs = frozenset(int(epoch) for epoch in cutoffs)
    if not epochs or min(epochs) < 1:
        raise UserError(f"cutoffs are epochs from 1 on, got {sorted(epochs)}")
    return epochs


@dataclass(frozen=True)
class PredictiveStopper:
    """Stops a run that is unlikely to become better than the best value so far.

    Parameters
    ----------
    horizon : int
        Epochs m of a whole run.
    model : LCPFN, optional
        The shipped network by default.
    delta : float in (0, 1)
        Probability of a better value at any one epoch from which on it pays to go on.
    cutoffs : {"fine", "coarse"} or collection of int
        After which epochs to decide: every one; 10, 20, 40 and 80 % of a run; or those.
    normaliser : CurveNormaliser, optional
        Range of the metric; that of an accuracy or a log loss by default.
    minimize : bool
        Whether small values are good, where no normaliser says so.
    own : bool
        Whether the best value of the run itself counts, as it does where the best epoch of all is
        what is kept.
    """

    horizon: int = EPOCHS
    model: LCPFN | None = None
    delta: float = 0.05
    cutoffs: Cutoffs = "fine"
    normaliser: CurveNormaliser | None = None
    minimize: bool = False
    own: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise UserError(f"delta is a probability in (0, 1), got {self.delta}")
        if self.horizon < 2:
            raise UserError(f"the horizon is at least 2 epochs, got {self.horizon}")
        cutoff_epochs(self.cutoffs, self.horizon)

    @cached_property
    def _network(self) -> LCPFN:
        return self.model or LCPFN()

    def should_stop(self, curve: ArrayLike, best: float | None = None) -> bool:
        """Whether to stop a run of these values; a run at its horizon has stopped by itself.

        A value that is not finite stops the run: it has diverged.

        Raises
        ------
        UserError
            If the curve holds a value outside the metric's range.
        """
        values = np.asarray(curve, dtype=np.float64)
        if len(values) and not math.isfinite(values[-1]):
            return True
        decides = cutoff_epochs(self.cutoffs, self.horizon)
        if len(values) >= self.horizon or len(values) not in decides:
            return False
        known = [] if best is None else [float(best)]
        if self.own:
            known.append(float(values.min() if self._minimizes else values.max()))
        if not known:
            return False
        target = min(known) if self._minimizes else max(known)
        chances = self._network.prob_exceeds(
            values, target, self.horizon, self.normaliser, minimize=self.minimize
        )
        return bool(chances.max() <= self.delta)

    @property
    def _minimizes(self) -> bool:
        return self.normaliser.minimize if self.normaliser else self.minimize


@dataclass(frozen=True)
class Patience:
    """Stops a run whose best value is more than so many epochs old.

    Parameters
    ----------
    epochs : int
        Epochs without a better value that are borne; with 0 the first of them stops the run.
    minimize : bool
    """

    epochs: int = 5
    minimize: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise UserError(f"patience is a number of epochs of at least 0, got {self.epochs}")

    def should_stop(self, curve: ArrayLike, best: float | None = None) -> bool:
        """Whether to stop; the best of other runs has no part in it."""
        values = np.asarray(curve, dtype=np.float64)
        if len(values) == 0:
            return False
        if not math.isfinite(values[-1]):
            return True
        at = int(values.argmin() if self.minimize else values.argmax())
        return len(values) - 1 - at > self.epochs


class LearningCurvePruner(BasePruner):
    """Pruner of Optuna that extrapolates the intermediate values of a trial.

    A trial is pruned when none of its steps to come is likely to beat the best intermediate value
    of any other trial of the study, finished or not. All that it needs is in the storage, so that
    workers share it and a study that is loaded again goes on as it would have.

    Parameters
    ----------
    horizon : int
        Steps of a whole trial.
    model : LCPFN, optional
        The shipped network by default.
    delta : float in (0, 1)
        Probability of a better value from which on it pays to go on.
    cutoffs : {"fine", "coarse"} or collection of int
        After how many steps to decide; fine is after every report.
    normaliser : CurveNormaliser, optional
        Range of the metric. By default an accuracy where the study maximizes, a log loss whose
        reference is the trial's first value where it minimizes.
    first_step : int
        Number of a trial's first step, 0 or 1. Steps may be reported with gaps.
    startup_trials : int
        Trials that must be complete before any is pruned.

    Raises
    ------
    UserError
        At the first report of a value that is outside the metric's range.
    """

    def __init__(
        self,
        horizon: int = EPOCHS,
        model: LCPFN | None = None,
        delta: float = 0.05,
        cutoffs: Cutoffs = "fine",
        normaliser: CurveNormaliser | None = None,
        *,
        first_step: int = 0,
        startup_trials: int = 1,
    ) -> None:
        self._rule = PredictiveStopper(horizon, model, delta, cutoffs, normaliser, own=False)
        if horizon > EPOCHS:
            raise UserError(
                f"a trial of {horizon} steps is too long for the network, which knows {EPOCHS}: "
                "report every second or third"
            )
        self._cutoffs = cutoff_epochs(cutoffs, horizon)
        self._first_step = first_step
        self._startup_trials = startup_trials

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop a trial after the value that it has reported last."""
        step = trial.last_step
        if step is None:
            return False
        epoch = step - self._first_step + 1
        self._check(epoch, step)
        if not math.isfinite(trial.intermediate_values[step]):
            return True
        minimize = study.direction == StudyDirection.MINIMIZE
        seen, values = self._curve(trial)
        normaliser = self._rule.normaliser or default_normaliser(float(values[0]), minimize)
        self._check_range(values, seen, normaliser)
        best = self._best(study, trial, normaliser.minimize)
        if epoch not in self._cutoffs or best is None:
            return False
        g = normaliser(torch.from_numpy(values)).unsqueeze(0)
        ahead = EpochGrid.of(epoch, self._rule.horizon).ahead
        bars = self._rule._network.predict(g, ahead, torch.from_numpy(seen))
        chances = chance_above(bars, normaliser, best)
        return bool(chances.max() <= self._rule.delta)

    def _curve(self, trial: FrozenTrial) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and values of what was reported, without those that are not finite."""
        reported = sorted(trial.intermediate_values.items())
        known = [(s - self._first_step + 1, v) for s, v in reported if math.isfinite(v)]
        return np.array([s for s, _ in known]), np.array([v for _, v in known], dtype=np.float64)

    def _best(self, study: Study, trial: FrozenTrial, minimize: bool) -> float | None:
        """Best intermediate value of the other trials; None before enough are complete."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = study.get_trials(deepcopy=False, states=states)
        others = [t for t in trials if t.number != trial.number]
        if sum(t.state == TrialState.COMPLETE for t in others) < self._startup_trials:
            return None
        values = [v for t in others for v in t.intermediate_values.values() if math.isfinite(v)]
        if not values:
            return None
        return min(values) if minimize else max(values)

    def _check(self, epoch: int, step: int) -> None:
        if epoch < 1:
            raise UserError(f"step {step} is before the first, which is {self._first_step}")
        if epoch > self._rule.horizon:
            raise UserError(
                f"step {step} is beyond the {self._rule.horizon} steps of a trial: give the pruner "
                "the horizon that trials have"
            )

    def _check_range(
        self, values: np.ndarray, seen: np.ndarray, normaliser: CurveNormaliser
    ) -> None:
        outside = ~normaliser.contains(torch.from_numpy(values)).numpy()
        if outside.any():
            at = int(outside.argmax())
            raise UserError(
                f"the intermediate value of step {seen[at] + self._first_step - 1} is "
                f"{values[at]:g}, outside the range of the metric, {normaliser.lower:g} to "
                f"{normaliser.upper:g}: give the pruner a normaliser"
            )


def lightning_callback(
    rule: StoppingRule, monitor: str, best: float | None = None, start: Sequence[float] = ()
) -> Any:
    """Callback that stops a Lightning trainer by a rule.

    Parameters
    ----------
    rule : StoppingRule
        Such as `PredictiveStopper` with the horizon of ``max_epochs``.
    monitor : str
        Name of the logged metric; a value is taken after each validation epoch.
    best : float, optional
        Best value of earlier runs.
    start : sequence of float
        Values before a run that is resumed.

    Returns
    -------
    lightning.pytorch.Callback
        With the ``curve`` so far, and ``stopped_epoch``, counted from 1, or None.

    Raises
    ------
    UserError
        If neither ``lightning`` nor ``pytorch_lightning`` is installed; in training, if there is no
        metric of that name.
    """
    base = _lightning_callback_class()

    class LearningCurveStopping(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self.curve: list[float] = list(start)
            self.stopped_epoch: int | None = None

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            if trainer.sanity_checking:
                return
            if monitor not in trainer.callback_metrics:
                known = ", ".join(sorted(trainer.callback_metrics)) or "none"
                raise UserError(f"no metric {monitor!r} is logged in validation; there are {known}")
            self.curve.append(float(trainer.callback_metrics[monitor]))
            if rule.should_stop(self.curve, best):
                trainer.should_stop = True
                self.stopped_epoch = len(self.curve)

        def state_dict(self) -> dict[str, Any]:
            return {"curve": self.curve, "stopped_epoch": self.stopped_epoch}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.curve = list(state["curve"])
            self.stopped_epoch = state["stopped_epoch"]

    return LearningCurveStopping()


def _lightning_callback_class() -> Any:
    """Return the base class of callbacks of the Lightning that is installed."""
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise UserError(
                "stopping a Lightning trainer needs Lightning: pip install lightning"
            ) from None
    return Callback
