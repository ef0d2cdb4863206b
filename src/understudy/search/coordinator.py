"""Runs the trials of a study, beside as many other coordinators as there are.

Suggestions are made by one coordinator at a time, so that each sees all trials that run anywhere,
none is claimed by two, and the budget counts over all. While its trials run, a coordinator signs
that it is alive; when those signs end, the next coordinator takes its trials back into the queue.
A trial that two coordinators were lost with counts as failed: it may be what killed them. A
coordinator ends when no trial is left to run, here or elsewhere.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from understudy.core.executor import Executor, TaskError, TaskTimeoutError, WorkerLostError
from understudy.core.objective import Run, attempt
from understudy.search.study import (
    LOST,
    OUTCOMES,
    REASON,
    SECONDS,
    SUGGESTION,
    WORKER,
    Study,
    Trial,
)

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_LOOK = 0.5  # seconds between looks at a request to stop
_TIMES_LOST = 2
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between attempts to write a result


@dataclass(frozen=True)
class Moment:
    """A moment of a running study.

    Parameters
    ----------
    trials : list of Trial
        All of the study.
    budget : int
        Trials in all.
    suggestion_seconds : float
        That a suggestion took on average here; NaN before the first.
    elapsed : float
        Seconds of this coordinator.
    news : str
        What has just happened, empty for nothing.
    """

    trials: list[Trial]
    budget: int
    suggestion_seconds: float
    elapsed: float
    news: str = ""

    def count(self, state: str) -> int:
        """Trials in a state."""
        return sum(trial.state == state for trial in self.trials)


@dataclass
class Coordinator:
    """Runs trials of a study until its budget is spent.

    Parameters
    ----------
    study : Study
    run : Run
        Runs one configuration.
    executor : Executor
        Where; as many trials run at a time as it has workers.
    budget : int
        Trials of the study in all, those of other coordinators and earlier times included.
    listener : callable, optional
        Receives a `Moment` at every step.
    stop : threading.Event
        Set to stop: what runs is given back, to be run by who goes on.
    """

    study: Study
    run: Run
    executor: Executor
    budget: int
    listener: Callable[[Moment], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self._running: dict[Future[Any], tuple[int, int]] = {}
        self._began = time.monotonic()
        self._looked = -math.inf
        self._taken: list[float] = []
        self._bare: dict[int, float] = {}

    def work(self) -> None:
        """Run trials until there are none left, or until stopped."""
        with _Heart(self.study) as self._heart:
            inner = self.study.optuna.sampler
            self.study.optuna.sampler = _Signing(inner, self)
            try:
                while not self.stop.is_set() and self._step():
                    pass
            finally:
                self.study.optuna.sampler = inner
                self._give_back_all()

    def _step(self) -> bool:
        """Begin a trial, or take in those that have finished; False when there is no more to do."""
        self._collect(0.0)
        if len(self._running) < self.executor.workers and self._begin():
            return True
        if self._running:
            self._collect(_LOOK)
            return True
        if not self._awaited():
            return False
        self.stop.wait(_LOOK)
        return True

    # -- beginning --------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Suggest and begin a trial; False where the budget is spent."""
        if not self._room() and not self._due():
            return False
        with self.study.storage.exclusive(self.study.name):
            self._take_back_lost()
            if not self._room():
                return False
            started = time.monotonic()
            trial = self._ask()
            taken = time.monotonic() - started
        if self.stop.is_set():  # given back at the end
            return True
        self._taken.append(taken)
        trial.set_user_attr(SUGGESTION, round(taken, 4))
        config = {name: trial.params[name] for name in self.study.problem.space.names}
        future = self.executor.submit(
            attempt, self.run, config, f"{trial.number:05d}", timeout=self.run.timeout
        )
        self._running[future] = (trial.number, trial._trial_id)
        self._tell_listener()
        return True

    def _ask(self) -> optuna.Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of heartbeats outside of Study.optimize
            return self.study.optuna.ask(self.study.problem.space.distributions())

    def _room(self) -> bool:
        """Whether another trial fits into the budget; those that wait are begun first."""
        begun = sum(trial.state != "waiting" for trial in self.study.trials())
        return begun < self.budget

    def signs(self, trial_id: int) -> None:
        """Take note of a trial that this coordinator has just begun to suggest."""
        self._heart.add(trial_id)
        self.study.storage.rdb.set_trial_user_attr(trial_id, WORKER, self.name)

    # -- ending -----------------------------------------------------------------------------------

    def _collect(self, seconds: float) -> None:
        """Record the trials that have finished, after waiting for one."""
        finished, _ = wait(self._running, seconds, FIRST_COMPLETED) if self._running else ((), ())
        for future in sorted(finished, key=lambda future: self._running[future]):
            if _cancelled(future):
                continue
            number, trial_id = self._running[future]
            outcomes, reason, taken = _result(future)
            news = _patiently(partial(self._record, number, trial_id, outcomes, reason, taken))
            del self._running[future]
            self._heart.remove(trial_id)
            self._tell_listener(news)

    def _record(
        self,
        number: int,
        trial_id: int,
        outcomes: dict[str, float] | None,
        reason: str,
        seconds: float,
    ) -> str:
        """Tell what became of a trial; say it."""
        rdb = self.study.storage.rdb
        try:
            if math.isfinite(seconds):
                rdb.set_trial_user_attr(trial_id, SECONDS, round(seconds, 4))
            if outcomes is None:
                rdb.set_trial_user_attr(trial_id, REASON, reason)
                self.study.optuna.tell(number, state=TrialState.FAIL)
                return f"trial {number} failed: {reason}"
            rdb.set_trial_user_attr(trial_id, OUTCOMES, outcomes)
            values = [outcomes[part.name] for part in self.study.problem.objectives]
            self.study.optuna.tell(number, values)
        except (UpdateFinishedTrialError, ValueError):
            return f"trial {number} was finished elsewhere meanwhile; that result is kept"
        return f"trial {number}: " + ", ".join(f"{k} {v:.6g}" for k, v in outcomes.items())

    def _give_back_all(self) -> None:
        """End what runs here and put it back into the queue."""
        if self._heart.trials:
            self.executor.close()
            self._collect(0.0)
        for trial_id in self._heart.trials:
            with suppress(UpdateFinishedTrialError):
                self.study.storage.rdb.set_trial_state_values(trial_id, TrialState.WAITING)
            self._heart.remove(trial_id)
        self._running.clear()

    # -- trials of coordinators that are gone ------------------------------------------------------

    def _due(self) -> bool:
        """Whether it is time to look for lost trials again."""
        return time.monotonic() - self._looked > self.study.storage.heartbeat

    def _take_back_lost(self) -> None:
        """Put trials without a sign of life back into the queue; needs the lock of the study."""
        if not self._due():
            return
        self._looked = time.monotonic()
        for trial_id in self.study.storage.stale(self.study.id):
            if trial_id not in self._heart.trials:
                self._take_back(trial_id)
        for frozen in self.study.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not frozen.params and WORKER not in frozen.user_attrs:
                self._take_back_bare(frozen)

    def _take_back(self, trial_id: int) -> None:
        rdb = self.study.storage.rdb
        attributes = rdb.get_trial(trial_id).user_attrs
        worker = attributes.get(WORKER, "")
        losers = [*attributes.get(LOST, [])]
        losers += [] if worker in losers else [worker]
        rdb.set_trial_user_attr(trial_id, LOST, losers)
        if len(losers) < _TIMES_LOST:
            rdb.set_trial_state_values(trial_id, TrialState.WAITING)
            self._tell_listener(f"a trial of {worker}, which is gone, waits to be run again")
            return
        rdb.set_trial_user_attr(trial_id, REASON, "its coordinator was lost, and so was a second")
        rdb.set_trial_state_values(trial_id, TrialState.FAIL)

    def _take_back_bare(self, frozen: FrozenTrial) -> None:
        """Take a trial whose coordinator ended before it signed, once it is bare long enough."""
        since = self._bare.setdefault(frozen._trial_id, time.monotonic())
        if time.monotonic() - since > self.study.storage.grace:
            self._take_back(frozen._trial_id)

    def _awaited(self) -> bool:
        """Whether trials run elsewhere that this coordinator may have to run again."""
        if self.budget == 0:
            return False
        states = [trial.state for trial in self.study.trials()]
        return "running" in states

    def _tell_listener(self, news: str = "") -> None:
        if self.listener is None:
            return
        mean = sum(self._taken) / len(self._taken) if self._taken else math.nan
        elapsed = time.monotonic() - self._began
        self.listener(Moment(self.study.trials(), self.budget, mean, elapsed, news))


def _patiently(write: Callable[[], str]) -> str:
    """Write to a storage that may be out of reach for a while: a result is worth the wait."""
    for seconds in _WAITS:
        try:
            return write()
        except StorageInternalError:
            time.sleep(seconds)
    return write()


def _cancelled(future: Future[Any]) -> bool:
    return future.cancelled() or isinstance(future.exception(), CancelledError)


def _result(future: Future[Any]) -> tuple[dict[str, float] | None, str, float]:
    """Outcomes, or the reason of a failure, and seconds."""
    try:
        return future.result()
    except (TaskError, TaskTimeoutError, WorkerLostError) as error:
        return None, str(error), math.nan


class _Heart(AbstractContextManager["_Heart"]):
    """Signs in the storage that trials of this coordinator are alive."""

    def __init__(self, study: Study) -> None:
        self._storage = study.storage
        self._end = threading.Event()
        self._beats: set[int] = set()
        self._thread = threading.Thread(target=self._beat, name="understudy-heart", daemon=True)

    @property
    def trials(self) -> list[int]:
        return sorted(self._beats)

    def add(self, trial_id: int) -> None:
        self._storage.rdb.record_heartbeat(trial_id)
        self._beats.add(trial_id)

    def remove(self, trial_id: int) -> None:
        self._beats.discard(trial_id)

    def __enter__(self) -> _Heart:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(self._storage.heartbeat):
            for trial_id in self.trials:
                with suppress(Exception):  # tried again at the next beat
                    self._storage.rdb.record_heartbeat(trial_id)


class _Signing(BaseSampler):
    """The sampler, with a sign of life of each trial before it is suggested.

    A trial that was given back has its configuration already and costs no suggestion.
    """

    def __init__(self, sampler: BaseSampler, coordinator: Coordinator) -> None:
        self._sampler, self._coordinator = sampler, coordinator

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._coordinator.signs(trial._trial_id)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if len(trial.params) == len(self._coordinator.study.problem.space):
            return {}
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space) if search_space else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, name, distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()
