"""Facts about acquisition functions, many of them against BoTorch."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from botorch.acquisition.analytic import (
    LogConstrainedExpectedImprovement,
    LogExpectedImprovement,
)
from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement

from understudy.core.errors import UserError
from understudy.core.search import Constraint, Objective, Observation, Problem
from understudy.core.space import Continuous, Space
from understudy.models.tabular.deep_ensemble import DeepEnsemble
from understudy.search.bayesopt.acquisition import (
    LogEHVI,
    LogEI,
    Request,
    _front,
    _partitioning,
    acquisition,
    log_h,
)
from understudy.search.bayesopt.beliefs import learn
from understudy.search.bayesopt.cube import Cube
from understudy.search.bayesopt.portfolio import Portfolio

SPACE = Space((Continuous("x", 0.0, 1.0), Continuous("y", 0.0, 2.0)))
ONE = Problem(SPACE, (Objective("f"),))
BOUNDED = Problem(SPACE, (Objective("f"),), (Constraint("g", upper=0.3),))
TWO = Problem(SPACE, (Objective("f"), Objective("g", "maximize")))


def outcomes(config):
    x, y = config["x"], config["y"]
    return {"f": (x - 0.4) ** 2 + math.sin(3 * y), "g": x * y - 0.5 * x}


def beliefs_of(problem, n=12, surrogate="exact-gp", failures=(), seed=0):
    configs = Cube(SPACE).configs(Cube(SPACE).sobol(n, seed))
    runs = [Observation(c, None if i in failures else outcomes(c)) for i, c in enumerate(configs)]
    return learn(problem, Cube(SPACE), runs, surrogate, Portfolio(), 0)


def request_of(beliefs, batch=1, pending=None, samples=512):
    none = torch.empty(0, 2, dtype=torch.float64)
    return Request(beliefs, none if pending is None else pending, None, samples, batch, 1)


def points(n, q=1, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, q, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("z", [5.0, 0.5, -0.5, -0.999, -1.001, -3.0, -30.0, -300.0, -3e4])
def test_log_h_is_accurate_wherever_it_is_asked_for(z):
    with mpmath.workdps(400):
        x = mpmath.mpf(z)
        tail = mpmath.erfc(-x / mpmath.sqrt(2)) / 2
        exact = mpmath.log(mpmath.npdf(x) + x * tail) if z > -100 else None
    if exact is None:  # asymptotic series of the Mills ratio
        exact = -0.5 * z * z - 0.5 * math.log(2 * math.pi) - 2 * math.log(-z) - 3.0 / z**2
    assert float(log_h(torch.tensor(z, dtype=torch.float64))) == pytest.approx(
        float(exact), rel=1e-9
    )


def test_the_derivative_of_log_h_is_that_of_its_definition():
    z = torch.linspace(-40.0, 6.0, 93, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_h, z)


def test_closed_form_expected_improvement_is_that_of_botorch():
    beliefs = beliefs_of(ONE)
    model = beliefs.model.parts[0].to_botorch()
    best = float(beliefs.expected().max())
    U = points(40)
    reference = LogExpectedImprovement(model, best)(U)
    torch.testing.assert_close(LogEI(beliefs, best)(U), reference, rtol=1e-4, atol=1e-4)


def test_constrained_expected_improvement_is_that_of_botorch():
    beliefs = beliefs_of(BOUNDED)
    assert [interval.output for interval in beliefs.intervals] == [1]
    model, best = beliefs.model.parts[0].to_botorch(), 0.5
    bound = beliefs.intervals[0].upper
    reference = LogConstrainedExpectedImprovement(model, best, 0, {1: (None, bound)})(points(40))
    found = LogEI(beliefs, best)(points(40))
    torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-4)


def test_closed_form_hypervolume_improvement_is_that_of_botorch():
    beliefs = beliefs_of(TWO)
    reference, front = _front(request_of(beliefs))
    cells = _partitioning(reference, front)
    model = beliefs.model.parts[0].to_botorch()
    exact = ExpectedHypervolumeImprovement(model, reference.tolist(), cells)(points(40))
    found = LogEHVI(beliefs, cells.get_hypercell_bounds())(points(40)).exp()
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-10)


def test_hypervolume_improvement_can_be_climbed_where_it_has_vanished():
    beliefs = beliefs_of(TWO)
    worth = acquisition("log_ehvi", request_of(beliefs))
    U = beliefs.U.unsqueeze(1).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(worth(U).sum(), U)
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient.abs().amax((1, 2)) > 0.0).all())


def test_improvement_by_samples_agrees_with_the_closed_form():
    beliefs = beliefs_of(ONE, n=6)
    U = points(30)
    exact = acquisition("log_ei", request_of(beliefs))(U)
    waiting = beliefs.U[:1]  # a pending point that is known already adds nothing
    sampled = acquisition("log_ei", request_of(beliefs, pending=waiting, samples=2048))(U)
    likely = exact > exact.max() - 3.0
    torch.testing.assert_close(sampled[likely], exact[likely], rtol=0.0, atol=0.1)


def test_a_pending_point_is_worth_nothing_twice():
    beliefs = beliefs_of(ONE, n=6)
    U = points(64)
    best = U[acquisition("log_ei", request_of(beliefs))(U).argmax()]
    for name in ("log_ei", "log_nei", "ei"):
        without = acquisition(name, request_of(beliefs, batch=1, pending=points(1, seed=9)[0]))
        beside = acquisition(name, request_of(beliefs, batch=1, pending=best))
        gain = without(best.unsqueeze(0)), beside(best.unsqueeze(0))
        if name == "log_nei":  # the gain over pending points alone
            assert float(gain[1]) < float(gain[0]) - 1.0
        else:  # of the batch as a whole: no more than that of the point by itself
            assert float(gain[1]) <= float(gain[0]) + 1e-6


def test_where_nothing_is_feasible_the_probability_that_it_is_counts():
    problem = Problem(SPACE, (Objective("f"),), (Constraint("g", lower=2.0),))
    beliefs = beliefs_of(problem)
    assert not bool(beliefs.feasible.any())
    worth = acquisition("auto", request_of(beliefs))
    corner = torch.tensor([[[1.0, 1.0]], [[0.5, 0.0]]], dtype=torch.float64)
    assert float(worth(corner)[0]) > float(worth(corner)[1])
    assert float(worth(corner)[1]) <= 0.0


def test_failures_make_their_surroundings_worth_less():
    U = Cube(SPACE).sobol(24, 0)
    failing = [i for i in range(24) if float(U[i, 0]) > 0.6]
    beliefs = beliefs_of(ONE, n=24, failures=failing)
    mean, deviation = beliefs.model.moments(torch.tensor([[0.9, 0.5], [0.2, 0.5]]).double())
    succeeds = torch.special.ndtr(mean[:, -1] / deviation[:, -1])
    assert float(succeeds[0]) < 0.2 and float(succeeds[1]) > 0.8


def test_a_bound_holds_on_the_learnt_scale_if_it_holds_for_the_outcome():
    problem = Problem(SPACE, (Objective("f"),), (Constraint("f", lower=-0.5, upper=0.8),))
    beliefs = beliefs_of(problem, n=20, surrogate="portfolio")
    configs = Cube(SPACE).configs(beliefs.U)
    assert beliefs.feasible.tolist() == [problem.feasible(outcomes(c)) for c in configs]


def test_networks_are_optimised_through_samples_of_whole_functions():
    beliefs = beliefs_of(ONE, surrogate=DeepEnsemble(max_steps=20))
    worth = acquisition("auto", request_of(beliefs, batch=2, samples=16))
    U = points(3, q=2).requires_grad_()
    (gradient,) = torch.autograd.grad(worth(U).sum(), U)
    assert worth(U).shape == (3,) and bool((gradient != 0.0).any())


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(UserError, match="'log_ie' of one objective; did you mean 'log_ei'"):
        acquisition("log_ie", request_of(beliefs_of(ONE, n=4)))
    with pytest.raises(UserError, match="several objectives"):
        acquisition("log_ei", request_of(beliefs_of(TWO, n=4)))
