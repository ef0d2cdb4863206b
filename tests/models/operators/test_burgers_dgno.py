"""Burgers' equation without solutions."""

import math

import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.field_metrics import relative_l2
from understudy.models.operators.burgers_dgno import (
    BurgersNeuralOperator,
    BurgersResidual,
    WaveFields,
    interval_rule,
)
from understudy.models.operators.stored import load_operator
from understudy.models.operators.training import Training
from understudy.simulate.pde.walled_burgers import WalledBurgers

CELLS, VISCOSITY = 32, 0.1 / math.pi


def waves(seeds):
    runs = pd.DataFrame({"seed": list(seeds), "viscosity": VISCOSITY})
    fields = WalledBurgers(CELLS, refinement=4).fields(runs)
    return fields[:, 0], fields[:, 1]


def untrained(seed=0, **settings):
    torch.manual_seed(seed)
    residual = BurgersResidual(VISCOSITY, radius=0.01, n_centres=50, n_quad=10)
    given = {"latent_dim": 8, "hidden": [16, 16], "residual": residual, **settings}
    return BurgersNeuralOperator(CELLS, **given)


def test_the_networks_have_as_many_weights_as_those_of_the_paper():
    network = WaveFields(128)
    assert sum(p.numel() for p in network.encoder.parameters()) == 49_600
    # 83,212 in the code, which has five more constants
    assert sum(p.numel() for p in network.u.parameters()) == 83_207


@pytest.mark.parametrize("n", [5, 10, 13])
def test_the_rule_is_exact_for_linear_slopes(n):
    q, v, slope = interval_rule(n)
    assert float(slope.sum().abs()) < 1e-12
    assert float((q * slope).mean() + v.mean()) == pytest.approx(0.0, abs=1e-12)


def test_an_exact_solution_leaves_no_residual():
    # u = x / (1 + t): u_t + u u_x = 0 and u_x is constant
    residual = BurgersResidual(VISCOSITY, n_centres=40)
    x, t = residual.draw(torch.Generator().manual_seed(0)).unbind(1)
    u, u_x, u_t = x / (1 + t), 1 / (1 + t), -x / (1 + t) ** 2
    assert float(residual.residuals(u[None], u_x[None], u_t[None]).abs().max()) < 1e-9


def test_viscosity_smooths_what_is_curved():
    # u = x^2, at rest: r = <2 x^3 v> + nu <2 x v'> = <(2 x^3 - 2 nu) v> up to R
    residual = BurgersResidual(0.3, radius=1e-4, n_centres=20)
    x = residual.draw(torch.Generator().manual_seed(0))[:, 0]
    found = residual.residuals((x**2)[None], (2 * x)[None], torch.zeros_like(x)[None])[0]
    centre = x.unflatten(0, (20, -1)).mean(1)
    _, v, _ = interval_rule(10)
    torch.testing.assert_close(found, (2 * centre**3 - 0.6) * v.mean(), atol=1e-3, rtol=0)


def test_slopes_of_fields_are_those_of_automatic_differentiation():
    network = untrained().network.double()
    with torch.no_grad():
        network.u.w.uniform_(-1.0, 1.0)
    xt, beta = torch.rand(7, 2).double().requires_grad_(), torch.rand(1, 8).double()
    u, u_x, u_t = network.slopes(xt, beta)
    (wanted,) = torch.autograd.grad(network.solution(xt, beta).sum(), xt)
    torch.testing.assert_close(torch.stack([u_x[0], u_t[0]], 1), wanted)
    torch.testing.assert_close(u, network.solution(xt, beta))


def test_fields_are_zero_at_the_walls_and_points_beyond_are_refused():
    operator, (a, _) = untrained(), waves([1, 2])
    with torch.no_grad():
        operator.network.u.w.fill_(1.0)
    walls = torch.tensor([[-1.0, 0.3], [1.0, 0.8]])
    assert float(operator.solution(a, walls).abs().max()) < 1e-5
    with pytest.raises(UserError, match="between -1 and 1"):
        operator.solution(a, torch.tensor([[0.0, 1.5]]))
    with pytest.raises(UserError, match=r"have \(16,\) cells"):
        operator.predict(a[..., :16])
    with pytest.raises(UserError, match="viscosity and duration must be positive"):
        BurgersResidual(viscosity=0.0)


def test_training_lowers_the_loss_and_comes_back(tmp_path):
    a, _ = waves(range(16))
    operator = untrained()
    draw = torch.Generator()
    before = float(operator._loss(a, draw.manual_seed(1)).detach())
    plan = Training(steps=100, batch_size=8, learning_rate=5e-3, clip_norm=None, ema_decay=0.9)
    operator.fit(a, plan)
    assert float(operator._loss(a, draw.manual_seed(1)).detach()) < 0.85 * before
    again = load_operator(operator.save(tmp_path / "waves.us"))
    assert torch.equal(again.predict(a), operator.predict(a))
    assert again.residual == operator.residual


@pytest.mark.slow
def test_without_a_solution_it_learns_what_follows():
    a, u = waves(range(620))
    operator = untrained(latent_dim=16, hidden=[32, 32, 32])
    plan = Training(steps=700, batch_size=20, learning_rate=5e-3, clip_norm=None, optimizer="soap")
    operator.fit(a[:600], plan)
    error = float(relative_l2(operator.predict(a[600:]), u[600:]).mean())
    stays = float(relative_l2(a[600:], u[600:]).mean())
    assert error < 0.35 < stays
