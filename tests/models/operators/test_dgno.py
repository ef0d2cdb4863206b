"""The deep generative neural operator: sizes of the paper, training, inversion, files, refusals."""

import math

import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.field_metrics import relative_l2
from understudy.models.operators.dgno import DeepGenerativeNeuralOperator
from understudy.models.operators.generative_fields import (
    FieldEncoder,
    PointwiseFields,
    Solutions,
    VariationalEncoder,
    bubble,
    log_prior,
)
from understudy.models.operators.media import Continuous
from understudy.models.operators.residual_operator import (
    DifferenceDeepONet,
    PIDeepONet,
    PIMultiONet,
)
from understudy.models.operators.stored import load_operator
from understudy.models.operators.training import Training
from understudy.models.operators.weak_residual import WeakResidual
from understudy.simulate.pde.darcy import Darcy

POINTS = 15
RESIDUAL = WeakResidual(10.0, 0.02, 40, 5)


def media(seeds, medium="two-phase"):
    darcy = Darcy(POINTS, medium, source=10.0, refine=3)
    runs = pd.DataFrame({"seed": list(seeds)})
    return darcy.inputs(runs)["coefficient"].unsqueeze(1), darcy.fields(runs)[:, 0]


def untrained(kind=DeepGenerativeNeuralOperator, seed=0, **settings):
    torch.manual_seed(seed)
    settings = {"hidden": [12, 12], "residual": RESIDUAL, **settings}
    if kind is DeepGenerativeNeuralOperator:
        settings = {"latent_dim": 6, **settings}
    return kind((POINTS, POINTS), **settings)


@pytest.fixture(scope="module")
def trained():
    """Operator of few steps: decoders that depend on the coefficient, no more."""
    a, _ = media(range(24))
    plan = Training(steps=120, batch_size=8, learning_rate=5e-3, clip_norm=None, ema_decay=0.9)
    return untrained().fit(a, plan)


def test_the_encoder_has_as_many_weights_as_that_of_the_paper():
    assert sum(p.numel() for p in FieldEncoder((29, 29), 128).parameters()) == 140_416


def test_gradients_of_solutions_are_those_of_automatic_differentiation():
    network = untrained().network.double()
    with torch.no_grad():
        network.u.w.uniform_(-1.0, 1.0)
    x, beta = torch.rand(7, 2).double().requires_grad_(), torch.rand(1, 6).double()
    (wanted,) = torch.autograd.grad(network.solution(x, beta).sum(), x)
    found = Solutions.at(network.u, x).gradient(beta)
    torch.testing.assert_close(found[:, 0], wanted.T)


def test_solutions_are_zero_on_the_boundary_whatever_the_weights():
    network = untrained().network
    with torch.no_grad():
        network.u.w.fill_(1.0)
    edge = torch.tensor([[0.0, 0.3], [1.0, 0.7], [0.2, 0.0], [0.9, 1.0]])
    assert float(network.solution(edge, torch.rand(3, 6)).detach().abs().max()) < 1e-5
    assert float(bubble(torch.tensor([[0.5, 0.5]]))[0]) == pytest.approx(1.0)


def test_the_coefficient_in_a_residual_is_that_of_the_cell_up_to_the_far_edge():
    operator = untrained()
    a, _ = media([3])
    at = torch.tensor([[0.999999, 0.5], [1.0, 1.0], [0.0, 0.0], [0.5, 0.21]], dtype=torch.float64)
    with torch.no_grad():
        operator.network.u.b.fill_(1.0)
        beta = operator.network.latent(operator._scaled(a))
        _, k_gradient = operator._fluxes(operator._scaled(a), beta, at)
        gradient = operator.network.gradient(at.float(), beta)
    cells = [(14, 7), (14, 14), (0, 0), (7, 3)]
    K = torch.stack([a[0, 0, i, j] for i, j in cells]).float()
    torch.testing.assert_close(k_gradient, K * gradient)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DeepGenerativeNeuralOperator, PIMultiONet, PIDeepONet])
def test_without_a_solution_it_learns_to_solve(kind):
    a, u = media(range(40))
    plan = Training(steps=500, batch_size=8, learning_rate=3e-3, clip_norm=None)
    operator = untrained(kind, hidden=[24, 24, 24]).fit(a, plan)
    assert float(relative_l2(operator.predict(a), u).mean()) < 0.25


def test_training_lowers_the_loss_and_is_the_same_for_the_same_seed(trained):
    a, _ = media(range(24))
    scaled, generator = trained._scaled(a), torch.Generator()
    before = float(untrained()._loss(scaled, generator.manual_seed(5)).detach())
    after = float(trained._loss(scaled, generator.manual_seed(5)).detach())
    assert after < 0.5 * before
    plan = Training(steps=3, batch_size=8, seed=4)
    first, second = (untrained().fit(a, plan).predict(a) for _ in range(2))
    assert torch.equal(first, second)


def test_precisions_make_the_residuals_of_training_fields_of_size_one(trained):
    a, _ = media(range(24))
    scaled = trained._scaled(a)
    x = RESIDUAL.draw(torch.Generator().manual_seed(0))
    with torch.no_grad():
        flux, k_gradient = trained._fluxes(scaled, trained.codes, x)
    balance = RESIDUAL.balance(flux).square().mean() * trained.precisions[1]
    mismatch = RESIDUAL.mismatch(flux, k_gradient).mean() * trained.precisions[0]
    assert float(balance) == pytest.approx(1.0, rel=1e-3)
    assert float(mismatch) == pytest.approx(1.0, rel=1e-3)


def test_the_prior_of_z_is_that_of_uniform_vectors():
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    density = log_prior(z).exp()
    assert float(torch.trapezoid(density, z[:, 0])) == pytest.approx(1.0, abs=1e-6)
    inner = z[:, 0].abs() <= math.atanh(0.5)
    share = float(torch.trapezoid(density[inner], z[inner, 0]))
    assert share == pytest.approx(0.5, abs=5e-3)


def test_the_target_is_that_of_its_definition(trained):
    a, _ = media([30])
    x = torch.rand(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = trained.solution(a, x)
    target = trained._target(y + 0.01, x, 0.02, 1, 20, 0)
    z = torch.atanh(trained.encode(a).clamp(-0.999, 0.999))
    assert float(target.likelihood(z)) == pytest.approx(-0.5 * 9 * 0.25, rel=1e-3)
    beta = torch.tanh(z)
    points = target.residual.draw(torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        K = trained.decode(beta, points)
        s = trained.network.fluxes(points, beta)
        mismatch = target.residual.mismatch(s, K * trained.network.gradient(points, beta))
        balance = target.residual.balance(s)
        wanted = trained.precisions @ torch.stack([mismatch.sum(), balance.square().sum()])
    assert float(target.virtual(z).detach()) == pytest.approx(float(wanted), rel=1e-3)


def test_each_field_of_a_batch_is_inferred_by_itself(trained):
    a, _ = media([30, 31])
    x = torch.rand(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = trained.solution(a, x)
    both = trained.infer(y, x, 0.01, chains=2, steps=20)
    alone = trained.infer(y[1], x, 0.01, chains=2, steps=20)
    assert both.mean.shape == (2, POINTS, POINTS)
    torch.testing.assert_close(both.z[1:], alone.z, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", ["map", "vi", "hmc"])
def test_what_is_inferred_explains_readings_that_the_operator_made(trained, method):
    a, _ = media([30])
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = trained.solution(a, x)
    found = trained.infer(y, x, 0.003, method, chains=2, samples=20, burn_in=20, steps=60)
    assert found.z.shape[::2] == (1, 6)
    assert found.z.shape[1] == (1 if method == "map" else 40)
    off = (found.solution(x).mean(1) - y).square().mean().sqrt()
    assert float(off) < 0.009
    assert bool(((found.std >= 0) & (found.std <= 2.5)).all())
    lower, upper = found.interval(0.9)
    assert bool((lower <= upper).all())
    assert set(found.sample_a().unique().tolist()) <= {5.0, 10.0}


def test_more_noise_leaves_more_doubt(trained):
    a, _ = media([30])
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = trained.solution(a, x).expand(2, -1)
    found = trained.infer(y, x, torch.tensor([1e-4, 1.0]), "vi", chains=2, samples=50, steps=60)
    spread = found.solution(x).std(1).mean(1)
    assert float(spread[1]) > 2.0 * float(spread[0])


@pytest.mark.parametrize("kind", [DeepGenerativeNeuralOperator, PIMultiONet, PIDeepONet])
def test_it_comes_back_from_its_file(kind, trained, tmp_path):
    a, _ = media([5, 6])
    operator = trained
    if kind is not DeepGenerativeNeuralOperator:
        operator = untrained(kind).fit(a, Training(steps=2, batch_size=2))
    again = load_operator(operator.save(tmp_path / "darcy.us"))
    assert type(again) is kind
    assert torch.equal(again.predict(a), operator.predict(a))
    assert again.residual == operator.residual and again.medium == operator.medium
    if kind is DeepGenerativeNeuralOperator:
        x, y = torch.tensor([[0.3, 0.4]]), torch.tensor([0.05])
        options = {"chains": 1, "steps": 3}
        first, second = (each.infer(y, x, 0.1, **options).z for each in (again, trained))
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_obs": torch.tensor([[0.5, 0.5], [1.2, 0.5]])}, r"number 2 is at \(1.2, 0.5\)"),
        ({"x_obs": torch.tensor([0.5, 0.5])}, r"sensors must be of shape \(N, 2\)"),
        ({"u_obs": torch.tensor([0.1])}, "one a sensor"),
        ({"u_obs": torch.tensor([0.1, math.nan])}, "readings must be finite"),
        ({"noise_sd": 0.0}, "noise_sd must be positive"),
        ({"method": "mcmc"}, "map, vi, hmc, found 'mcmc'"),
        ({"chains": 0}, "chains must be at least 1"),
    ],
)
def test_readings_that_cannot_be_are_refused(trained, change, message):
    given = {
        "u_obs": torch.tensor([0.1, 0.1]),
        "x_obs": torch.tensor([[0.5, 0.5], [0.2, 0.5]]),
        "noise_sd": 0.01,
        **change,
    }
    with pytest.raises(UserError, match=message):
        trained.infer(**given)


def test_coefficients_outside_the_family_are_refused(trained):
    a, _ = media([5])
    a[0, 0, 2, 3] = 7.5
    for use in (trained.predict, trained.encode, untrained().fit):
        with pytest.raises(UserError, match=r"are 5 or 10, found 7.5"):
            use(a)


def test_fields_of_another_grid_are_refused(trained):
    with pytest.raises(UserError, match=r"have \(16, 16\) cells, the operator \(15, 15\)"):
        trained.predict(torch.full((1, 1, 16, 16), 5.0))
    with pytest.raises(UserError, match="at least 15 cells"):
        DeepGenerativeNeuralOperator((14, 14))


def test_phases_must_rise():
    with pytest.raises(UserError, match="two rising positive numbers"):
        untrained(phases=(10.0, 5.0))
    with pytest.raises(UserError, match="has no phases; leave them out"):
        untrained(phases=(5.0, 10.0), likelihood="gaussian")


# -- continuous coefficients, variational encoders, the paper's comparison -------------------------


def soap(steps):
    settings = {"clip_norm": None, "ema_decay": 0.9, "optimizer": "soap"}
    return Training(steps=steps, batch_size=8, learning_rate=1e-2, **settings)


@pytest.fixture(scope="module")
def smooth():
    """Operator of few steps of a smooth coefficient."""
    a, _ = media(range(24), "cosines")
    return untrained(likelihood="gaussian", data_weight=5.0).fit(a, soap(200))


def test_a_smooth_coefficient_has_no_flux_and_its_units_are_those_of_training(smooth):
    a, _ = media(range(24), "cosines")
    assert not smooth.network.flux and smooth.precisions.shape == (1,)
    scaled = smooth._scaled(a)
    assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(scaled.std(correction=0)) == pytest.approx(1.0, rel=1e-4)


def test_of_a_smooth_coefficient_it_learns_to_solve_and_to_decode(smooth):
    a, u = media(range(24), "cosines")
    assert float(relative_l2(smooth.predict(a), u).mean()) < 0.15
    decoded = smooth.decode(smooth.encode(a)).unsqueeze(1)
    plain = (a - a.mean()).norm()
    assert float((decoded - a).norm()) < 0.9 * float(plain)


def test_codes_of_a_smooth_coefficient_improve_by_the_loss_alone(smooth):
    a, _ = media([40, 41], "cosines")
    before, after = (smooth.encode(a, steps=steps) for steps in (0, 40))
    x = RESIDUAL.draw(torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = [
            smooth.residual.by_field(smooth._squares(smooth._scaled(a), beta, x))
            + smooth.data_weight * smooth._misfit(smooth._scaled(a), beta)
            for beta in (before, after)
        ]
    assert bool((losses[1] < losses[0]).all())


@pytest.mark.parametrize("method", ["map", "vi"])
def test_a_smooth_coefficient_is_inferred_with_a_deviation(smooth, method):
    a, _ = media([30], "cosines")
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = smooth.solution(a, x)
    found = smooth.infer(y, x, 0.003, method, chains=1, samples=30, steps=60)
    off = (found.solution(x).mean(1) - y).square().mean().sqrt()
    assert float(off) < 0.009
    own = float(smooth.medium.scale) / POINTS
    assert bool((found.std > 0.99 * own).all())
    lower, upper = found.interval(0.9)
    assert bool((lower <= upper).all())
    with pytest.raises(UserError, match="has no phases"):
        smooth.probability(found.beta[0])


def test_an_operator_of_smooth_coefficients_comes_back_from_its_file(smooth, tmp_path):
    a, _ = media([5, 6], "cosines")
    again = load_operator(smooth.save(tmp_path / "smooth.us"))
    assert isinstance(again.medium, Continuous) and again.medium == smooth.medium
    assert again.data_weight == smooth.data_weight
    assert torch.equal(again.predict(a), smooth.predict(a))


def test_a_coefficient_that_is_not_positive_is_refused(smooth):
    a, _ = media([5], "cosines")
    with pytest.raises(UserError, match="must be positive, found -1"):
        smooth.predict(a - a.min() - 1.0)


def test_divergences_of_a_variational_encoder_are_those_of_quadrature():
    torch.manual_seed(0)
    encoder = VariationalEncoder((15, 15), 1)
    a = torch.randn(1, 1, 15, 15)
    with torch.no_grad():
        found = encoder.draw(a.expand(4000, -1, -1, -1), torch.randn(4000, 1))[1].mean()
        mean, sd = float(encoder(a)), float((0.5 * encoder.log_variance(a)).exp())
    z = torch.linspace(mean - 8 * sd, mean + 8 * sd, 4001, dtype=torch.float64)[:, None]
    q = torch.distributions.Normal(mean, sd)
    integrand = q.log_prob(z[:, 0]).exp() * (q.log_prob(z[:, 0]) - log_prior(z))
    assert float(found) == pytest.approx(float(torch.trapezoid(integrand, z[:, 0])), abs=5e-3)


def test_a_variational_operator_learns_and_comes_back(tmp_path):
    a, _ = media(range(24))
    operator = untrained(variational=True)
    before = operator.network.encoder.log_variance(operator._scaled(a)).mean()
    plan = Training(steps=120, batch_size=8, learning_rate=5e-3, clip_norm=None, ema_decay=0.9)
    operator.fit(a, plan)
    after = operator.network.encoder.log_variance(operator._scaled(a)).mean()
    assert float(after) > float(before)  # the prior pulls points apart
    again = load_operator(operator.save(tmp_path / "darcy.us"))
    assert torch.equal(again.predict(a), operator.predict(a))


def test_the_deeponet_of_the_comparison_has_as_many_weights_as_that_of_the_paper():
    assert sum(p.numel() for p in PointwiseFields((29, 29)).parameters()) == 190_337


def test_differences_of_a_polynomial_leave_no_residual():
    # u = x (1 - x) y, K = 1 + x: -div(K grad u) = -((1 + x) (1 - 2x))' y = (1 + 4x) y
    operator = DifferenceDeepONet((POINTS, POINTS), 8, 2, source=0.0)
    x, y = operator.grid.axes()
    x, y = x[:, None], y[None, :]
    K, u = (1 + x).expand(POINTS, POINTS)[None], (x * (1 - x) * y)[None]
    u_x, u_y = operator._slopes(u)
    inner = K[:, 1:-1, 1:-1]
    left = operator._slopes(inner * u_x)[0] + operator._slopes(inner * u_y)[1]
    torch.testing.assert_close(left, -((1 + 4 * x) * y)[None, 2:-2, 2:-2])
    assert float(operator._differences(K, u)) == pytest.approx(float(left.norm()))


def test_the_deeponet_of_the_comparison_trains_and_comes_back(tmp_path):
    a, _ = media(range(16))
    torch.manual_seed(0)
    operator = DifferenceDeepONet((POINTS, POINTS), 16, 2)
    scaled = operator._scaled(a)
    before = float(operator._loss(scaled, torch.Generator()).detach())
    operator.fit(a, Training(steps=60, batch_size=8, learning_rate=5e-3))
    assert float(operator._loss(scaled, torch.Generator()).detach()) < before
    again = load_operator(operator.save(tmp_path / "fd.us"))
    assert torch.equal(again.predict(a), operator.predict(a))
