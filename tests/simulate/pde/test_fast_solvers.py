"""What is solved faster than by general time steps gives what these give."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
import torch
from mpmath import mp

from understudy.core.errors import UserError
from understudy.core.simulator import FieldSimulator, diverged
from understudy.simulate.pde import (
    Advection,
    Burgers,
    CombinedEquation,
    FisherKPP,
    KuramotoSivashinsky,
    quadratic,
    splitting,
)
from understudy.simulate.pde.cole_hopf import burgers
from understudy.simulate.pde.semilinear import square


def codes(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def last(simulator: FieldSimulator, x: torch.Tensor, start: torch.Tensor | None = None):
    """Last field in the precision of the computation."""
    return deque(simulator._march(simulator.values(x), start), maxlen=1)[0]


def waves(n: int, runs: int = 2, amplitude: float = 0.5) -> torch.Tensor:
    """The same start ``(runs, 1, n)`` at every n."""
    x = 2.0 * math.pi * torch.arange(n, dtype=torch.float64) / n
    high = amplitude * torch.arange(1, runs + 1, dtype=torch.float64)[:, None] / runs
    return (high * torch.sin(x + high) + high * torch.cos(3.0 * x))[:, None]


def test_a_square_by_quarters_is_that_of_transforms():
    n = 32
    w = torch.fft.rfft(torch.randn(3, 1, n, dtype=torch.float64), norm="forward")
    parts = quadratic.split(w, np.float64)
    for turned in (False, True):
        into = quadratic.Square.of(n, turned, np.float64).into(parts)
        found = quadratic.joined(into(parts, np.empty_like(parts)), w)
        expected = square(w, n) * (1.0j if turned else 1.0)
        torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-15)
    assert torch.equal(quadratic.joined(parts, w), w)


SIMULATORS = {
    "ks": (lambda **o: KuramotoSivashinsky(64, 2, 0, 10, **o), [(64, 1, 1, 0), (60, 1.1, 0.9, 0)]),
    "burgers": (
        lambda **o: Burgers(64, 2, 1, 0.2, 20, "spectral", **o),
        [(0.1, 0), (0.1, 0)],
    ),
    "combined": (
        lambda **o: CombinedEquation(64, 2, 1, 0.2, 20, "spectral", False, **o),
        [(0.5, 0.1, 0, 0), (1.0, 0.2, 0, 0)],
    ),
    "fisher": (lambda **o: FisherKPP(64, 2, 0.2, 10, **o), [(0.1, 5, 0), (0.2, 4, 0)]),
}


@pytest.mark.parametrize("scheme", ["runge-kutta", "adams"])
@pytest.mark.parametrize("name", SIMULATORS)
def test_quadratic_steps_are_those_of_tensors(name: str, scheme: str, monkeypatch) -> None:
    make, rows = SIMULATORS[name]
    for precision, tolerance in (("double", 1e-13), ("single", 1e-5)):
        simulator = make(scheme=scheme, precision=precision)
        quick = simulator._march(simulator.values(codes(*rows)), waves(64))
        with monkeypatch.context() as patch:
            patch.setattr(quadratic, "MOST_POINTS", 0)
            slow = simulator._march(simulator.values(codes(*rows)), waves(64))
            slow_fields = list(slow)
        for a, b in zip(quick, slow_fields, strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0.0, atol=tolerance)


def test_many_runs_are_stepped_as_each_alone():
    simulator = KuramotoSivashinsky(64, 1, 0, 5, scheme="adams")
    x = codes(*[(64.0, 1.0, 1.0, seed) for seed in range(70)])
    fields = simulator.fields(x)
    assert torch.equal(fields[67:68], simulator.fields(x[67:68]))


def test_a_run_that_leaves_the_numbers_leaves_quadratic_steps_of_others_alone():
    simulator = FisherKPP(32, 2, 1.0, 4)
    start = 0.5 + waves(32, 3, 0.2)
    start[1] = -1e200
    x = codes(*[(0.1, 5.0, 0.0)] * 3)
    fields = simulator.fields(x, start)
    assert diverged(fields).tolist() == [False, True, False]
    torch.testing.assert_close(fields[2:], simulator.fields(x[2:], start[2:]))


@pytest.mark.parametrize("scheme", ["runge-kutta", "splitting"])
def test_gradients_of_growth_are_differences_of_runs(scheme: str) -> None:
    simulator, start = FisherKPP(16, 1, 0.2, 2, scheme=scheme), 0.5 + waves(16, 1, 0.2)
    x = codes((0.1, 5.0, 0.0)).requires_grad_()
    last(simulator, x, start).square().sum().backward()
    ends = [last(simulator, codes((0.1, g, 0.0)), start).square().sum() for g in (4.999, 5.001)]
    assert float(x.grad[0, 1]) == pytest.approx(float(ends[1] - ends[0]) / 0.002, rel=1e-5)
    assert float(x.grad[0, 0].abs()) > 0.0


def test_extrapolated_splitting_is_of_eighth_order():
    x = codes((0.003, 8.0, 0.0), (0.002, 5.0, 0.0))  # of other diffusivities: by transforms
    start = 0.5 + waves(64, 2, 0.2)
    fine, *ends = (last(FisherKPP(64, 1, 1.0, n, scheme="splitting"), x, start) for n in (16, 2, 4))
    errors = [float((end - fine).abs().max()) for end in ends]
    assert math.log2(errors[0] / errors[1]) > 7.0
    stepped = last(FisherKPP(128, 1, 1.0, 800), x, 0.5 + waves(128, 2, 0.2))[..., ::2]
    torch.testing.assert_close(fine, stepped, rtol=0.0, atol=1e-9)


def test_weights_of_an_extrapolation_cancel_even_powers():
    for power, expected in ((0, 1.0), (2, 0.0), (4, 0.0), (6, 0.0)):
        total = sum(splitting.weight(n) * n ** float(-power) for n in (1, 2, 3, 4))
        assert total == pytest.approx(expected, abs=1e-14)


def test_diffusion_by_a_matrix_is_that_by_transforms():
    start = 0.5 + waves(32, 2, 0.2)
    alone = last(FisherKPP(32, 2, 1.0, 3, scheme="splitting"), codes((0.05, 8.0, 0.0)), start[:1])
    x = codes((0.05, 8.0, 0.0), (0.1, 5.0, 0.0))
    both = last(FisherKPP(32, 2, 1.0, 3, scheme="splitting"), x, start)
    torch.testing.assert_close(both[:1], alone, rtol=0.0, atol=1e-13)


def test_burgers_in_closed_form_is_what_many_steps_give():
    start = 0.3 + waves(64)  # whose mean moves it as a whole
    for viscosities in ((0.03, 0.03), (0.03, 0.06)):
        x = codes(*[(nu, 0.0) for nu in viscosities])
        exact = last(Burgers(64, 3, 1, 0.3, scheme="exact"), x, start)
        fine = Burgers(256, 3, 1, 0.3, 400, flux="spectral")
        stepped = last(fine, x, 0.3 + waves(256))[..., ::4]
        torch.testing.assert_close(exact, stepped, rtol=0.0, atol=1e-9)


def test_burgers_in_closed_form_is_right_where_its_potential_is_below_all_numbers():
    # psi/2 nu of -sin(2 pi x)/(2 pi)-like potential spans 1/(2 pi nu) = 1592 > 745, e^-745 = 0
    n, nu, t = 64, 1e-4, 0.1
    x = torch.arange(n, dtype=torch.float64) / n
    u = burgers(torch.sin(2.0 * math.pi * x)[None], torch.tensor([nu]).double(), t)[0]
    # before its shock, at t = 1/(2 pi), a thin one moves along characteristics to O(nu)
    for i in (5, 20, 50):
        foot = mp.findroot(lambda y, i=i: y + t * mp.sin(2 * mp.pi * y) - i / n, i / n)
        assert float(u[i]) == pytest.approx(float(mp.sin(2 * mp.pi * foot)), abs=2e-3)


def test_burgers_in_closed_form_has_gradients():
    simulator, start = Burgers(32, 1, 1, 0.2, scheme="exact"), waves(32, 1)
    x = codes((0.5, 0.0)).requires_grad_()
    last(simulator, x, start).square().sum().backward()
    ends = [last(simulator, codes((nu, 0.0)), start).square().sum() for nu in (0.4999, 0.5001)]
    assert float(x.grad[0, 0]) == pytest.approx(float(ends[1] - ends[0]) / 2e-4, rel=1e-5)


def test_advection_is_exact_at_every_output():
    start = waves(32)
    x = codes((0.7, 0.0), (2.3, 0.0))
    simulator = Advection(32, 5, 1.0)
    fields = list(simulator._march(simulator.values(x), start))
    grid = torch.arange(32, dtype=torch.float64) / 32
    for k, field in enumerate(fields):
        for run, speed in enumerate((0.7, 2.3)):
            high = 0.5 * (run + 1) / 2
            angle = 2.0 * math.pi * (grid - speed * k / 5)
            expected = high * torch.sin(angle + high) + high * torch.cos(3.0 * angle)
            torch.testing.assert_close(field[run, 0], expected, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("make", [Burgers, FisherKPP, KuramotoSivashinsky])
def test_a_scheme_that_is_not_there_is_refused(make) -> None:
    with pytest.raises(UserError, match="scheme must be"):
        make(scheme="euler")


def test_what_is_kept_from_inference_serves_gradients_later():
    x, start = codes((1.7, 0.0)), waves(24, 1)
    with torch.inference_mode():
        Advection(24, 1).fields(x, start)
        FisherKPP(24, 1, scheme="splitting").fields(codes((0.1, 5.0, 0.0)), start)
    for simulator, params in (
        (Advection(24, 1), x),
        (FisherKPP(24, 1, scheme="splitting"), codes((0.1, 5.0, 0.0))),
    ):
        begin = start.clone().requires_grad_()
        simulator.fields(params, begin).square().sum().backward()
        assert float(begin.grad.abs().max()) > 0.0


def test_small_batches_leave_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        stream = FisherKPP(16, 2, scheme="splitting").stream(codes((0.1, 5.0, 0.0)))
        next(stream)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("equation", "own"), [(Burgers, "exact"), (FisherKPP, "splitting")])
def test_schemes_of_an_equation_are_named(equation, own):
    with pytest.raises(UserError, match=f"'runge-kutta' or 'adams' or '{own}', found 'banana'"):
        equation(scheme="banana")
