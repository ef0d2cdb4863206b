import math
import sys
import types

import numpy as np
import optuna
import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.incontext.curve_normaliser import CurveNormaliser
from understudy.models.incontext.lcpfn import LCPFN
from understudy.search.early_stopping import (
    LearningCurvePruner,
    Patience,
    PredictiveStopper,
    cutoff_epochs,
    lightning_callback,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)


def curve(end, epochs, speed=0.8):
    return end - 0.5 * end * np.arange(1, epochs + 1) ** -speed


@pytest.fixture(scope="module")
def network():
    return LCPFN()


# -- rules ----------------------------------------------------------------------------------------


def test_a_run_that_is_far_behind_is_stopped_and_one_ahead_is_not(network):
    rule = PredictiveStopper(horizon=50, model=network)
    assert rule.should_stop(curve(0.5, 20), best=0.9)
    assert not rule.should_stop(curve(0.9, 20), best=0.5)


def test_it_stops_exactly_where_no_chance_exceeds_delta(network):
    values, best = curve(0.6, 10), 0.65
    most = float(network.prob_exceeds(values, best, 50).max())
    assert 0.0 < most < 1.0
    for delta, stops in ((0.99 * most, False), (1.01 * most, True)):
        rule = PredictiveStopper(50, network, delta=min(delta, 0.999))
        assert rule.should_stop(values, best) is stops


def test_a_loss_is_stopped_by_its_mirror_image(network):
    loss = 2.0 - curve(1.5, 20)
    rule = PredictiveStopper(50, network, minimize=True)
    assert rule.should_stop(loss, best=0.05)
    assert not rule.should_stop(loss, best=1.9) or loss.min() < 1.0


def test_the_best_value_of_the_run_itself_counts_unless_told_otherwise(network):
    flat = np.full(40, 0.6) + 0.001 * np.arange(40) % 2
    flat[3] = 0.9
    assert PredictiveStopper(50, network).should_stop(flat)
    assert not PredictiveStopper(50, network, own=False).should_stop(flat)


def test_it_decides_at_its_cutoffs_alone(network):
    rule = PredictiveStopper(50, network, cutoffs="coarse")
    stops = [T for T in range(1, 51) if rule.should_stop(curve(0.3, T), best=0.95)]
    assert set(stops) <= {5, 10, 20, 40} and 20 in stops


def test_a_run_at_its_horizon_is_left_alone_and_a_diverged_one_stopped(network):
    rule = PredictiveStopper(20, network)
    assert not rule.should_stop(curve(0.3, 20), best=0.99)
    assert not rule.should_stop([], best=0.99)
    assert rule.should_stop([0.3, 0.4, math.nan], best=0.2)


def test_cutoffs_are_every_epoch_or_four_or_those_given():
    assert cutoff_epochs("fine", 5) == {1, 2, 3, 4}
    assert cutoff_epochs("coarse", 100) == {10, 20, 40, 80}
    assert cutoff_epochs("coarse", 5) == {1, 2, 4}
    assert cutoff_epochs((3, 7), 50) == {3, 7}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"delta": 0.0}, r"in \(0, 1\), got 0"),
        ({"delta": 1.5}, "got 1.5"),
        ({"horizon": 1}, "at least 2 epochs, got 1"),
        ({"cutoffs": "often"}, "got 'often'"),
        ({"cutoffs": (0, 3)}, r"from 1 on, got \[0, 3\]"),
    ],
)
def test_rules_that_cannot_work_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        PredictiveStopper(**settings)


def test_patience_bears_so_many_epochs_without_a_better_one():
    values = [0.1, 0.3, 0.2, 0.3, 0.25]
    assert [Patience(k).should_stop(values) for k in (0, 1, 2, 3)] == [True, True, True, False]
    assert not Patience(0).should_stop(values[:2])
    assert not Patience(0, minimize=True).should_stop([0.5, 0.4])
    assert not Patience(0).should_stop([])
    with pytest.raises(UserError, match="at least 0, got -1"):
        Patience(-1)


# -- Optuna ---------------------------------------------------------------------------------------

ENDS = [0.9, 0.3, 0.5, 0.95, 0.4]


def objective(trial):
    end = trial.suggest_float("end", 0.0, 1.0)
    for step, value in enumerate(curve(end, 50)):
        trial.report(float(value), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(value)


def steps(study):
    return [len(trial.intermediate_values) for trial in study.trials]


def study_of(pruner, storage=None, direction="maximize"):
    return optuna.create_study(
        direction=direction, pruner=pruner, storage=storage, study_name="s", load_if_exists=True
    )


def test_the_pruner_ends_bad_trials_of_a_study_early_and_keeps_the_best(network):
    study = study_of(LearningCurvePruner(50, network))
    for end in ENDS:
        study.enqueue_trial({"end": end})
    study.optimize(objective, n_trials=len(ENDS))
    assert study.best_trial.params["end"] == 0.95
    first, bad, poor, best, worse = steps(study)
    assert first == best == 50
    assert max(bad, poor, worse) < 25


def test_a_study_that_is_loaded_again_prunes_as_if_it_had_not_stopped(network, tmp_path):
    def run(trials, storage=None):
        study = study_of(LearningCurvePruner(50, network, cutoffs=(3, 6, 9)), storage)
        if not study.trials:
            for end in (0.9, 0.2, 0.5):
                study.enqueue_trial({"end": end})
        study.optimize(short, n_trials=trials)
        return study

    def short(trial):
        end = trial.suggest_float("end", 0.0, 1.0)
        for step, value in enumerate(curve(end, 10)):
            trial.report(float(value), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(value)

    storage = f"sqlite:///{tmp_path / 'study.db'}"
    run(1, storage)
    assert steps(run(2, storage)) == steps(run(3))
    assert min(steps(run(0, storage))) < 10


def test_a_minimized_study_prunes_losses(network):
    def loss(trial):
        end = trial.suggest_float("end", 0.0, 1.0)
        for step, value in enumerate(curve(end, 50)):
            trial.report(2.0 * (1.0 - float(value)), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 2.0 * (1.0 - float(value))

    study = study_of(LearningCurvePruner(50, network), direction="minimize")
    for end in (0.9, 0.2):
        study.enqueue_trial({"end": end})
    study.optimize(loss, n_trials=2)
    assert steps(study)[0] == 50 and steps(study)[1] < 30


def test_steps_with_gaps_are_epochs_of_their_number(network):
    """Every fifth step says the same as a curve seen at these epochs."""
    pruner = LearningCurvePruner(50, network, first_step=1)
    study = study_of(pruner)
    study.add_trial(frozen({50: 0.6}, state=optuna.trial.TrialState.COMPLETE, value=0.6))
    values = curve(0.55, 50)
    reported = {step: float(values[step - 1]) for step in (5, 10, 15)}
    normaliser = CurveNormaliser()
    g = normaliser(torch.tensor(list(reported.values()), dtype=torch.float64)).unsqueeze(0)
    bars = network.predict(g, torch.arange(16, 51), torch.tensor([5, 10, 15]))
    limit = normaliser(torch.tensor(0.6, dtype=torch.float64))
    chance = float((1.0 - bars.cdf(limit)).max())
    for delta, pruned in ((0.9 * chance, False), (min(1.1 * chance, 0.999), True)):
        rule = LearningCurvePruner(50, network, delta=delta, first_step=1)
        assert rule.prune(study, frozen(reported)) is pruned


def frozen(values, state=optuna.trial.TrialState.RUNNING, value=None):
    trial = optuna.trial.create_trial(state=state, value=value, intermediate_values=values)
    trial.number = 7
    return trial


def test_a_trial_without_reports_or_rivals_goes_on(network):
    pruner = LearningCurvePruner(50, network)
    study = study_of(pruner)
    assert not pruner.prune(study, frozen({}))
    assert not pruner.prune(study, frozen({0: 0.1, 1: 0.1}))


def test_a_diverged_trial_is_pruned_and_earlier_gaps_are_borne(network):
    pruner = LearningCurvePruner(50, network)
    study = study_of(pruner)
    study.add_trial(frozen({49: 0.9}, state=optuna.trial.TrialState.COMPLETE, value=0.9))
    assert pruner.prune(study, frozen({0: 0.1, 1: math.nan}))
    assert pruner.prune(study, frozen({0: 0.1, 1: math.nan, **{s: 0.12 for s in range(2, 30)}}))


def test_none_is_pruned_before_enough_trials_are_complete(network):
    study = study_of(LearningCurvePruner(50, network, startup_trials=2))
    for end in (0.9, 0.2, 0.2):
        study.enqueue_trial({"end": end})
    study.optimize(objective, n_trials=3)
    assert steps(study)[:2] == [50, 50] and steps(study)[2] < 50


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({0: 57.3}, "step 0 is 57.3, outside the range of the metric, 0 to 1: give the pruner"),
        ({50: 0.5}, "step 50 is beyond the 50 steps"),
    ],
)
def test_reports_that_cannot_be_used_are_named(network, values, said):
    pruner = LearningCurvePruner(50, network)
    with pytest.raises(UserError, match=said):
        pruner.prune(study_of(pruner), frozen(values))


def test_a_step_before_the_first_is_named(network):
    pruner = LearningCurvePruner(50, network, first_step=1)
    with pytest.raises(UserError, match="step 0 is before the first, which is 1"):
        pruner.prune(study_of(pruner), frozen({0: 0.5}))


def test_a_trial_longer_than_the_network_knows_is_refused(network):
    with pytest.raises(UserError, match="101 steps is too long"):
        LearningCurvePruner(101, network)


# -- Lightning ------------------------------------------------------------------------------------


def module_of(pl, values):
    class Run(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch, index):
            return self.weight.square().sum()

        def validation_step(self, batch, index):
            self.log("accuracy", float(values[self.current_epoch]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Run()


def fit(pl, values, callback, tmp_path):
    rows = torch.utils.data.DataLoader(torch.zeros(2, 1))
    trainer = pl.Trainer(
        max_epochs=len(values),
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module_of(pl, values), rows, rows)
    return trainer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_lightning_trainer_is_stopped_where_the_rule_says(network, tmp_path):
    pl = pytest.importorskip("pytorch_lightning")
    values = curve(0.3, 20)
    rule = PredictiveStopper(20, network)
    first = next(T for T in range(1, 20) if rule.should_stop(values[:T], 0.9))
    callback = lightning_callback(rule, "accuracy", best=0.9)
    trainer = fit(pl, values, callback, tmp_path)
    assert trainer.current_epoch == callback.stopped_epoch == first < 20
    np.testing.assert_allclose(callback.curve, values[:first], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_metric_that_is_not_logged_is_named(network, tmp_path):
    pl = pytest.importorskip("pytorch_lightning")
    callback = lightning_callback(PredictiveStopper(20, network), "acuracy")
    with pytest.raises(UserError, match=r"no metric 'acuracy'.*there are accuracy"):
        fit(pl, curve(0.3, 3), callback, tmp_path)


@pytest.mark.slow
def test_the_callbacks_state_is_kept_with_a_checkpoint():
    pytest.importorskip("pytorch_lightning")
    callback = lightning_callback(Patience(2), "accuracy", start=[0.1, 0.2])
    other = lightning_callback(Patience(2), "accuracy")
    other.load_state_dict(callback.state_dict())
    assert other.curve == [0.1, 0.2]


def test_without_lightning_it_says_what_to_install(monkeypatch):
    for name in ("lightning.pytorch", "lightning", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="pip install lightning"):
        lightning_callback(Patience(2), "accuracy")


def test_lightning_under_its_new_name_is_used(monkeypatch):
    package, inner = types.ModuleType("lightning"), types.ModuleType("lightning.pytorch")

    class Callback:
        pass

    inner.Callback = Callback
    monkeypatch.setitem(sys.modules, "lightning", package)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", inner)
    assert isinstance(lightning_callback(Patience(2), "accuracy"), Callback)
