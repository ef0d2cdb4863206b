"""In-context networks: they learn their prior, resume, and are what they were after a file."""

from copy import deepcopy
from dataclasses import replace
from unittest import SkipTest

import numpy as np
import pytest
import torch
from botorch.acquisition import LogExpectedImprovement, qLogExpectedImprovement
from botorch.optim import optimize_acqf
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from understudy.core.errors import UserError
from understudy.models.incontext import pretrained as recipes
from understudy.models.incontext.encoding import Encoding
from understudy.models.incontext.estimators import PFNClassifier, PFNRegressor, PFNSurrogate
from understudy.models.incontext.gp_priors import FixedGP
from understudy.models.incontext.network_priors import BNNClassification
from understudy.models.incontext.pfn import PFN
from understudy.models.incontext.pretrain import Pretraining
from understudy.models.incontext.pretrained import pretrained, shared

PRIOR = FixedGP(features=1, lengthscale=0.4, noise=1e-2)
PLAN = Pretraining(steps=120, batch=16, rows=16, learning_rate=2e-3, log_every=20)
SMALL = {"width": 32, "depth": 2, "heads": 2}


def trained(plan: Pretraining = PLAN, head: str = "bars") -> PFN:
    encoding = Encoding(1, outcomes="raw")
    return PFN.pretrained_on(PRIOR, plan, encoding, head=head, bars=64, **SMALL)


def curve(n: int = 30, d: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(seed).uniform(size=(n, d))
    return X, np.sin(5.0 * X[:, 0]) + X.sum(1)


def test_training_lowers_the_loss_on_fresh_data_sets():
    model = trained()
    assert model.log[-1].loss < model.log[0].loss - 0.05
    assert model.log[-1].data_sets == 120 * 16
    assert model.facts["steps"] == 120


@pytest.mark.parametrize("head", ["gaussian", "bars"])
def test_networks_of_both_heads_can_be_kept(head, tmp_path):
    model = trained(replace(PLAN, steps=10), head)
    model.save(tmp_path / "a.safetensors", half=False)
    again = PFN.load(tmp_path / "a.safetensors")
    assert again.head.name == head
    assert again.facts == model.facts
    assert again.log == model.log
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])


def test_a_resumed_run_ends_as_one_that_was_never_stopped(tmp_path):
    whole = trained(replace(PLAN, steps=40))
    path = tmp_path / "training.safetensors"
    plan = replace(PLAN, steps=40, checkpoint=path)

    def stop(line):
        if line.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PFN.pretrained_on(PRIOR, plan, Encoding(1, outcomes="raw"), bars=64, on_line=stop, **SMALL)
    assert path.exists()
    resumed = trained(plan)
    for name, value in whole.network.state_dict().items():
        assert torch.allclose(value, resumed.network.state_dict()[name], atol=1e-6), name


def test_a_batch_of_data_sets_is_answered_as_each_alone():
    model = trained(replace(PLAN, steps=20))
    task = PRIOR.sample(5, 12, torch.Generator().manual_seed(0))
    x, y, at = task.x[:, :8], task.y[:, :8], task.x[:, 8:]
    whole = model.predict(x, y, at)
    alone = model.predict(x[2:3], y[2:3], at[2:3])
    assert torch.allclose(whole.mean[2], alone.mean[0], atol=1e-5)
    assert torch.allclose(whole[2].variance, alone.variance[0], atol=1e-5)


def test_no_context_gives_the_prior_and_one_row_is_enough():
    model = trained()
    empty = torch.empty(1, 0, 1)
    prior = model.predict(empty, torch.empty(1, 0), torch.tensor([[[0.5]]]))
    one = model.predict(torch.tensor([[[0.5]]]), torch.tensor([[0.7]]), torch.tensor([[[0.5]]]))
    assert float(prior.sd) == pytest.approx(1.0, abs=0.35)
    assert bool(torch.isfinite(one.mean))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(1, 4, 2), torch.rand(1, 4), "at most 1"),
        (torch.rand(1, 16, 1), torch.rand(1, 16), "at most 15"),
        (torch.full((1, 3, 1), torch.nan), torch.rand(1, 3), "NaN"),
    ],
)
def test_what_the_network_was_not_trained_for_is_refused(x, y, message):
    model = trained(replace(PLAN, steps=2))
    with pytest.raises(UserError, match=message):
        model.predict(x, y, x)


def test_a_head_of_classes_predicts_no_outcome_and_the_reverse():
    plan = replace(PLAN, steps=5)
    classes = PFN.pretrained_on(
        BNNClassification(), plan, Encoding(3, "standard", "raw"), "binary", **SMALL
    )
    x, y = torch.randn(2, 6, 3), torch.ones(2, 6)
    assert classes.probability(x, y, x).shape == (2, 6)
    with pytest.raises(UserError, match="no real outcome"):
        classes.predict(x, y, x)
    with pytest.raises(UserError, match="no class"):
        trained(plan).probability(x[..., :1], y, x[..., :1])


@pytest.mark.parametrize("spoiled", ["cut", "foreign", "text", "missing"])
def test_files_that_are_no_networks_are_named(tmp_path, spoiled):
    path = tmp_path / "x.safetensors"
    trained(replace(PLAN, steps=2)).save(path)
    if spoiled == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif spoiled == "text":
        path.write_text("hello")
    elif spoiled == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.ones(2)}, path)
    else:
        path = tmp_path / "y.safetensors"
    with pytest.raises(UserError, match=path.name):
        PFN.load(path)


# -- the shipped networks ---------------------------------------------------------------------


@pytest.mark.parametrize("name", list(recipes.RECIPES))
def test_shipped_networks_are_small_and_say_how_they_were_made(name):
    path = recipes.FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 5_000_000
    model = pretrained(name)
    recipe = recipes.RECIPES[name]
    assert model.encoding == recipe.encoding
    assert model.head.name == recipe.head
    assert model.facts["prior"] == repr(recipe.prior())
    assert model.facts["data_sets"] == model.log[-1].data_sets > 1_000_000
    assert model.log[-1].loss < model.log[0].loss


def test_an_unknown_network_is_named():
    with pytest.raises(UserError, match="regression"):
        pretrained("regresion")


def test_tuning_a_copy_leaves_the_shipped_network_alone():
    before = deepcopy(shared("regression").network.state_dict())
    tuned = pretrained("regression")
    plan = Pretraining(steps=2, batch=2, rows=20, least_context=5, learning_rate=1e-3, log_every=1)
    tuned.fit(FixedGP(features=2), plan)
    assert tuned.facts["tuned_with"] == 4
    after = shared("regression").network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(tuned.network.row.weight, shared("regression").network.row.weight)


def test_a_prior_of_more_inputs_than_the_network_is_refused():
    with pytest.raises(UserError, match="11 inputs"):
        pretrained("regression").fit(FixedGP(features=11), PLAN)


# -- estimators -------------------------------------------------------------------------------


def test_the_shipped_regressor_explains_a_smooth_function_and_knows_its_errors():
    X, y = curve(120)
    at, truth = curve(400, seed=1)
    model = PFNRegressor().fit(X, y)
    assert model.score(at, truth) > 0.98
    inside = model.bars(at)
    q = inside.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64))[..., 0].numpy()
    assert 0.8 < ((truth > q[0]) & (truth < q[1])).mean() <= 1.0


def test_predictions_of_the_mixture_and_of_the_bars_agree():
    X, y = curve(40)
    model = PFNSurrogate().fit(X, np.column_stack([y, -3.0 * y + 100.0]))
    mean, sd = model.predict(X, return_std=True)
    assert mean.shape == (40, 2)
    assert np.allclose(mean, model.bars(X).mean.numpy())
    assert np.allclose(sd, model.bars(X).sd.numpy())
    assert np.allclose(mean, model.posterior(torch.from_numpy(X)).mean.numpy())


def test_a_surrogate_from_its_state_needs_no_other_file(monkeypatch):
    X, y = curve(30)
    model = PFNSurrogate(network=pretrained("regression")).fit(X, y)
    head, tensors = model.state()
    monkeypatch.setattr(recipes, "FOLDER", recipes.FOLDER / "gone")
    again = PFNSurrogate.from_state(head, tensors)
    assert np.allclose(model.predict(X), again.predict(X), atol=1e-6)


def test_drawn_functions_have_the_marginals_of_the_bars():
    X, y = curve(15)
    model = PFNSurrogate(orders=1).fit(X, y)
    at = np.array([[0.3, 0.4], [0.9, 0.1]])
    draws = model.sample(at, 400)
    bars = model.bars(at)
    assert draws.shape == (400, 2, 1)
    assert np.allclose(draws[:, 0].mean(0), bars.mean[0].numpy(), atol=4 * bars.sd[0] / 20)


def test_acquisition_functions_use_it_with_gradients():
    X, y = curve(20)
    model = PFNSurrogate(orders=1).fit(X, y).to_botorch()
    bounds = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    for worth, q in (
        (LogExpectedImprovement(model, best_f=float(y.max())), 1),
        (qLogExpectedImprovement(model, best_f=float(y.max())), 2),
    ):
        found, value = optimize_acqf(
            worth, bounds, q=q, num_restarts=1, raw_samples=8, options={"maxiter": 5}
        )
        assert found.shape == (q, 2)
        assert bool(torch.isfinite(value).all())


def test_too_many_rows_are_refused_or_chosen_from_as_asked():
    X, y = curve(230)
    with pytest.raises(UserError, match="at most 200: subsample=True"):
        PFNRegressor().fit(X, y)
    model = PFNRegressor(subsample=True).fit(X, y)
    assert model.rows_used_ == 200
    assert model.score(X, y) > 0.9


def test_too_many_inputs_are_refused():
    X, y = curve(30, d=11)
    with pytest.raises(UserError, match="11 inputs; this network was trained for at most 10"):
        PFNRegressor().fit(X, y)


def test_a_constant_target_is_predicted_as_it_is():
    X, _ = curve(20)
    model = PFNRegressor().fit(X, np.full(20, 7.0))
    assert np.allclose(model.predict(X), 7.0, atol=0.5)


def test_the_shipped_classifier_tells_classes_apart():
    X, y = load_breast_cancer(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(X))
    model = PFNClassifier().fit(X[rows[:40]], y[rows[:40]])
    chance = model.predict_proba(X[rows[40:]])
    assert np.allclose(chance.sum(1), 1.0)
    assert roc_auc_score(y[rows[40:]], chance[:, 1]) > 0.97


def test_several_classes_are_told_apart_one_against_the_rest():
    X, y = load_iris(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(X))
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = PFNClassifier().fit(X[rows[:60]], names[rows[:60]])
    assert model.score(X[rows[60:]], names[rows[60:]]) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("model", [PFNRegressor(subsample=True), PFNClassifier(subsample=True)])
def test_scikit_learn_s_checks_pass(model):
    failed = {}
    rounding = {"check_methods_subset_invariance"}  # to 1e-7, the last digit of single precision
    for estimator, check in estimator_checks_generator(model):
        name = getattr(check, "func", check).__name__
        if name in rounding and isinstance(model, PFNRegressor):
            continue
        try:
            check(estimator)
        except SkipTest:
            continue
        except Exception as error:
            failed[name] = repr(error)[:200]
    assert failed == {}
