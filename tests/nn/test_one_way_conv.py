"""Convolutions of one-way filters: the same function as a dense one, in any layout."""

import math
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from understudy.core.errors import UserError
from understudy.nn.canonical import compose, decompose
from understudy.nn.one_way_conv import (
    ONE_WAY,
    OneWayConv1d,
    OneWayConv2d,
    OneWayConv3d,
    OneWayConvTranspose1d,
    OneWayConvTranspose2d,
    OneWayConvTranspose3d,
)
from understudy.nn.one_way_filters import MODES, PADDINGS, WAYS, largest_rank

FORWARD = {1: OneWayConv1d, 2: OneWayConv2d, 3: OneWayConv3d}
TRANSPOSED = {1: OneWayConvTranspose1d, 2: OneWayConvTranspose2d, 3: OneWayConvTranspose3d}
pytestmark = pytest.mark.filterwarnings("ignore:rank")


def filled(layer: nn.Module) -> nn.Module:
    """Layer in float64 with a bias that is not zero."""
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer.double()


def each(data: st.DataObject, dims: int, low: int, high: int) -> list[int]:
    return [data.draw(st.integers(low, high)) for _ in range(dims)]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_filters_do_what_the_dense_convolution_of_their_kernel_does(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    mode = data.draw(st.sampled_from(MODES if dims > 1 else MODES[:2]))
    kernel, stride = each(data, dims, 1, 4), each(data, dims, 1, 3)
    dilation, margin = each(data, dims, 1, 2), each(data, dims, 0, 2)
    padding_mode = data.draw(st.sampled_from(PADDINGS))
    layer = FORWARD[dims](
        *(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)), kernel),
        rank=data.draw(st.integers(1, 3)),
        mode=mode,
        stride=stride,
        padding=margin,
        dilation=dilation,
        bias=data.draw(st.booleans()),
        padding_mode=padding_mode,
    )
    x = torch.randn(2, layer.in_channels, *each(data, dims, 8, 10), dtype=torch.float64)
    dense, filters = filled(layer).to_dense(), layer
    torch.testing.assert_close(filters(x), dense(x))
    for filters.way in WAYS:
        torch.testing.assert_close(filters(x), dense(x))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_transposed_filters_do_what_the_dense_one_does(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    mode = data.draw(st.sampled_from(MODES if dims > 1 else MODES[:2]))
    stride, dilation = each(data, dims, 1, 3), each(data, dims, 1, 2)
    kernel, cut = each(data, dims, 2, 4), each(data, dims, 0, 1)
    more = [data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    layer = TRANSPOSED[dims](
        *(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)), kernel),
        rank=data.draw(st.integers(1, 3)),
        mode=mode,
        stride=stride,
        padding=cut,
        output_padding=more,
        dilation=dilation,
        bias=data.draw(st.booleans()),
    )
    x = torch.randn(2, layer.in_channels, *each(data, dims, 3, 5), dtype=torch.float64)
    dense, filters = filled(layer).to_dense(), layer
    # PyTorch wants an output padding below its stride or dilation, along one axis as along all
    assume(all(m < max(s, 1) or m < d for m, s, d in zip(more, stride, dilation, strict=True)))
    torch.testing.assert_close(filters(x), dense(x))
    for filters.way in WAYS:
        torch.testing.assert_close(filters(x), dense(x))


def bytes_kept(layer: nn.Module, x: torch.Tensor) -> int:
    """Bytes that autograd keeps of a call, without the layer's own weights."""
    own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    kept: dict[int, int] = {}

    def keep(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = layer(x)
    del out
    return sum(n for place, n in kept.items() if place not in own)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [OneWayConv2d, OneWayConvTranspose2d])
def test_gradients_are_the_same_in_every_way(kind: type, mode: str) -> None:
    torch.manual_seed(0)
    layer = filled(kind(3, 4, (3, 5), rank=2, mode=mode, padding=1, stride=(2, 1)))
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    found = []
    for layer.way in WAYS:
        out = layer(x).square().sum()
        first = torch.autograd.grad(out, [x, *layer.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [*layer.parameters()])
        found.append([*first, *second])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_recomputed_or_composed_keeps_what_a_dense_layer_keeps(mode: str) -> None:
    layer = OneWayConv2d(8, 8, 5, rank=2, mode=mode, padding=2)
    x = torch.randn(4, 8, 24, 24, requires_grad=True)
    field = x.numel() * 4
    kept = {}
    for layer.way in ("chain", "recomputed", "composed"):
        kept[layer.way] = bytes_kept(layer, x)
    assert bytes_kept(layer.to_dense(), x) == kept["recomputed"] == field
    assert field <= kept["composed"] < 1.3 * field
    assert kept["chain"] > 1.2 * field


@pytest.mark.parametrize(
    ("channels", "kernel", "mode", "rank", "recomputed"),
    [
        (32, 5, "per_filter", 1, True),
        (32, 5, "per_filter", 2, True),
        (32, 5, "per_filter", 4, False),
        (32, 3, "per_filter", 2, False),
        (32, 7, "per_filter", 4, True),
        (16, 5, "per_filter", 2, False),
        (32, 5, "shared", 64, True),
        (32, 5, "spatial", 1, True),
        (32, 3, "spatial", 2, False),
    ],
)
def test_what_is_recomputed_is_chosen_by_size(channels, kernel, mode, rank, recomputed) -> None:
    layer = OneWayConv2d(channels, channels, kernel, rank=rank, mode=mode)
    assert layer.recomputing_is_faster() == recomputed
    x = torch.randn(1, channels, 12, 12, requires_grad=True)
    kernels = []
    layer.kernel = lambda f=layer.kernel: kernels.append(1) or f()
    layer(x)
    assert bool(kernels) != recomputed
    with torch.no_grad():
        layer(x)
    layer.eval()(x)
    assert len(kernels) == (not recomputed)


@pytest.mark.parametrize("kernel", [4, 5])
def test_same_padding_is_that_of_pytorch_for_even_kernels_too(kernel: int) -> None:
    layer = filled(OneWayConv2d(3, 5, kernel, rank=2, padding="same", dilation=(1, 3)))
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    assert layer(x).shape == (2, 5, 9, 11)
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


@pytest.mark.parametrize("kind", ONE_WAY)
@pytest.mark.parametrize("mode", MODES)
def test_a_dense_convolution_is_recovered_at_full_rank(kind: type, mode: str) -> None:
    one_way = ONE_WAY[kind]
    if mode == "spatial" and one_way.dims == 1:
        pytest.skip("one axis has nothing to separate")
    torch.manual_seed(1)
    dense = kind(3, 4, (3, 2, 3)[: one_way.dims], stride=(2, 1, 1)[: one_way.dims]).double()
    rank = largest_rank(3, 4, dense.kernel_size, mode)
    filters = one_way.from_dense(dense, rank, mode, sweeps=300)
    x = torch.randn(1, 3, *(6, 7, 8)[: one_way.dims], dtype=torch.float64)
    torch.testing.assert_close(filters(x), dense(x), rtol=1e-4, atol=1e-4)


def test_a_kernel_of_few_terms_is_found_again() -> None:
    torch.manual_seed(0)
    truth = OneWayConv2d(8, 6, 5, rank=2, padding=2)
    found = OneWayConv2d.from_dense(truth.to_dense(), rank=2)
    torch.testing.assert_close(found.kernel(), truth.kernel(), rtol=1e-3, atol=1e-4)


def test_more_terms_approximate_better() -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 8, 5)
    errors = [
        float((OneWayConv2d.from_dense(dense, rank).kernel() - dense.weight).detach().norm())
        for rank in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("mode", "rank", "count"),
    [
        ("per_filter", 1, 32 * (32 + 5 + 5)),
        ("per_filter", 4, 4 * 32 * (32 + 5 + 5)),
        ("shared", 20, 20 * (32 + 32 + 5 + 5)),
        ("spatial", 1, 32 * 32 * 5 * 2),
    ],
)
def test_parameters_are_as_many_as_the_formula_says(mode: str, rank: int, count: int) -> None:
    layer = OneWayConv2d(32, 32, 5, rank=rank, mode=mode)
    assert sum(p.numel() for p in layer.parameters()) == count + 32


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", [1, 4])
def test_a_fresh_kernel_has_the_variance_of_he(mode: str, rank: int) -> None:
    torch.manual_seed(0)
    kernels = [OneWayConv2d(16, 64, 5, rank=rank, mode=mode).kernel() for _ in range(60)]
    variance = torch.stack(kernels).square().mean()
    assert float(variance) == pytest.approx(2.0 / (16 * 25), rel=0.25)


@pytest.mark.parametrize("mode", MODES)
def test_a_transposed_layer_keeps_the_variance_of_its_input(mode: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 16, 20, 20)
    layers = [
        OneWayConvTranspose2d(16, 32, 4, rank=2, mode=mode, stride=2, padding=1) for _ in range(40)
    ]
    inner = torch.stack([layer(x)[..., 4:-4, 4:-4] for layer in layers])
    assert float(inner.square().mean()) == pytest.approx(2.0, rel=0.25)


def test_depth_neither_shrinks_nor_blows_up_a_signal() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 32, 24, 24)
    for _ in range(8):
        x = OneWayConv2d(32, 32, 5, rank=2, padding=2, padding_mode="circular")(x).relu()
    assert 0.05 < float(x.square().mean()) < 20.0


@pytest.mark.parametrize("mode", MODES)
def test_balancing_equalises_lengths_and_changes_no_function(mode: str) -> None:
    layer = OneWayConv2d(4, 6, 3, rank=2, mode=mode)
    with torch.no_grad():
        layer.factors[0].mul_(100.0)
    before = layer.kernel()
    layer.balance()
    torch.testing.assert_close(layer.kernel(), before)
    if mode != "spatial":
        lengths = [f.norm(dim=-1) for f in layer.factors]
        for length in lengths[1:]:
            torch.testing.assert_close(length, lengths[0])


def test_balancing_leaves_zeros_finite() -> None:
    layer = OneWayConv2d(4, 6, 3)
    nn.init.zeros_(layer.factors[-1])
    layer.balance()
    assert all(bool(f.isfinite().all()) for f in layer.factors)


def test_a_fresh_twin_starts_as_the_dense_layer_would() -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(32, 64, 5, padding=2)
    twin = OneWayConv2d.like(dense, rank=2)
    spread = float(dense.weight.std())
    assert float(twin.kernel().std()) == pytest.approx(spread, rel=0.2)
    torch.testing.assert_close(twin.bias, dense.bias)
    nn.init.zeros_(dense.weight)
    assert float(OneWayConv2d.like(dense).kernel().abs().max()) == 0.0


def test_a_twin_that_starts_at_zero_learns() -> None:
    dense = nn.Conv2d(3, 3, 3, padding=1)
    nn.init.zeros_(dense.weight)
    twin, x = OneWayConv2d.like(dense), torch.randn(2, 3, 8, 8)
    (twin(x) - x).square().mean().backward()
    assert float(twin.factors[-1].grad.abs().max()) > 0.0


def test_the_axis_that_leaves_fewer_points_comes_first() -> None:
    assert OneWayConv2d(4, 4, 3, stride=(1, 2)).axes == (1, 0)
    assert OneWayConv2d(4, 4, 3, stride=(2, 1)).axes == (0, 1)
    # of a transposed one the axis that adds points comes last
    assert OneWayConvTranspose2d(4, 4, 4, stride=(2, 1)).axes == (1, 0)


def test_dtype_is_kept() -> None:
    dense = nn.Conv2d(3, 4, 3).double()
    for made in (OneWayConv2d.like(dense), OneWayConv2d.from_dense(dense)):
        assert made.kernel().dtype == torch.float64 == made.to_dense().weight.dtype


def test_groups_are_refused() -> None:
    with pytest.raises(UserError, match="4 groups filters channels apart already"):
        OneWayConv2d.like(nn.Conv2d(4, 8, 3, groups=4))


def test_a_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="takes the place of Conv2d, found ConvTranspose2d"):
        OneWayConv2d.from_dense(nn.ConvTranspose2d(4, 4, 3))


def test_more_terms_than_any_kernel_needs_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OneWayConv2d(2, 4, 3, rank=6)
        with pytest.raises(UserWarning, match="rank 7 is more than the 6 with which"):
            OneWayConv2d(2, 4, 3, rank=7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "cp"}, "mode must be one of per_filter, shared, spatial, found 'cp'"),
        ({"rank": 0}, "rank must be at least 1, found 0"),
        ({"padding": "full"}, "padding is 'same', 'valid' or numbers, found 'full'"),
        ({"padding": "same", "stride": 2}, "padding 'same' is for stride 1"),
        ({"stride": (1, 2, 3)}, "stride must be 2 numbers of at least 1"),
        ({"padding_mode": "mirror"}, "padding_mode must be one of"),
    ],
)
def test_bad_layouts_are_refused_in_one_sentence(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        OneWayConv2d(3, 4, 3, **options)


def test_one_axis_cannot_be_separated() -> None:
    with pytest.raises(UserError, match="nothing for mode 'spatial'"):
        OneWayConv1d(3, 4, 3, mode="spatial")


# -- decompositions ---------------------------------------------------------------------------


def test_terms_of_matrices_are_their_singular_values() -> None:
    torch.manual_seed(0)
    M = torch.randn(5, 6, 4, dtype=torch.float64)
    left = (compose(decompose(M, 2)) - M).flatten(1).norm(dim=1)
    s = torch.linalg.svdvals(M)
    torch.testing.assert_close(left, s[:, 2:].norm(dim=1))


def test_the_best_single_term_of_a_known_tensor_is_found() -> None:
    """3 e1 x e1 x e1 + 2 e2 x e2 x e2: the best product is the first term, what is left is 2."""
    T = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    T[0, 0, 0, 0], T[0, 1, 1, 1] = 3.0, 2.0
    one = compose(decompose(T, 1))
    assert float((one - T).norm()) == pytest.approx(2.0)
    assert float((compose(decompose(T, 2)) - T).norm()) == pytest.approx(0.0, abs=1e-6)


def test_a_batch_is_decomposed_as_its_members_alone() -> None:
    torch.manual_seed(0)
    T = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    together = compose(decompose(T, 3, tolerance=0.0))
    alone = torch.cat([compose(decompose(t.unsqueeze(0), 3, tolerance=0.0)) for t in T])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_terms_of_zero_are_zero() -> None:
    found = decompose(torch.zeros(2, 3, 4, 5), 2)
    assert all(bool(f.isfinite().all()) for f in found)
    assert math.isclose(float(compose(found).abs().max()), 0.0, abs_tol=1e-12)
