"""The race: failures, interruptions, deadlines and dominated candidates."""

import time

import numpy as np
import pytest

from understudy.core.errors import UserError
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.polynomial import PolynomialSurrogate
from understudy.models.tabular.portfolio import Candidate
from understudy.models.tabular.race import Race, assign_folds


class Broken(PolynomialSurrogate):
    """Fails as a numerical method may."""

    def _fit(self, U, Z):
        raise np.linalg.LinAlgError("not positive definite")

    def _fit_folds(self, U, Z, folds):
        self._fit(U, Z)


class Interrupted(PolynomialSurrogate):
    """Meets Ctrl-C."""

    def _fit_folds(self, U, Z, folds):
        raise KeyboardInterrupt


class Useless(PolynomialSurrogate):
    """Says the same everywhere; counts how often it is fitted."""

    fits = 0
    _fit_folds = Surrogate._fit_folds

    def _fit(self, U, Z):
        type(self).fits += 1
        super()._fit(0.0 * U, Z)

    def _predictive(self, U):
        return super()._predictive(0.0 * U)


GOOD = Candidate("polynomial", PolynomialSurrogate)


def race(deadline: float = 60.0, heard: list | None = None, rows: int = 100) -> Race:
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(rows, 2))
    Y = (X[:, :1] - 2 * X[:, 1:]) + 0.01 * rng.normal(size=(rows, 1))
    listener = (lambda s: None) if heard is None else heard.append
    return Race(X, Y, assign_folds(X, 0), time.monotonic() + deadline, 0, listener)


def test_a_candidate_that_fails_is_reported_and_the_others_go_on():
    run = race()
    names = [c.name for c in run.run([Candidate("broken", Broken), GOOD])]
    assert names == ["polynomial"]
    assert run.standings["broken"].status == "failed"
    assert "not positive definite" in run.standings["broken"].reason


def test_a_race_that_nobody_finishes_is_refused_with_the_reasons():
    with pytest.raises(UserError, match="not positive definite"):
        race().run([Candidate("broken", Broken)])


def test_an_interruption_keeps_what_has_finished():
    run = race()
    names = [c.name for c in run.run([GOOD, Candidate("slow", Interrupted), GOOD])]
    assert names == ["polynomial"]
    assert run.interrupted
    assert run.standings["slow"].status == "stopped"


def test_an_interruption_before_anything_has_finished_is_passed_on():
    with pytest.raises(KeyboardInterrupt):
        race().run([Candidate("slow", Interrupted), GOOD])


def test_after_the_deadline_only_the_first_candidate_runs():
    run = race(deadline=-1.0)
    names = [c.name for c in run.run([GOOD, Candidate("second", PolynomialSurrogate)])]
    assert names == ["polynomial"]
    assert run.standings["second"].reason == "out of time"


def test_a_costly_candidate_that_is_dominated_is_fitted_once():
    Useless.fits = 0
    run = race()
    run.run([GOOD, Candidate("useless", Useless, costly=True)])
    assert Useless.fits == 1
    assert "dominated" in run.standings["useless"].reason


def test_a_candidate_follows_only_one_that_holds_weight():
    run = race()
    run.run(
        [
            GOOD,
            Candidate("useless", Useless),
            Candidate("more", PolynomialSurrogate, after="useless"),
        ]
    )
    assert run.standings["more"].status == "stopped"


def test_identical_inputs_share_a_fold():
    X = np.repeat(np.arange(20.0).reshape(-1, 1), 3, axis=0)
    folds = assign_folds(X, 0).reshape(20, 3)
    assert (folds == folds[:, :1]).all()


def test_long_tables_hold_out_about_two_thousand_rows_once():
    folds = assign_folds(np.random.default_rng(0).uniform(size=(9_000, 2)), 0)
    assert set(np.unique(folds)) == {-1, 0}
    assert (folds == 0).sum() == 2_000


def test_every_change_of_the_standings_is_heard():
    heard: list = []
    race(heard=heard).run([GOOD])
    assert [standings[0].status for standings in heard] == ["waiting", "running", "done"]
