import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.mgno import (
    DARCY_LEVELS,
    PADDINGS,
    HelmholtzMgNO,
    MgNO,
    MultigridConv,
)
from understudy.models.operators.sobolev import SobolevLoss
from understudy.models.operators.training import Training

SHORT = ((1, 0), (1, 1), (2, 0))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _parameters(module):
    return sum(p.numel() for p in module.parameters())


# -- the cycle ------------------------------------------------------------------------------


@pytest.mark.parametrize("restrict", ["residual", "rhs"])
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_a_cycle_is_linear(padding_mode, restrict):
    cycle = MultigridConv(2, 3, SHORT, size=[20, 17], padding_mode=padding_mode, restrict=restrict)
    cycle = cycle.double()
    f, g = torch.randn(2, 4, 2, 20, 17, dtype=torch.float64)
    torch.testing.assert_close(cycle(2.0 * f - 3.0 * g), 2.0 * cycle(f) - 3.0 * cycle(g))
    assert cycle(torch.zeros_like(f)).abs().max() == 0.0


def test_bias_and_normalisation_make_a_cycle_something_else():
    cycle = MultigridConv(1, 2, SHORT, size=[16, 16], bias=True, normalise=True)
    f = torch.randn(1, 1, 16, 16)
    assert cycle(torch.zeros_like(f)).abs().max() > 0.0
    assert (cycle(2.0 * f) - 2.0 * cycle(f)).abs().max() > 0.01


def test_with_the_right_weights_a_cycle_of_one_level_smooths_as_jacobi_does():
    cycle = MultigridConv(1, 1, [(3, 0)], dims=1).double()
    laplacian = torch.tensor([[[-1.0, 2.0, -1.0]]], dtype=torch.float64)
    half = torch.tensor([[[0.0, 0.5, 0.0]]], dtype=torch.float64)
    for smooth in cycle.S[0]:
        smooth.weight.data = half
    for operator in cycle.A[0]:
        operator.weight.data = laplacian
    f = torch.randn(1, 1, 9, dtype=torch.float64)
    A = 2.0 * torch.eye(9) - torch.diag(torch.ones(8), 1) - torch.diag(torch.ones(8), -1)
    u = torch.zeros(9, dtype=torch.float64)
    for _ in range(3):
        u = u + 0.5 * (f[0, 0] - A.double() @ u)
    torch.testing.assert_close(cycle(f)[0, 0], u)


def test_with_the_right_weights_a_cycle_solves_poissons_equation_better_than_smoothing():
    """Textbook: full weighting, linear interpolation, the residual goes down, u starts from 0."""

    def solve(levels):
        cycle = MultigridConv(1, 1, levels, dims=1, size=[63], padded_transfer=False).double()
        weights = dict(cycle.named_parameters())
        for name, weight in weights.items():
            kind, level = name.split(".")[:2]
            h = 2.0 ** int(level) / 64
            stencil = {
                "S": [0.0, h * h / 3.0, 0.0],  # damped Jacobi, 2/3 of the diagonal's inverse
                "A": [-1.0 / h**2, 2.0 / h**2, -1.0 / h**2],
                "residual": [-1.0 / h**2, 2.0 / h**2, -1.0 / h**2],
                "R": [0.25, 0.5, 0.25],
                "Pi": [0.0, 0.0, 0.0],
                "P": [0.5, 1.0, 0.5],
            }[kind]
            weight.data = torch.tensor([[stencil]], dtype=torch.float64)
        f = torch.ones(1, 1, 63, dtype=torch.float64)
        x = torch.arange(1, 64, dtype=torch.float64) / 64
        truth = x * (1.0 - x) / 2.0
        return float((cycle(f)[0, 0].detach() - truth).norm() / truth.norm())

    assert solve([(2, 2)] * 4 + [(60, 0)]) < 0.1
    assert solve([(64, 0)]) > 0.9


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("size", [(211, 64), (13, 24), (50, 51), (14, 15)])
def test_odd_sizes_come_back_as_they_went(size, padded):
    cycle = MultigridConv(1, 2, SHORT, size=size, padded_transfer=padded)
    assert cycle(torch.randn(1, 1, *size)).shape == (1, 2, *size)


def test_levels_have_half_the_points_rounded_up_or_without_padding_down():
    padded = MultigridConv(1, 1, size=[211, 211])
    assert [n for n, _ in padded.sizes] == [211, 106, 53, 27, 14, 7]
    bare = MultigridConv(1, 1, DARCY_LEVELS[1:], size=[101, 101], padded_transfer=False)
    assert [n for n, _ in bare.sizes] == [101, 50, 24, 11, 5]
    assert bare(torch.randn(1, 1, 101, 101)).shape == (1, 1, 101, 101)


def test_a_cycle_takes_other_sizes_that_are_even_and_odd_alike():
    cycle = MultigridConv(1, 1, SHORT, size=[13, 13])  # 13, 7, 4
    assert cycle(torch.randn(1, 1, 21, 29)).shape == (1, 1, 21, 29)
    with pytest.raises(UserError, match=r"made for 13 x 13 points .* found 12 x 12"):
        cycle(torch.randn(1, 1, 12, 12))
    with pytest.raises(UserError, match=r"multiples of 4 points, found 13 x 13; .*size="):
        MultigridConv(1, 1, SHORT)(torch.randn(1, 1, 13, 13))


def test_too_many_levels_are_refused_with_their_largest_number():
    with pytest.raises(
        UserError, match=r"a grid of 16 x 16 points has at most 4 levels .* found 6"
    ):
        MultigridConv(1, 1, size=[16, 16])
    with pytest.raises(UserError, match="at most 4 levels"):
        MultigridConv(1, 1)(torch.zeros(1, 1, 16, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": []}, "pairs of numbers of steps"),
        ({"levels": [(1, 0, 0)]}, "pairs of numbers of steps"),
        ({"levels": [(0, 1), (1, 0)]}, "first level"),
        ({"levels": [(1, 0), (1, 1)]}, "no way up"),
        ({"levels": SHORT, "dims": 3}, "1 or 2 dimensions"),
        ({"levels": SHORT, "size": [16]}, "size must have 2"),
        ({"levels": SHORT, "padding_mode": "mirror"}, "padding_mode must be one of"),
        ({"levels": SHORT, "restrict": "f"}, "restrict must be"),
        ({"levels": SHORT, "normalise": True}, "needs its size"),
        ({"levels": SHORT, "channels": [1, 2]}, "each of 3 levels"),
    ],
)
def test_what_makes_no_cycle_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        MultigridConv(**({"in_channels": 1, "channels": 2} | arguments))


# -- the network ----------------------------------------------------------------------------


def test_the_network_for_darcy_has_as_many_weights_as_the_published_one():
    assert _parameters(MgNO(1, 1, width=24, depth=4, restrict="rhs")) == 572_661


@pytest.mark.parametrize("dims", [1, 2])
def test_on_a_circle_a_network_commutes_with_shifts_by_the_points_of_its_coarsest_level(dims):
    network = MgNO(2, 1, 5, 3, SHORT, padding_mode="circular", dims=dims).double()
    u = torch.randn(2, 2, *(16,) * dims, dtype=torch.float64)

    @torch.no_grad()
    def defect(shift):
        moved = network(u.roll(shift, -1))
        return float((moved - network(u).roll(shift, -1)).abs().max())

    assert defect(4) < 1e-13 and defect(-8) < 1e-13
    assert defect(2) > 1e-3


def test_with_zeros_outside_it_does_not():
    network = MgNO(1, 1, 5, 3, SHORT, padding_mode="zeros")
    u = torch.randn(1, 1, 16, 16)
    assert (network(u.roll(4, -1)) - network(u).roll(4, -1)).abs().max() > 1e-3


def test_coarse_levels_couple_what_is_far_apart():
    def reach(levels):
        u = torch.randn(1, 1, 64, requires_grad=True)
        MgNO(1, 1, 4, 2, levels, dims=1)(u)[0, 0, 0].backward()
        return int(u.grad.nonzero()[:, 2].max())

    assert reach([(2, 0)]) < 16
    assert reach(DARCY_LEVELS) == 63


def test_settings_build_a_twin():
    for network in (
        MgNO(2, 1, 4, 2, SHORT, size=(9, 16), padding_mode="reflect", norm="layer"),
        HelmholtzMgNO(1, 2, (21, 21), 3, 2, SHORT),
    ):
        twin = type(network).from_settings(network.settings)
        twin.load_state_dict(network.state_dict())
        size = network.settings["size"]
        u = torch.randn(2, network.settings["in_channels"], *size)
        torch.testing.assert_close(twin(u), network(u), rtol=0.0, atol=0.0)


def test_a_trained_network_survives_its_file(tmp_path):
    x = torch.randn(8, 1, 9, 12)
    model = FieldMap(MgNO(1, 1, 4, 2, SHORT, size=[9, 12]), loss=SobolevLoss())
    model.fit(x, 2.0 * x, training=Training(steps=3, batch_size=4))
    again = FieldMap.load(model.save(tmp_path / "map.us"))
    torch.testing.assert_close(again.predict(x), model.predict(x), rtol=0.0, atol=0.0)


def test_a_residual_network_adds_to_the_last_of_its_inputs():
    network = MgNO(3, 1, 4, 2, SHORT, residual=True, pointwise=False)
    network.combine.weight.data.zero_()
    u = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(network(u), u[:, 2:])


def test_the_network_for_helmholtz_grows_with_level_and_keeps_its_size():
    network = HelmholtzMgNO(1, 1, (21, 21), 3, 2, SHORT)
    shapes = [tuple(conv[0].weight.shape[:2]) for conv in network.cycles[1].S]
    assert shapes == [(3, 3), (6, 6), (9, 9)]
    assert network(torch.randn(1, 1, 21, 21)).shape == (1, 1, 21, 21)
    with pytest.raises(UserError, match="made for 21 x 21 points, found 20 x 21"):
        network(torch.zeros(1, 1, 20, 21))


def test_every_weight_has_a_gradient():
    for network in (
        MgNO(1, 1, 4, 2, SHORT),
        MgNO(1, 1, 4, 2, SHORT, size=(16, 16), norm="layer", residual=True, pointwise=False),
        HelmholtzMgNO(1, 1, (16, 16), 3, 2, SHORT),
    ):
        network(torch.randn(2, 1, 16, 16)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "at least 1"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"norm": "batch"}, "norm must be"),
        ({"residual": True, "out_channels": 2}, "residual"),
    ],
)
def test_what_makes_no_network_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        MgNO(**({"in_channels": 1, "out_channels": 1, "levels": SHORT} | arguments))


def test_fields_that_do_not_fit_are_refused():
    network = MgNO(2, 1, 4, 2, SHORT)
    with pytest.raises(UserError, match=r"\(B, 2, \*space\)"):
        network(torch.zeros(1, 1, 16, 16))
    with pytest.raises(UserError, match="takes no parameters"):
        network(torch.zeros(1, 2, 16, 16), torch.zeros(1, 1))
