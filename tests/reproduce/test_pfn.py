import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer

from understudy.core.errors import UserError
from understudy.core.systems import find
from understudy.models.incontext.gp_priors import FixedGP, HyperPriorGP
from understudy.models.incontext.network_priors import BNNClassification
from understudy.models.incontext.pretrain import Pretraining, step_draws
from understudy.reproduce import Scale, pfn
from understudy.reproduce.in_context import baselines, tables
from understudy.reproduce.in_context.baselines import JITTER, Process
from understudy.sample import Plan


@pytest.fixture
def one_table(monkeypatch):
    """Only the table that comes with scikit-learn."""
    one = {"breast-cancer": tables.TABLES["breast-cancer"]}
    monkeypatch.setattr(tables, "TABLES", one)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_system_is_implemented():
    assert find("pfn").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale(one_table):
    claims = pfn.run(Scale.SMOKE, seed=3)
    assert {claim.seeds[0] for claim in claims} == {3}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 17


def test_the_exact_process_is_the_conditional_of_the_joint_normal():
    prior = FixedGP(2, noise=1e-2)
    task = prior.sample(1, 6, _generator())
    process = Process.of(prior, 1)
    x, y = task.x.double(), task.y[0].double().numpy()
    joint = process.covariance(x, x)[0].numpy() + (1e-2 + JITTER) * np.eye(6)
    density = [multivariate_normal(cov=joint[np.ix_(i, i)]).logpdf(y[i]) for i in _rows()]
    expected = np.subtract(density[1:], density[0])
    np.testing.assert_allclose(process.log_density(task, 4)[0], expected, rtol=1e-8)
    evidence = process.log_evidence(x[:, :4], task.y[:, :4].double())
    assert float(evidence) == pytest.approx(density[0], rel=1e-8)


def _rows() -> list[list[int]]:
    return [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 5]]


def test_the_process_of_greatest_evidence_has_more_of_it_than_the_true_one():
    prior = HyperPriorGP(1)
    task = prior.sample(3, 12, _generator(2))
    fits = [
        baselines.fitted_process(task, 12, prior, _generator(1), False, restarts=2, steps=n)
        for n in (1, 60)
    ]
    x, y = task.x.double(), task.y.double()
    short, long = (fit.log_evidence(x, y) for fit in fits)
    assert bool((long > short).all())


def test_the_prior_keeps_length_scales_from_running_away():
    prior = HyperPriorGP(3)
    task = prior.sample(8, 6, _generator(4))
    free, held = (
        baselines.fitted_process(task, 5, prior, _generator(), with_prior, 2, 100)
        for with_prior in (False, True)
    )
    assert free.lengthscale.max() > 5.0
    assert held.lengthscale.min() > 0.01 and held.lengthscale.max() < 2.0
    assert held.noise.max() < 1e-6  # whose prior has no mass elsewhere


def test_chains_over_hyperparameters_average_their_densities():
    prior = HyperPriorGP(1)
    task = prior.sample(2, 8, _generator())
    found = baselines.sampled_process(task, 6, prior, _generator(), Plan(60, 60), chains=2)
    assert found.log_density.shape == (2, 2) and found.r_hat.shape == (2,)
    fitted = baselines.fitted_process(task, 6, prior, _generator(), True, steps=100)
    near = fitted.log_density(task, 6).mean()
    assert float(found.log_density.mean()) == pytest.approx(float(near), abs=1.0)


@pytest.mark.slow
def test_variational_inference_and_chains_agree_on_an_easy_network():
    prior = BNNClassification(1, 2)
    task = prior.sample(3, 60, _generator(5))
    fitted = baselines.mean_field(task, 40, prior, _generator(), steps=300)
    chains = baselines.sampled_network(task, 40, prior, _generator(), Plan(80, 80), chains=2)
    assert float(fitted.mean()) == pytest.approx(float(chains.log_density.mean()), abs=0.05)
    assert float(fitted.mean()) > -math.log(2.0)  # better than a coin


def test_chains_that_disagree_are_seen():
    draws = torch.randn(50, 4, 2, 3, generator=_generator())
    draws[:, 0, 1, 2] += 10.0  # one chain of the second data set
    first, second = baselines._r_hat(draws).tolist()
    assert first < 1.1 < 1.3 < second


def test_stages_of_training_are_kept_apart():
    training = pfn._Training(4, 2, 8, 8, 1, 8)
    half, whole = pfn._train(FixedGP(1), training, "bars", seed=0)
    assert [line.step for line in whole.log] == [2, 4]
    first, last = (model.network.row.weight for model in (half, whole))
    assert not torch.equal(first, last)


def test_test_data_sets_are_not_those_of_a_training_step():
    task = pfn._tasks(pfn.PROCESS, 2, 8, seed=0)
    for step in range(5):
        _, generator = step_draws(Pretraining(10), step, torch.device("cpu"))
        assert not torch.equal(pfn.PROCESS.sample(2, 8, generator).x, task.x)


def test_half_of_the_labelled_rows_and_half_of_the_test_are_of_either_class():
    X, y = load_breast_cancer(return_X_y=True)
    drawn = tables.Subset.of((X, y > 0), np.random.default_rng(0))
    assert drawn.X.shape == (30, 30) and drawn.y.sum() == 15
    assert drawn.t.mean() == 0.5 and len(drawn.t) == 2 * (212 - 15)
    np.testing.assert_allclose(drawn.X.mean(0), 0.0, atol=1e-12)
    assert abs(drawn.T.mean(0)).max() > 0.01  # the test rows have no say in the scales


def test_a_missing_folder_of_tables_is_said(monkeypatch):
    monkeypatch.delenv("UNDERSTUDY_DATA", raising=False)
    with pytest.raises(UserError, match=r"UNDERSTUDY_DATA.*classification/heart.csv"):
        tables.TABLES["heart"]()


def test_tables_have_two_classes_and_inputs_that_the_network_takes(data_folder):
    for load in tables.TABLES.values():
        X, y = load()
        assert X.shape[1] <= 60 and np.isfinite(X).all() and 0.2 < y.mean() < 0.8


@pytest.mark.slow
def test_the_scores_of_a_table_are_those_of_its_subsets():
    one = {"breast-cancer": tables.TABLES["breast-cancer"]}
    found = tables.measure(one, 1, seed=0)
    assert len(found) == 5
    for scores in found.values():
        assert len(scores.auc) == 1 and scores.auc[0] > 0.9
        assert 0.0 <= scores.calibration_error < 0.3 and scores.seconds[0] > 0.0
