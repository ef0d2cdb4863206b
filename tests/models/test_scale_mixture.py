"""Student-t processes and other scale mixtures as surrogates."""

import numpy as np
import pytest
import torch
from botorch.acquisition import qLogNoisyExpectedImprovement, qUpperConfidenceBound
from botorch.acquisition.logei import qLogExpectedImprovement
from botorch.optim import optimize_acqf
from scipy import stats
from sklearn.utils.estimator_checks import estimator_checks_generator

from understudy.core.errors import UserError
from understudy.core.posterior import (
    MixturePosterior,
    ScaleMixturePosterior,
    independent_gaussian,
)
from understudy.models.tabular.infinite_width import InfiniteWidthSurrogate
from understudy.models.tabular.scale_mixture import (
    BurrXII,
    InverseGamma,
    PointMass,
    ScaleMixtureLikelihood,
    ScaleMixtureSurrogate,
    StudentTProcess,
)


def table(n: int = 25, d: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3.0, 5.0, size=(n, d))
    Y = np.column_stack([np.sin(X[:, 0]) + X[:, 1], 100.0 * X[:, 1] ** 2])
    return X, Y + rng.normal(size=(n, 2)) * [0.1, 10.0]


@pytest.fixture(scope="module")
def process() -> StudentTProcess:
    return StudentTProcess(depth=1).fit(*table())


@pytest.fixture(scope="module")
def mixture() -> ScaleMixtureSurrogate:
    return ScaleMixtureSurrogate(depth=1, scale_prior=BurrXII(2.0, 1.0)).fit(*table())


def scale_matrix(process: StudentTProcess, output: int, U: torch.Tensor) -> np.ndarray:
    """Of observations at scaled inputs U (n, d): beta / alpha is in the kernel's scale."""
    kernel = process._prior.kernel.process(output)
    return kernel(U, U)[0].numpy() + float(process._prior.noise[output]) * np.eye(len(U))


@pytest.mark.parametrize("output", [0, 1])
def test_its_predictive_is_the_conditional_of_a_multivariate_t(process, output):
    at = table(n=3, seed=1)[0]
    U = process._scaled(torch.from_numpy(at))
    y, constant = process._targets[:, output].numpy(), float(process._constant[output])
    unit = float(process._y_scale[output])
    predicted = process.student_t(at)
    for i in range(3):
        target = process._y_shift[output] + unit * (0.5 + 0.3 * i)
        both = torch.cat([process._inputs, U[[i]]])
        C, values = scale_matrix(process, output, both), np.r_[y, 0.5 + 0.3 * i] - constant
        joint = stats.multivariate_t(None, C, df=4.0).logpdf(values)
        marginal = stats.multivariate_t(None, C[:-1, :-1], df=4.0).logpdf(values[:-1])
        found = predicted.log_prob(target.expand(3, 2))[i, output]
        assert float(found) == pytest.approx(joint - marginal - np.log(unit), abs=1e-6)


def test_the_mixture_has_the_density_quantiles_and_crps_of_t():
    process = StudentTProcess(depth=1, learn_kernel=False).fit(*(v[:4] for v in table()))
    at = table(n=5, seed=2)[0]
    exact, mixture = process.student_t(at), process.predictive(at)
    assert exact.df == 8.0
    for z in (0.0, 1.0, -3.0, 6.0):
        y = exact.mean + z * exact.scale
        assert torch.allclose(mixture.log_density(y), exact.log_prob(y), atol=1e-5)
    levels = torch.tensor([0.001, 0.05, 0.5, 0.99], dtype=torch.float64)
    assert torch.allclose(
        (mixture.quantile(levels) - exact.mean) / exact.scale,
        (exact.quantile(levels) - exact.mean) / exact.scale,
        atol=1e-5,
    )
    draws = stats.t(8.0).ppf((np.arange(20_000) + 0.5) / 20_000)
    distance, spread = np.abs(draws - 1.0).mean(), np.abs(np.subtract.outer(draws[::20], draws))
    crps = mixture.crps(exact.mean + exact.scale) / exact.scale
    assert torch.allclose(crps, torch.full_like(crps, distance - 0.5 * spread.mean()), rtol=2e-3)
    deviation = exact.scale * (8.0 / 6.0) ** 0.5
    assert torch.allclose(mixture.sd, deviation, rtol=1e-4)


@pytest.mark.parametrize("prior", [InverseGamma(2.0, 2.0), BurrXII(2.0, 1.0), PointMass(1.0)])
def test_the_gradient_of_the_likelihood_is_that_of_finite_differences(prior):
    rng = np.random.default_rng(0)
    X, Y = torch.from_numpy(rng.random((12, 2))), rng.normal(size=(12, 2))
    surrogate = ScaleMixtureSurrogate(scale_prior=prior)
    surrogate.depth_ = 2
    likelihood = surrogate._likelihood(X)
    assert isinstance(likelihood, ScaleMixtureLikelihood)
    theta, step = likelihood.prior.starts[0] + 0.3 * rng.normal(size=6), 1e-4
    _, gradient = likelihood(theta, Y)
    for k, direction in enumerate(np.eye(6)):
        above, _ = likelihood(theta + step * direction, Y)
        below, _ = likelihood(theta - step * direction, Y)
        assert gradient[k] == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-3)


def test_the_likelihood_is_that_of_a_multivariate_t():
    rng = np.random.default_rng(0)
    X, y = torch.from_numpy(rng.random((9, 2))), rng.normal(size=9)
    process = StudentTProcess(alpha=1.5, depth=1)
    process.depth_ = 1
    likelihood = process._likelihood(X)
    theta = likelihood.prior.starts[0]
    value = float(likelihood.values(theta, y[:, None])[0]) - likelihood.prior.penalty(theta)[0]
    parameters = torch.from_numpy(np.exp(theta))[None]
    K = process._kernel(parameters)(X, X)[0].numpy() + np.exp(theta[-2]) * np.eye(9)
    ones = np.linalg.solve(K, np.ones(9))
    density = stats.multivariate_t(np.full(9, ones @ y / ones.sum()), K, df=3.0).logpdf(y)
    assert value == pytest.approx(-density, rel=1e-9)


def test_one_table_does_not_tell_the_degrees_of_freedom():
    y, n = np.random.default_rng(0).standard_t(3.0, size=12), 12
    best = [
        stats.multivariate_t(None, (y @ y / n) * np.eye(n), df=df).logpdf(y)
        for df in (1.0, 4.0, 16.0, 64.0, 256.0)  # each at its own most likely scale
    ]
    assert (np.diff(best) > 0.0).all()


def test_many_degrees_of_freedom_are_the_gaussian_process():
    X, Y = table()
    at = table(n=6, seed=3)[0]
    heavy = StudentTProcess(alpha=1e6, depth=1).fit(X, Y).predictive(at)
    plain = InfiniteWidthSurrogate(depth=1).fit(X, Y).predictive(at)
    assert torch.allclose(heavy.mean, plain.mean, rtol=1e-3, atol=1e-3)
    assert torch.allclose(heavy.sd, plain.sd, rtol=1e-2)


def test_importance_sampling_from_the_prior_agrees_with_the_closed_form(process):
    options = {"depth": 1, "scale_prior": InverseGamma(2.0, 2.0), "proposal": "prior"}
    sampled = ScaleMixtureSurrogate(**options).fit(*table())
    at, y = table(n=40, seed=4)
    found, exact = sampled.predictive(at), process.student_t(at)
    gap = found.log_density(torch.from_numpy(y)) - exact.log_prob(torch.from_numpy(y))
    assert float(gap.mean().abs()) < 0.01
    assert (sampled.effective_sample_size_ > 100.0).all()


def test_all_draws_together_have_the_tail_of_t_far_outside():
    X, y = (v[:20] for v in table())
    exact = StudentTProcess(depth=1, learn_kernel=False).fit(X, y)
    options = {"depth": 1, "learn_kernel": False, "scale_prior": InverseGamma(2.0, 2.0)}
    sampled = ScaleMixtureSurrogate(**options).fit(X, y)
    at = table(n=3, seed=8)[0]
    t = exact.student_t(at)
    far = t.mean + 20.0 * t.scale
    whole, brief = sampled.sampled_predictive(at), sampled.predictive(at)
    assert torch.allclose(whole.log_density(far), t.log_prob(far), atol=0.05)
    assert (
        float((brief.log_density(far) - t.log_prob(far)).max()) < -1.0
    )  # 16 Gaussians fall sooner


def test_a_point_mass_is_the_gaussian_process():
    X, Y = table()
    at = table(n=6, seed=3)[0]
    point = ScaleMixtureSurrogate(scale_prior="point-mass", depth=1).fit(X, Y).predictive(at)
    plain = InfiniteWidthSurrogate(depth=1).fit(X, Y).predictive(at)
    assert torch.allclose(point.mean, plain.mean) and torch.allclose(point.sd, plain.sd)


# -- joint posterior --------------------------------------------------------------------------


def test_draws_share_one_scale(process):
    at = torch.from_numpy(table(n=3, seed=5)[0])
    posterior = process.posterior(at)
    torch.manual_seed(0)
    whitened = posterior.rsample(torch.Size([4000]))[..., 0] - posterior.mean[:, 0]
    K = np.cov(whitened.detach().numpy().T)
    z = np.linalg.solve(np.linalg.cholesky(K), whitened.detach().numpy().T)
    squares = (z**2).sum(0) / 3.0
    df = 4.0 + 25.0
    ratio = stats.f(3.0, df)  # of t draws: chi-square of three over that of the scale
    assert stats.kstest(squares * df / (df - 2.0), ratio.cdf).pvalue > 0.01


def test_a_draw_is_heavy_or_light_at_all_points_together():
    zero, one = torch.zeros(2, 40, 1), torch.ones(2, 40, 1)
    prior = InverseGamma(1.0, 1.0)
    gaussian = independent_gaussian(zero, one)
    posterior = ScaleMixturePosterior(gaussian, prior.quantile, torch.tensor([torch.inf]))
    torch.manual_seed(0)
    spread = posterior.rsample(torch.Size([500])).square().mean(-2)[..., 0]  # (500, 2)
    assert float(spread.log().std()) > 0.8  # forty independent scales would average out
    assert bool(torch.isinf(posterior.variance).all())


def test_joint_and_marginal_moments_agree(process, mixture):
    at = table(n=9, seed=2)[0]
    for surrogate in (process, mixture):
        joint = surrogate.posterior(torch.from_numpy(at), observation_noise=True)
        marginal = surrogate.predictive(at)
        assert torch.allclose(joint.mean, marginal.mean, rtol=1e-8)
        assert torch.allclose(joint.variance.sqrt(), marginal.sd, rtol=1e-3)


def test_draws_differentiate_in_their_inputs(process):
    at = torch.from_numpy(table(n=2, seed=6)[0]).requires_grad_()
    base = torch.randn(1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def draw(x: torch.Tensor) -> torch.Tensor:
        return process.posterior(x).rsample_from_base_samples(torch.Size([1]), base)

    assert torch.autograd.gradcheck(draw, (at,), eps=1e-5, atol=1e-3)


@pytest.mark.parametrize("make", [qLogExpectedImprovement, qLogNoisyExpectedImprovement])
def test_it_works_under_botorchs_acquisition_functions(make):
    X, Y = table()
    surrogate = StudentTProcess(depth=1).fit(X, -np.abs(Y[:, 0]))
    model = surrogate.to_botorch()
    extra = {"best_f": -0.1} if make is qLogExpectedImprovement else {}
    if make is qLogNoisyExpectedImprovement:
        extra = {"X_baseline": torch.from_numpy(X[:5]), "prune_baseline": False}
        extra["cache_root"] = False
    acquisition = make(model, **extra)
    bounds = torch.tensor([[-3.0, -3.0], [5.0, 5.0]], dtype=torch.float64)
    options = {"maxiter": 5}
    found, value = optimize_acqf(
        acquisition, bounds, q=2, num_restarts=1, raw_samples=8, options=options
    )
    assert found.shape == (2, 2)
    assert bool(torch.isfinite(value))


def test_one_output_of_several_can_be_optimised(mixture):
    from botorch.acquisition.objective import LinearMCObjective

    model, weights = mixture.to_botorch(), torch.tensor([1.0, -0.01], dtype=torch.float64)
    at = torch.rand(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = qUpperConfidenceBound(model, 2.0, objective=LinearMCObjective(weights))(at)
    assert value.shape == (3,) and bool(torch.isfinite(value).all())


def test_it_joins_a_stack_of_other_surrogates(process, mixture):
    at = torch.from_numpy(table(n=4, seed=7)[0])
    parts = [surrogate.posterior(at) for surrogate in (process, mixture)]
    weights = torch.tensor([[0.25, 1.0], [0.75, 0.0]], dtype=torch.float64)
    stack = MixturePosterior(parts, weights)
    torch.manual_seed(0)
    draws = stack.rsample(torch.Size([3000]))
    error = (stack.variance / 3000).sqrt()
    assert bool(((draws.mean(0) - stack.mean).abs() < 5.0 * error).all())


def test_drawn_functions_have_the_heavy_tails_of_the_process():
    X, y = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 0.5])
    process = StudentTProcess(depth=1, alpha=1.0, learn_kernel=False).fit(X, y)
    values = process.functions(4000, seed=1)(np.array([[3.0], [0.5]]))[..., 0]
    exact = process.student_t(np.array([[3.0], [0.5]]))
    inner = ((values - exact.mean[:, 0]) / exact.scale[:, 0]).numpy()
    assert np.quantile(inner[:, 0], 0.9) == pytest.approx(stats.t(5.0).ppf(0.9), rel=0.2)
    assert stats.kurtosis(inner[:, 0]) > 0.7


# -- the contract of a surrogate --------------------------------------------------------------


def test_the_closed_form_of_cross_validation_is_a_fit_without_the_fold(process):
    folds = np.arange(25) % 5
    closed = process._held_out(folds)
    for fold in range(2):
        rows = torch.from_numpy(folds == fold)
        copy = process._copy()
        copy._condition(process._theta, process._inputs[~rows], process._targets[~rows])
        direct = copy._predictive(process._inputs[rows])
        assert torch.allclose(closed.loc[:, rows], direct.loc, rtol=1e-7, atol=1e-9)
        assert torch.allclose(closed.scale[:, rows], direct.scale, rtol=1e-7)


@pytest.mark.parametrize("name", ["process", "mixture"])
def test_its_state_comes_back_bit_for_bit(name, request):
    import json

    surrogate = request.getfixturevalue(name)
    head, tensors = surrogate.state()
    again = type(surrogate).from_state(json.loads(json.dumps(head)), tensors)
    X = table()[0]
    assert np.array_equal(again.predict(X, return_std=True), surrogate.predict(X, return_std=True))
    again.fit(*table(n=6))


def test_constant_outputs_and_two_rows_are_accepted():
    for surrogate in (StudentTProcess(), ScaleMixtureSurrogate()):
        mean, sd = surrogate.fit([[0.0], [1.0]], [1.0, 1.0]).predict([[0.5]], return_std=True)
        assert mean[0] == pytest.approx(1.0) and np.isfinite(sd[0]) and sd[0] > 0.0


def test_cross_validation_holds_rows_out():
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 2)), rng.normal(size=40)
    out_of_fold = StudentTProcess(depth=1).fit_cross_validated(X, y, np.arange(40) % 4)
    assert np.square(out_of_fold.mean[:, 0].numpy() - y).mean() > 0.7 * y.var()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(e, c, id=f"{type(e).__name__}-{getattr(c, 'func', c).__name__}")
        for surrogate in (StudentTProcess(depth=1), ScaleMixtureSurrogate(depth=1))
        for e, c in estimator_checks_generator(surrogate, mark=None)
    ],
)
def test_scikit_learn_accepts_it_as_a_regressor(estimator, check):
    if getattr(check, "func", check).__name__ == "check_sample_weights_pandas_series":
        pytest.skip("sample weights are not part of the contract")
    check(estimator)


@pytest.mark.parametrize(
    ("surrogate", "named"),
    [
        (StudentTProcess(alpha=0.0), "alpha"),
        (StudentTProcess(activation="sine"), "activation"),
        (ScaleMixtureSurrogate(scale_prior="cauchy"), "scale_prior"),
        (ScaleMixtureSurrogate(scale_prior=("burr-xii", 0.0, 1.0)), "c of BurrXII"),
        (ScaleMixtureSurrogate(proposal="uniform"), "proposal"),
        (ScaleMixtureSurrogate(num_samples=2), "num_samples"),
    ],
)
def test_wrong_options_are_named(surrogate, named):
    with pytest.raises(UserError, match=named):
        surrogate.fit(*table(n=5))
