"""Blocks of physics-informed networks: derivatives, conditions, weights, optimisers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.physics import (
    PINN,
    AnnealedWeights,
    Box,
    Collocation,
    FixedWeights,
    GatedHeads,
    Jet,
    JetMLP,
    SelfAdaptiveWeights,
    Term,
    Training,
    coordinates,
    gate,
    gauss_legendre,
    lbfgs,
    stack,
    unit,
    vanishing,
)
from understudy.models.physics.residuals import Batch

LIMITS = {"time": (0.0, 0.5), "x": (0.0, 1.0)}


class Heat(PINN):
    """u_t = u_xx / 2 with u(0, x) = sin(pi x) and nothing at the ends."""

    def __init__(self, seeds: tuple[int, ...] = (0,)) -> None:
        super().__init__(tuple(LIMITS), seeds)
        self.network = JetMLP((2, 12, 12, 1), seeds)

    def field(
        self, points: Tensor, first: tuple[str, ...] = (), second: tuple[str, ...] = ()
    ) -> Jet:
        at = coordinates(points, self.names, first, second)
        N = self.network(stack([unit(at[name], *LIMITS[name]) for name in LIMITS]))[..., 0]
        x = at["x"]
        return (math.pi * x).sin() + gate(at["time"], 0.1) * vanishing(x, 0.0, 1.0) * N

    def samplers(self) -> dict[str, Box]:
        return {"interior": Box(LIMITS)}

    def terms(self, batch: Batch) -> list[Term]:
        u = self.field(batch["interior"], ("time", "x"), ("x",))
        return [Term("heat", u.d("time") - 0.5 * u.dd("x"), points="interior")]

    def error(self) -> Tensor:
        points = Box(LIMITS)(torch.Generator().manual_seed(1), 200)
        exact = torch.exp(-0.5 * math.pi**2 * points[:, 0]) * torch.sin(math.pi * points[:, 1])
        with torch.no_grad():
            return (self.field(points[None]).value - exact).abs().amax(1)


def points(n: int = 6) -> Tensor:
    return torch.rand(2, n, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def composed(at: dict[str, Jet], network: nn.Module) -> Jet:
    z = network(stack([at["time"], at["x"]]))[..., 0]
    smooth = z.sigmoid() * at["time"] + z.exp() / (2.0 + at["x"].sin())
    return smooth * z.cos() - (1.0 + z.square()).log() + (1.0 + at["x"]).sqrt()


def test_first_derivatives_are_those_of_automatic_differentiation() -> None:
    network = JetMLP((2, 8, 8, 1), seeds=(0, 1))
    jet = composed(coordinates(points(), ("time", "x"), ("time", "x"), ("x",)), network)
    q = points().requires_grad_()
    value = composed(coordinates(q, ("time", "x")), network).value
    (gradient,) = torch.autograd.grad(value.sum(), q)
    assert torch.allclose(jet.value, value)
    assert torch.allclose(jet.d("time"), gradient[..., 0])
    assert torch.allclose(jet.d("x"), gradient[..., 1])


def test_second_derivatives_are_those_of_finite_differences() -> None:
    network, h = JetMLP((2, 8, 8, 1), seeds=(0, 1)), 1e-4
    jet = composed(coordinates(points(), ("time", "x"), ("x",), ("x",)), network)
    step = torch.tensor([0.0, h], dtype=torch.float64)

    def value(p: Tensor) -> Tensor:
        return composed(coordinates(p, ("time", "x")), network).value

    difference = (value(points() + step) - 2.0 * value(points()) + value(points() - step)) / h**2
    assert torch.allclose(jet.dd("x"), difference, atol=1e-5)


@pytest.mark.parametrize("which", ["tanh", "product"])
def test_adjoints_by_hand_are_right(which: str) -> None:
    def of(a: Tensor, b: Tensor) -> Tensor:
        left, right = Jet(a, ("t", "x"), ("x",)), Jet(b, ("t", "x"), ("x",))
        return (left.tanh() if which == "tanh" else left * right).parts

    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 3, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(of, (a, b))


def test_gradients_of_gated_heads_are_those_of_finite_differences() -> None:
    heads = GatedHeads(3, 4, 2, [torch.Generator().manual_seed(0)])
    x = torch.randn(4, 1, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss() -> Tensor:
        return heads(Jet(x, ("t", "x"), ("x",))).parts.square().sum()

    loss().backward()
    for p in heads.parameters():
        at = (0,) * p.ndim
        slope = float(p.grad[at])
        with torch.no_grad():
            p[at] += 1e-6
            up = float(loss())
            p[at] -= 2e-6
            down = float(loss())
            p[at] += 1e-6
        assert (up - down) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_one_head_alone_is_the_head_among_the_others() -> None:
    heads = GatedHeads(3, 4, 3, [torch.Generator().manual_seed(k) for k in range(2)])
    x = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(heads.values(x, 1), heads(Jet(x.unsqueeze(0))).value[:, 1])


def test_a_network_is_the_same_whatever_stands_beside_it() -> None:
    x = Jet(points()[:1].unsqueeze(0))
    together, alone = JetMLP((2, 5, 1), (3, 4)), JetMLP((2, 5, 1), (4,))
    assert torch.allclose(together(x).value[1], alone(x).value[0])


def test_hard_conditions_hold_exactly() -> None:
    model = Heat()
    start = torch.tensor([[[0.0, 0.3]]], dtype=torch.float64)
    ends = torch.tensor([[[0.2, 0.0], [0.4, 1.0]]], dtype=torch.float64)
    assert float(model.field(start).value.detach()) == pytest.approx(
        math.sin(0.3 * math.pi), abs=1e-15
    )
    assert float(model.field(ends).value.detach().abs().max()) < 1e-15


@pytest.mark.parametrize("weights", ["fixed", "annealed", "self-adaptive"])
def test_the_heat_equation_is_solved(weights: str) -> None:
    model = Heat()
    training = Training(
        adam_steps=150, lbfgs_steps=100, points={"interior": 200}, batches=2, weights=weights
    )
    history = model.fit(training)
    assert float(model.error().max()) < 0.02
    assert float(history.losses[-1].max()) < 1e-2 * float(history.losses[0].max())


def test_training_goes_on_and_two_networks_do_not_know_of_each_other() -> None:
    training = Training(adam_steps=20, lbfgs_steps=10, points={"interior": 40}, batches=2)
    both, alone = Heat((0, 1)), Heat((1,))
    both.fit(training)
    alone.fit(training)
    for b, a in zip(both.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(b[1:], a, atol=1e-7)


def test_lbfgs_minimises_each_problem_by_itself() -> None:
    x = nn.Parameter(torch.tensor([[-1.2, 1.0], [0.5, 2.0]], dtype=torch.float64))

    def rosenbrock() -> Tensor:
        return (1.0 - x[:, 0]).square() + 100.0 * (x[:, 1] - x[:, 0].square()).square()

    assert float(lbfgs([x], rosenbrock, 100).max()) < 1e-12
    assert torch.allclose(x, torch.ones_like(x), atol=1e-5)


def test_weights_lie_inside_the_square_and_groups_outside() -> None:
    terms = [
        Term("a", torch.full((2, 4), 2.0), 3.0),
        Term("b", torch.full((2, 4), 1.0), torch.tensor([[1.0], [0.0]]), "data"),
    ]
    batch = Batch({}, {})
    weights = FixedWeights({"data": torch.tensor([5.0, 7.0])})
    assert weights.loss(terms, batch).tolist() == [36.0 + 5.0, 36.0]


def test_annealing_evens_out_gradients() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    small, large = (
        Term(n, scale * model.weight.expand(1, 3)) for n, scale in (("s", 0.1), ("l", 10.0))
    )
    weights = AnnealedWeights(rate=1.0)
    weights.adapt(0, [small, large], model)
    # gradients of the mean squares are 2 s^2 w: the ratio of 10^4 becomes the factor
    assert float(weights.factors["s"]) == pytest.approx(1e4)
    assert float(weights.factors["l"]) == pytest.approx(1.0)


def test_self_adaptive_weights_climb_where_residuals_are_large() -> None:
    weights = SelfAdaptiveWeights(start=0)
    residual = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    term = Term("r", residual, points="interior")
    weights.prepare([term])
    weights.adapt(0, [term], nn.Identity())
    batch = Batch({}, {"interior": slice(None)})
    weights.loss([term], batch).sum().backward()
    climb = -weights.factors["r"].grad[0]  # a descending optimiser adds this
    assert climb[0] == 0.0 and 0.0 < climb[1] < climb[2]


def test_points_stay_in_their_box_and_batches_cut_the_set() -> None:
    where = Collocation({"a": Box(LIMITS).hold(x=1.0)}, {"a": 20}, (0, 1), batches=4, grow=0)
    whole = where.whole()["a"]
    assert whole.shape == (2, 20, 2) and bool((whole[..., 1] == 1.0).all())
    cut = torch.cat([where.batch(k)["a"] for k in range(4)], 1)
    assert torch.equal(cut, whole) and not torch.equal(whole[0], whole[1])
    assert float(where.batch(0, progress=0.25)["a"][..., 0].max()) <= 0.25


def test_a_rule_of_n_points_is_exact_to_degree_2n_less_1() -> None:
    x, w = gauss_legendre(3, -1.0, 2.0)
    assert float((w * x**5).sum()) == pytest.approx((2.0**6 - 1.0) / 6.0)


def test_trainings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="at least one step"):
        Training(adam_steps=0, lbfgs_steps=0)
    with pytest.raises(UserError, match="fixed points"):
        Training(fresh=True, weights="self-adaptive")
    with pytest.raises(UserError, match="at least one seed"):
        Heat(())
