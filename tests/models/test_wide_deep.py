"""Infinitely wide and deep classifiers, their activations and kernels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from understudy.core.errors import UserError
from understudy.models.tabular import wide_deep
from understudy.models.tabular.wide_deep import HilbertEstimator, InfiniteDepthClassifier
from understudy.nn.dual_activation import (
    DepthLimit,
    DualActivation,
    ErfActivation,
    HermiteActivation,
    ReLUActivation,
    SineActivation,
    classify_limit,
    design_activation,
    optimal_activation,
)
from understudy.nn.tangent_kernel import deep_kernel, ridgeless

ACTIVATIONS = {
    "optimal on the circle": optimal_activation(1),
    "optimal in 4-d": optimal_activation(4),
    "second Hermite": HermiteActivation([0.0, 0.0, 1.0]),
    "second and third Hermite": HermiteActivation([0.0, 0.0, 0.6, 0.8]),
    "with a mean": HermiteActivation([0.2, 0.3, 0.8]),
    "relu": ReLUActivation(),
    "erf": ErfActivation(),
    "sine": SineActivation(2.0),
}

each_activation = pytest.mark.parametrize("name", list(ACTIVATIONS))

EXPECTED_FAILURES: dict[str, str] = {}


def sphere(n: int, d: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of the non-negative orthant of the sphere, with noisy labels."""
    rng = np.random.default_rng(seed)
    X = np.abs(rng.normal(size=(n, d + 1)))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, np.where(X[:, 0] + 0.3 * rng.normal(size=n) > X[:, 1], 1, -1)


def plain(
    xi: torch.Tensor, activation: DualActivation, depth: int, tangent: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel of the textbook recursions, and its diagonal."""
    S = K = xi
    diagonal = T = torch.ones(1, dtype=torch.float64)
    for _ in range(depth):
        K = activation.dual(S) + K * activation.dual_derivative(S)
        S = activation.dual(S)
        diagonal = T + diagonal * activation.dual_derivative(T)
    return (K, diagonal) if tangent else (S, T)


# -- activations ----------------------------------------------------------------------------


@each_activation
def test_the_dual_is_the_covariance_of_the_activation(name):
    activation = ACTIVATIONS[name]
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    u, w = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    xi = torch.tensor([0.0, 0.3, 0.7], dtype=torch.float64)
    v = xi[:, None, None] * u[:, None] + (1 - xi.square()).sqrt()[:, None, None] * u
    covariance = (activation(v) * (w * activation(u))[:, None] * w).sum((1, 2))
    tolerance = 3e-3 if name == "relu" else 1e-10  # quadrature of a kink converges slowly
    torch.testing.assert_close(covariance, activation.dual(xi), rtol=tolerance, atol=tolerance)


@each_activation
def test_the_dual_of_coinciding_points_is_one_and_its_slope_the_mean_square_slope(name):
    activation = ACTIVATIONS[name]
    one = torch.ones(1, dtype=torch.float64)
    assert float(activation.dual(one)) == pytest.approx(1.0, abs=1e-14)
    slope = float(activation.dual_derivative(one))
    assert slope == pytest.approx(activation.constants().slope_square, rel=1e-12)


@each_activation
def test_the_derivative_of_the_dual_is_that_of_autograd(name):
    xi = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    activation = ACTIVATIONS[name]
    torch.func.grad(lambda x: activation.dual_derivative(x).sum())
    step = 1e-6
    slope = (activation.dual(xi + step) - activation.dual(xi - step)) / (2 * step)
    torch.testing.assert_close(
        activation.dual_derivative(xi).detach(), slope.detach(), rtol=1e-7, atol=1e-8
    )


@each_activation
def test_mean_and_slope_are_the_first_two_hermite_coefficients(name):
    activation, numbers = ACTIVATIONS[name], ACTIVATIONS[name].constants()
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(activation.dual(zero)) == pytest.approx(numbers.mean**2, abs=1e-15)
    assert float(activation.dual_derivative(zero)) == pytest.approx(numbers.slope**2, abs=1e-15)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 8, 30, 400])
def test_the_optimal_activation_has_the_singularity_of_its_dimension(dimension):
    assert optimal_activation(dimension).constants().alpha == pytest.approx(dimension, rel=1e-12)


def test_the_optimal_duals_are_those_of_the_official_code():
    xi = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    golden = {
        1: (xi + xi**7) / 2,
        2: (xi + xi**3) / 2,
        4: xi / 4 + xi**2 / 2 + xi**3 / 4,
        8: xi / 16 + 7 * xi**2 / 8 + xi**3 / 16,
    }
    for dimension, dual in golden.items():
        torch.testing.assert_close(optimal_activation(dimension).dual(xi), dual)


@pytest.mark.parametrize(("dimension", "a"), [(2, 2.676), (4, 6.13539), (8, 13.8258)])
def test_the_optimal_sine_has_the_frequency_of_the_official_code(dimension, a):
    assert SineActivation.optimal(dimension).a == pytest.approx(a, rel=1e-4)


def test_no_sine_is_optimal_on_the_circle():
    with pytest.raises(UserError, match="alpha tends to 1"):
        SineActivation.optimal(1)


@settings(max_examples=40, deadline=None)
@given(
    degrees=st.sets(st.integers(2, 12), min_size=1, max_size=4),
    excess=st.floats(0.02, 20.0),
)
def test_a_designed_activation_has_the_alpha_asked_for(degrees, excess):
    alpha = 2.0 / (sum(degrees) / len(degrees) - 1.0) + excess
    activation = design_activation(alpha, sorted(degrees))
    assert activation.constants().alpha == pytest.approx(alpha, rel=1e-6)


def test_a_design_out_of_reach_says_what_is_in_reach():
    with pytest.raises(UserError, match=r"from above 1 to 2000, got 0\.5"):
        design_activation(0.5, (3,))
    with pytest.raises(UserError, match="whole numbers from 2"):
        design_activation(1.0, (1,))


def test_the_taxonomy_is_that_of_the_paper():
    kinds = {name: str(classify_limit(a)) for name, a in ACTIVATIONS.items()}
    assert kinds == {
        "optimal on the circle": "singular(1)",
        "optimal in 4-d": "singular(4)",
        "second Hermite": "1-nn",
        "second and third Hermite": "1-nn",
        "with a mean": "majority",
        "relu": "majority",
        "erf": "singular(0.888215)",
        "sine": f"singular({SineActivation(2.0).constants().alpha:.6g})",
    }
    assert classify_limit(HermiteActivation([0.0, 1.0])) == DepthLimit("linear")
    assert str(classify_limit(HermiteActivation([0.9, 0.3]))) == "interpolation"


def test_an_expansion_recovers_a_closed_form():
    expanded, closed = HermiteActivation.expand(torch.erf), ErfActivation()
    xi = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    torch.testing.assert_close(expanded.dual(xi), closed.dual(xi), rtol=1e-6, atol=1e-8)
    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)
    torch.testing.assert_close(expanded(x), closed(x), rtol=1e-3, atol=1e-3)


def test_an_expansion_with_too_few_terms_is_refused():
    with pytest.raises(UserError, match="give more terms"):
        HermiteActivation.expand(lambda x: torch.sin(6 * x), terms=5)


@pytest.mark.parametrize("bad", [[], [0.0, 0.0], [1.0, math.nan], [[1.0]]])
def test_coefficients_that_are_no_activation_are_refused(bad):
    with pytest.raises(UserError, match="coefficients must be"):
        HermiteActivation(bad)


@pytest.mark.parametrize("bad", [0, 2001, 1.5, True])
def test_a_dimension_without_an_optimal_activation_is_refused(bad):
    with pytest.raises(UserError, match="dimension must be"):
        optimal_activation(bad)


@pytest.mark.parametrize(
    ("activation", "depth", "width"),
    [(optimal_activation(2), 1, 100_000), (ErfActivation(), 3, 1500)],
)
def test_a_wide_finite_network_has_the_kernel_of_the_infinite_one(activation, depth, width):
    X = torch.from_numpy(sphere(6)[0])
    generator = torch.Generator().manual_seed(0)
    h = X
    for _ in range(depth):
        weights = torch.randn(width, h.shape[1], generator=generator, dtype=torch.float64)
        h = activation(h @ weights.mT) / math.sqrt(width)
    cosine = (X @ X.mT).fill_diagonal_(0.0)
    infinite = deep_kernel(cosine, activation, depth).over_diagonal().fill_diagonal_(1.0)
    torch.testing.assert_close(h @ h.mT, infinite, rtol=0.0, atol=0.12)


# -- kernels --------------------------------------------------------------------------------


@each_activation
@pytest.mark.parametrize("tangent", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 5, 8])
def test_the_kernel_is_that_of_the_plain_recursion(name, tangent, depth):
    xi = torch.linspace(0.6, 0.999, 20, dtype=torch.float64).reshape(4, 5)
    entries, diagonal = plain(xi, ACTIVATIONS[name], depth, tangent)
    kernel = deep_kernel(xi, ACTIVATIONS[name], depth, tangent)
    torch.testing.assert_close(kernel.over_diagonal(), entries / diagonal, rtol=1e-9, atol=0.0)
    largest = entries.amax(-1, keepdim=True)
    torch.testing.assert_close(kernel.over_largest(), entries / largest, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("tangent", [False, True])
@pytest.mark.parametrize("name", ["second and third Hermite", "optimal in 4-d", "sine"])
def test_negative_inner_products_keep_their_signs(name, tangent, depth):
    xi = torch.tensor([[-0.9, -0.33, -0.01, 0.0, 0.5]], dtype=torch.float64)
    entries, diagonal = plain(xi, ACTIVATIONS[name], depth, tangent)
    kernel = deep_kernel(xi, ACTIVATIONS[name], depth, tangent)
    torch.testing.assert_close(kernel.over_diagonal(), entries / diagonal, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("depth", [1, 3, 7, 40, 2000])
@pytest.mark.parametrize("tangent", [False, True])
def test_a_deeper_kernel_takes_no_more_layers_than_converge(depth, tangent):
    """Beyond convergence the tangent ratio r grows by 1 a layer, the coordinate not at all."""
    xi = torch.full((1, 1), 0.6, dtype=torch.float64)
    kernel = deep_kernel(xi, optimal_activation(4), depth, tangent)
    deeper = deep_kernel(xi, optimal_activation(4), depth + 1, tangent)
    if depth >= 40:
        torch.testing.assert_close(deeper.coordinate, kernel.coordinate, rtol=1e-15, atol=0.0)
        torch.testing.assert_close(deeper.factor - kernel.factor, torch.full_like(xi, tangent))
    assert bool((deeper.coordinate >= kernel.coordinate).all())


def test_the_limit_solves_koenigs_equation():
    activation = optimal_activation(4)
    xi = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[None]
    psi = deep_kernel(xi, activation, math.inf).coordinate.exp()
    after = deep_kernel(activation.dual(xi), activation, math.inf).coordinate.exp()
    torch.testing.assert_close(after, activation.leading * psi, rtol=1e-12, atol=0.0)


def test_the_limit_kernel_has_the_singularity_of_its_alpha():
    """Over a factor B' in squared distance psi grows by exactly B'^(alpha/2) near the pole."""
    activation = optimal_activation(4)
    growth, alpha = 2.0, 4.0
    squares = torch.tensor([[1e-6, 1e-6 * growth]], dtype=torch.float64)
    u = deep_kernel(1.0 - 0.5 * squares, activation, math.inf).coordinate[0]
    assert float(u[0] - u[1]) == pytest.approx(0.5 * alpha * math.log(growth), rel=1e-5)


@given(xi=st.floats(0.01, 0.99), gap=st.floats(1e-4, 0.009))
@settings(max_examples=40, deadline=None)
def test_the_nearest_point_dominates_a_limit_without_slope(xi, gap):
    pair = torch.tensor([[xi, xi + gap]], dtype=torch.float64)
    kernel = deep_kernel(pair, HermiteActivation([0.0, 0.0, 0.8, 0.6]), math.inf)
    assert kernel.over_largest().tolist() == [[0.0, 1.0]]


def test_with_a_mean_and_a_small_slope_depth_interpolates_by_the_koenigs_function_at_one():
    """1 - S_l = B'^l chi to first order: interpolation by -chi with a constant, not a majority."""
    activation = HermiteActivation([0.9, 0.3, 0.3])
    X, y = sphere(8)
    points, targets = torch.from_numpy(X), torch.from_numpy(y)[:, None].double()
    cosine = (points @ points.mT).clamp_max(1.0)
    S = deep_kernel(cosine.clone().fill_diagonal_(0.0), activation, 8).over_diagonal()
    shrink = activation.constants().slope_square ** 8
    chi = ((1.0 - S) / shrink).fill_diagonal_(0.0)
    ones = torch.ones(7, 1, dtype=torch.float64)
    bordered = torch.cat(
        [torch.cat([-chi[:7, :7], ones], 1), torch.cat([ones, torch.zeros(1, 1)]).mT.double()]
    )
    weights = torch.linalg.solve(bordered, torch.cat([targets[:7], torch.zeros(1, 1)]).double())
    interpolated = torch.cat([-chi[7:, :7], ones[:1]], 1) @ weights
    gram = S.fill_diagonal_(1.0)
    regressed = gram[7:, :7] @ torch.linalg.solve(gram[:7, :7], targets[:7])
    torch.testing.assert_close(regressed, interpolated, rtol=0.02, atol=0.02)
    assert classify_limit(activation).kind == "interpolation"


def test_a_steep_sine_does_not_underflow_at_depth():
    """D^100 of 0.5 is below 1e-500 here; its share of the row is that at depth 50."""
    xi = torch.tensor([[0.5, 0.6, 0.9]], dtype=torch.float64)
    activation = SineActivation(13.8258)
    shallow, deep = (deep_kernel(xi, activation, L).over_largest() for L in (50, 100))
    torch.testing.assert_close(deep, shallow, rtol=1e-12, atol=0.0)
    assert float(deep.min()) > 0.0
    assert float(plain(xi, activation, 100, False)[0].max()) == 0.0


def test_a_coinciding_point_beside_distant_ones_neither_overflows_nor_hides_them():
    xi = torch.tensor([[1.0, 0.999, 0.3, -0.3]], dtype=torch.float64)
    kernel = deep_kernel(xi, optimal_activation(64), math.inf)
    assert bool(torch.isfinite(kernel.coordinate).all())
    alone = deep_kernel(xi[:, 1:], optimal_activation(64), math.inf)
    assert torch.equal(kernel.factor[:, 1:], alone.factor)
    torch.testing.assert_close(kernel.coordinate[:, 1:], alone.coordinate, rtol=1e-12, atol=0.0)


def test_the_relu_tangent_kernel_tends_to_a_quarter_of_its_diagonal():
    xi = torch.tensor([[0.1, 0.5, 0.95]], dtype=torch.float64)
    kernel = deep_kernel(xi, ReLUActivation(), 4000, tangent=True).over_diagonal()
    torch.testing.assert_close(kernel, torch.full_like(xi, 0.25), rtol=0.02, atol=0.0)


@pytest.mark.parametrize("bad", [0, -3, 2.5, True])
def test_a_depth_that_is_no_count_of_layers_is_refused(bad):
    with pytest.raises(UserError, match="depth must be a whole number"):
        deep_kernel(torch.zeros(1, 1, dtype=torch.float64), ReLUActivation(), bad)


def test_a_constant_limit_is_refused():
    with pytest.raises(UserError, match="constant"):
        deep_kernel(torch.zeros(1, 1, dtype=torch.float64), ReLUActivation(), math.inf)


def test_ridgeless_weights_solve_a_regular_system_and_are_least_in_norm_in_a_singular_one():
    rng = np.random.default_rng(0)
    factor, targets = torch.from_numpy(rng.normal(size=(12, 12))), torch.ones(12, 2).double()
    gram = factor @ factor.mT
    torch.testing.assert_close(gram @ ridgeless(gram, targets), targets, rtol=1e-6, atol=1e-8)
    low = factor[:, :4] @ factor[:, :4].mT
    expected = torch.linalg.pinv(low, hermitian=True, rtol=1e-10) @ targets
    torch.testing.assert_close(ridgeless(low, targets), expected)


# -- classifiers ----------------------------------------------------------------------------


@parametrize_with_checks(
    [
        InfiniteDepthClassifier(),
        InfiniteDepthClassifier(kernel="limit"),
        InfiniteDepthClassifier("erf", depth=5, kernel="ntk"),
        HilbertEstimator(),
    ],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn_accepts_it_as_a_classifier(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("kernel", "depth"), [("nngp", 60), ("ntk", 10**7)])
def test_a_deep_classifier_agrees_with_its_limit(kernel, depth):
    (X, y), (T, _) = sphere(300), sphere(500, seed=1)
    limit = InfiniteDepthClassifier(kernel="limit", sphere="given").fit(X, y).predict(T)
    deep = InfiniteDepthClassifier(kernel=kernel, depth=depth, sphere="given").fit(X, y)
    assert np.mean(deep.predict(T) == limit) > 0.99
    shallow = InfiniteDepthClassifier(kernel=kernel, depth=1, sphere="given").fit(X, y)
    assert np.mean(shallow.predict(T) == limit) < 0.95


def test_before_its_limit_the_tangent_kernel_is_more_singular_by_two():
    """While L is below the inverse squared distance, K_L grows as that times the limit kernel."""
    squares = torch.tensor([[1e-9, 2e-9]], dtype=torch.float64)
    kernel = deep_kernel(1.0 - 0.5 * squares, optimal_activation(4), 60, tangent=True)
    entries = kernel.over_largest()[0]
    assert float((entries[0] / entries[1]).log2()) == pytest.approx(0.5 * (4 + 2), rel=1e-4)


@pytest.mark.parametrize("kernel", ["nngp", "ntk", "limit"])
def test_without_mean_and_slope_it_becomes_the_nearest_neighbour(kernel):
    (X, y), (T, _) = sphere(200), sphere(300, seed=1)
    classifier = InfiniteDepthClassifier(
        HermiteActivation([0.0, 0.0, 1.0]), 3000, kernel, sphere="given"
    ).fit(X, y)
    nearest = KNeighborsClassifier(1).fit(X, y)
    np.testing.assert_array_equal(classifier.predict(T), nearest.predict(T))


def test_with_a_mean_it_becomes_the_majority():
    X, y = sphere(30)
    majority = np.sign(y.sum())
    limit = InfiniteDepthClassifier("relu", kernel="limit", sphere="given").fit(X, y)
    assert set(limit.predict(sphere(50, seed=1)[0])) == {majority}
    mean = InfiniteDepthClassifier(HermiteActivation([0.3, 0.5, 0.8]), 200, sphere="given")
    assert set(mean.fit(X, y).predict(sphere(50, seed=1)[0])) == {majority}


@pytest.mark.parametrize("dimension", [1, 2, 4, 8])
def test_the_optimal_classifier_is_close_to_the_hilbert_estimate(dimension):
    (X, y), (T, _) = sphere(400, dimension), sphere(600, dimension, seed=1)
    limit = InfiniteDepthClassifier(kernel="limit", sphere="given").fit(X, y)
    hilbert = HilbertEstimator(alpha=dimension).fit(X, y)
    assert limit.limit_.alpha == pytest.approx(dimension)
    assert np.mean(limit.predict(T) == hilbert.predict(T)) > 0.97


def test_the_hilbert_estimate_is_its_formula():
    X, y = np.array([[0.0], [1.0], [3.0]]), np.array(["a", "b", "b"])
    shares = HilbertEstimator(alpha=2.0).fit(X, y).predict_proba([[2.0], [1.0]])
    np.testing.assert_allclose(shares, [[1 / 9, 8 / 9], [0.0, 1.0]], atol=1e-12)


def test_one_against_the_rest_learns_three_classes():
    X, y = load_iris(return_X_y=True)
    for kernel in ("nngp", "limit"):
        classifier = InfiniteDepthClassifier(kernel=kernel).fit(X[::2], y[::2])
        assert classifier.score(X[1::2], y[1::2]) > 0.9
        assert classifier.decision_function(X[1::2]).shape == (75, 3)


@pytest.mark.parametrize("kernel", ["nngp", "limit"])
def test_rows_that_coincide_count_once_with_their_mean_label(kernel):
    X, y = sphere(20)
    doubled = InfiniteDepthClassifier(kernel=kernel, sphere="given")
    doubled.fit(np.vstack([X, X[:5]]), np.concatenate([y, y[:5]]))
    once = clone(doubled).fit(X, y)
    assert doubled.n_distinct_ == 20
    T = sphere(50, seed=1)[0]
    np.testing.assert_allclose(doubled.decision_function(T), once.decision_function(T), atol=1e-9)


def test_it_interpolates_its_training_rows():
    X, y = sphere(200)
    for kernel in ("nngp", "ntk", "limit"):
        assert InfiniteDepthClassifier(kernel=kernel, sphere="given").fit(X, y).score(X, y) == 1.0


def test_batches_change_nothing(monkeypatch):
    (X, y), (T, _) = sphere(60), sphere(70, seed=1)
    classifier = InfiniteDepthClassifier(sphere="given").fit(X, y)
    whole = classifier.decision_function(T)
    monkeypatch.setattr(wide_deep, "_CELLS", 600)
    np.testing.assert_allclose(classifier.decision_function(T), whole, rtol=1e-10, atol=1e-12)


def test_normalising_is_dividing_rows_by_their_length():
    X, y = sphere(60)
    scaled = X * np.random.default_rng(0).uniform(0.1, 9.0, size=(60, 1))
    inside = InfiniteDepthClassifier(sphere="normalise").fit(scaled, y)
    unit = FunctionTransformer(lambda Z: Z / np.linalg.norm(Z, axis=1, keepdims=True))
    outside = make_pipeline(unit, InfiniteDepthClassifier(sphere="given")).fit(scaled, y)
    T = 3.0 * sphere(40, seed=1)[0]
    np.testing.assert_array_equal(inside.predict(T), outside.predict(T))


@given(X=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=2, max_size=8))
@settings(max_examples=40, deadline=None)
def test_lifted_rows_are_unit_vectors_without_negative_inner_products(X):
    X = np.array(X)
    lifted = wide_deep._lifted(X, *wide_deep._range(X))
    np.testing.assert_allclose(np.linalg.norm(lifted, axis=1), 1.0, atol=1e-12)
    assert cosine_similarity(lifted).min() > -1e-12


def test_a_warning_tells_of_negative_inner_products():
    X, y = sphere(20)
    with pytest.warns(UserWarning, match="negative inner products"):
        InfiniteDepthClassifier(sphere="given").fit(np.vstack([X, -X]), np.concatenate([y, -y]))


@pytest.mark.parametrize(
    ("params", "rows", "message"),
    [
        ({"kernel": "rbf"}, 20, "kernel must be one of nngp, ntk, limit, got 'rbf'"),
        ({"sphere": "cube"}, 20, "sphere must be one of"),
        ({"activation": "swish"}, 20, "activation must be one of optimal, relu, erf"),
        ({"depth": 0}, 20, "depth must be a whole number of at least 1"),
        ({"depth": math.inf}, 20, "set kernel to 'limit'"),
        (
            {"kernel": "limit", "activation": HermiteActivation([0.9, 0.3])},
            20,
            "none of nearest neighbour, majority and singular kernel but interpolation",
        ),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(params, rows, message):
    with pytest.raises(UserError, match=message):
        InfiniteDepthClassifier(**params).fit(*sphere(rows))


def test_rows_that_are_not_on_the_sphere_are_refused_with_the_row():
    X, y = sphere(20)
    X[3] *= 2.0
    with pytest.raises(UserError, match="row 3 has length 2, not 1"):
        InfiniteDepthClassifier(sphere="given").fit(X, y)
    X[5] = 0.0
    with pytest.raises(UserError, match="row 5 is zero"):
        InfiniteDepthClassifier(sphere="normalise").fit(X, y)
    with pytest.raises(UserError, match="lie on no sphere"):
        InfiniteDepthClassifier(sphere="normalise").fit(X[:, :1], y)


def test_too_many_rows_to_solve_for_are_refused(monkeypatch):
    monkeypatch.setattr(wide_deep, "MAX_DENSE", 10)
    with pytest.raises(UserError, match="20 rows are too many"):
        InfiniteDepthClassifier().fit(*sphere(20))
    InfiniteDepthClassifier(kernel="limit").fit(*sphere(20))


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
def test_a_hilbert_estimate_without_a_positive_power_is_refused(alpha):
    with pytest.raises(UserError, match="alpha must be positive"):
        HilbertEstimator(alpha).fit(*sphere(5))
