"""Facts about acquisition functions, many of them against BoTorch."""

from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import pytest
import torch
from botorch.acquisition.analytic import (
    LogConstrainedExpectedImprovement,
    LogExpectedImprovement,
)
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.box_decompositions import DominatedPartitioning

from understudy.core.errors import UserError
from understudy.core.search import Constraint, Objective, Observation, Problem
from understudy.core.space import Continuous, Space
from understudy.models.tabular.deep_ensemble import DeepEnsemble
from understudy.models.tabular.exact_gp import ExactGP
from understudy.search.bayesopt.acquisition import Request, _front, acquisition
from understudy.search.bayesopt.beliefs import JointModel, learn
from understudy.search.bayesopt.cube import Cube
from understudy.search.bayesopt.improvement import LogEHVI, LogEI, cells, log_h, partitioning
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


def log_ei(beliefs, best):
    """Log EI over a given value."""
    drawn = beliefs.supposing(beliefs.U[:0], 1, 0)
    return LogEI(drawn.moments, torch.tensor([best]).double(), beliefs.intervals)


def noisy_process(beliefs):
    generator = torch.Generator().manual_seed(0)
    Z = beliefs.Z + 0.3 * torch.randn(beliefs.Z.shape, generator=generator, dtype=torch.float64)
    return ExactGP(min_noise=0.05).fit(beliefs.model.cube.features(beliefs.U).numpy(), Z.numpy())


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
    torch.testing.assert_close(log_ei(beliefs, best)(U), reference, rtol=1e-4, atol=1e-4)


def test_constrained_expected_improvement_is_that_of_botorch():
    beliefs = beliefs_of(BOUNDED)
    assert [interval.output for interval in beliefs.intervals] == [1]
    model, best = beliefs.model.parts[0].to_botorch(), 0.5
    bound = beliefs.intervals[0].upper
    reference = LogConstrainedExpectedImprovement(model, best, 0, {1: (None, bound)})(points(40))
    found = log_ei(beliefs, best)(points(40))
    torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-4)


def test_closed_form_hypervolume_improvement_is_that_of_botorch():
    beliefs = beliefs_of(TWO)
    reference, front = _front(request_of(beliefs))
    model = beliefs.model.parts[0].to_botorch()
    parts = partitioning(reference, front)
    exact = ExpectedHypervolumeImprovement(model, reference.tolist(), parts)(points(40))
    found = acquisition("log_ehvi", request_of(beliefs))(points(40)).exp()
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("k", [2, 3])
def test_cells_have_the_volume_that_is_not_dominated(k):
    generator = torch.Generator().manual_seed(k)
    Y = torch.rand(4, 9, k, dtype=torch.float64, generator=generator) * 1.2 - 0.2
    reference = torch.zeros(k, dtype=torch.float64)
    lower, upper = cells(Y, reference).clamp_max(1.0)
    volumes = (upper - lower).prod(-1).sum(-1)
    for volume, y in zip(volumes, Y, strict=True):
        dominated = DominatedPartitioning(ref_point=reference, Y=y).compute_hypervolume()
        assert float(volume) == pytest.approx(1.0 - float(dominated), abs=1e-9)


def test_worth_beside_pending_points_is_what_is_expected_after_their_outcomes():
    """Against 4,000 outcomes of two pending points, for each of which a process learns them."""
    beliefs, U, pending = beliefs_of(TWO, n=6), points(8), points(2, seed=9)[:, 0]
    reference, front = _front(request_of(beliefs))
    worth = acquisition("log_ehvi", request_of(beliefs, pending=pending))(U).exp()
    drawn = beliefs.supposing(pending, 4096, 3)
    every = torch.cat([front.expand(4096, -1, -1), drawn.values], 1)
    exact = LogEHVI(drawn.moments, cells(every, reference), [])(U).exp()
    torch.testing.assert_close(worth, exact, rtol=0.15, atol=float(exact.max()) * 0.02)


def test_what_is_supposed_is_what_a_process_with_these_values_believes():
    beliefs, pending, U = beliefs_of(ONE, n=8), points(3, seed=9)[:, 0], points(20)[:, 0]
    drawn = beliefs.supposing(pending, 4, 3)
    model = beliefs.model.parts[0].to_botorch()
    joint = model.posterior(beliefs.model.cube.features(torch.cat([pending, U]))).mvn
    covariance, prior = joint.covariance_matrix, joint.mean
    gain = torch.linalg.solve(covariance[:3, :3], covariance[:3, 3:]).mT
    exact = prior[3:, None] + gain @ (drawn.values[:, :, 0].mT - prior[:3, None])
    left = covariance.diagonal()[3:] - (gain * covariance[3:, :3]).sum(1)
    mean, deviation = drawn.moments(U)
    torch.testing.assert_close(mean[..., 0], exact, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(deviation[:, 0, 0].square(), left, rtol=1e-2, atol=1e-5)


def test_values_that_noise_hides_are_averaged_over():
    """Against BoTorch's noisy expected improvement, by samples, of single points."""
    beliefs = beliefs_of(ONE, n=14)
    noisy = replace(beliefs, model=JointModel(Cube(SPACE), [noisy_process(beliefs)]))
    U = points(30)
    found = acquisition("log_nei", request_of(noisy, samples=256))(U)
    sampled = qLogNoisyExpectedImprovement(
        noisy.model,
        noisy.U,
        SobolQMCNormalSampler(torch.Size([2048]), seed=1),
        cache_root=False,
        prune_baseline=False,
    )(U)
    likely = sampled > sampled.max() - 2.0
    torch.testing.assert_close(found[likely], sampled[likely], rtol=0.0, atol=0.15)


def test_hypervolume_improvement_can_be_climbed_where_it_has_vanished():
    beliefs = beliefs_of(TWO)
    worth = acquisition("log_ehvi", request_of(beliefs))
    U = beliefs.U.unsqueeze(1).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(worth(U).sum(), U)
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient.abs().amax((1, 2)) > 0.0).all())


def test_a_pending_point_that_is_known_already_adds_nothing():
    beliefs = beliefs_of(ONE, n=6)
    U = points(30)
    exact = acquisition("log_ei", request_of(beliefs))(U)
    beside = acquisition("log_ei", request_of(beliefs, pending=beliefs.U[:1]))(U)
    likely = exact > exact.max() - 3.0
    torch.testing.assert_close(beside[likely], exact[likely], rtol=0.0, atol=0.02)


def test_improvement_by_samples_agrees_with_the_closed_form():
    beliefs = beliefs_of(BOUNDED, n=10)
    U = points(30)
    exact = acquisition("log_ei", request_of(beliefs))(U)
    pair = torch.cat([U, U], 1)  # of the same point twice: judged by samples
    sampled = acquisition("log_ei", request_of(beliefs, batch=2, samples=2048))(pair)
    likely = exact > exact.max() - 3.0
    torch.testing.assert_close(sampled[likely], exact[likely], rtol=0.0, atol=0.2)


def test_a_pending_point_is_worth_nothing_twice():
    beliefs = beliefs_of(ONE, n=6)
    U = points(64)
    best = U[acquisition("log_ei", request_of(beliefs))(U).argmax()]
    for name in ("log_ei", "log_nei", "ei"):
        without = acquisition(name, request_of(beliefs, batch=1, pending=points(1, seed=9)[0]))
        beside = acquisition(name, request_of(beliefs, batch=1, pending=best))
        gain = without(best.unsqueeze(0)), beside(best.unsqueeze(0))
        if name != "ei":  # the gain over pending points alone
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
