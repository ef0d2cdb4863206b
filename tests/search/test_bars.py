"""Searches that learn by an in-context network."""

import numpy as np
import pytest
import torch

from understudy.core.search import Objective, Problem
from understudy.core.space import Continuous, Space
from understudy.models.incontext.estimators import PFNSurrogate
from understudy.search.bayesopt import BayesianSearcher
from understudy.search.bayesopt.acquisition import Request, acquisition
from understudy.search.bayesopt.bars import LogBarEI
from understudy.search.bayesopt.beliefs import learn
from understudy.search.bayesopt.cube import Cube
from understudy.search.bayesopt.portfolio import Portfolio

SPACE = Space((Continuous("a", -2.0, 2.0), Continuous("b", 0.0, 1.0)))
PROBLEM = Problem(SPACE, (Objective("y", "minimize"),))


def observed(n: int = 12) -> BayesianSearcher:
    searcher = BayesianSearcher(PROBLEM, seed=0, surrogate="pfn")
    configs = SPACE.sample(n, seed=4).to_dict("records")
    searcher.tell(configs, [{"y": bowl(c)} for c in configs])
    return searcher


def bowl(config: dict) -> float:
    return (config["a"] - 0.7) ** 2 + 2.0 * (config["b"] - 0.3) ** 2


@pytest.fixture(scope="module")
def request_of_one() -> Request:
    searcher = observed()
    beliefs = learn(PROBLEM, Cube(SPACE), searcher.observations, "pfn", Portfolio(), seed=0)
    return Request(beliefs, torch.empty(0, 2).double(), None, 64, 1, 0)


def test_worth_is_the_exact_expected_improvement(request_of_one):
    worth = acquisition("auto", request_of_one)
    assert isinstance(worth, LogBarEI)
    U = torch.rand(6, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    beliefs = request_of_one.beliefs
    posterior = beliefs.model.posterior(U)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = posterior.rsample(torch.Size([40_000]))[..., 0, 0]
    best = beliefs.expected()[:, 0].max()
    sampled = (draws - best).clamp_min(0.0).mean(0)
    assert torch.allclose(worth(U).exp(), sampled, rtol=0.1, atol=2e-3)


def test_worth_has_gradients_and_falls_at_pending_points(request_of_one):
    free = acquisition("log_ei", request_of_one)
    U = torch.full((1, 1, 2), 0.6, dtype=torch.float64, requires_grad=True)
    free(U).sum().backward()
    assert bool(torch.isfinite(U.grad).all())
    pending = Request(request_of_one.beliefs, U.detach()[0], None, 64, 1, 0)
    with torch.no_grad():
        assert float(acquisition("log_ei", pending)(U)) < float(free(U))


@pytest.mark.slow
def test_a_search_by_a_network_goes_downhill():
    searcher = observed()
    before = min(o.values["y"] for o in searcher.observations)
    for _ in range(3):
        configs = searcher.ask(2)
        assert configs[0] != configs[1]
        searcher.tell(configs, [{"y": bowl(c)} for c in configs])
    assert min(o.values["y"] for o in searcher.observations) < before


@pytest.mark.slow
def test_a_network_searches_for_two_objectives():
    problem = Problem(SPACE, (Objective("y", "minimize"), Objective("a2", "minimize")))
    searcher = BayesianSearcher(problem, seed=0, surrogate="pfn")
    configs = SPACE.sample(10, seed=4).to_dict("records")
    searcher.tell(configs, [{"y": bowl(c), "a2": c["a"] ** 2} for c in configs])
    assert len(searcher.ask(2)) == 2


def test_a_network_that_read_more_rows_keeps_its_scales_and_its_limit():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(195, 2))
    model = PFNSurrogate(orders=1).fit(X, X.sum(1))
    more = torch.from_numpy(rng.uniform(size=(10, 2)))
    longer = model.extended(more, more.sum(1, keepdim=True))
    assert len(longer._rows) == 200
    assert np.allclose(longer.predict(X), X.sum(1), atol=0.15)
    assert len(model._rows) == 195
