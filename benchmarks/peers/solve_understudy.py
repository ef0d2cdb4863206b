"""Our simulators, all runs in one call."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import numpy as np
import torch
from solve_dialogue import Make, Problem, serve
from torch import Tensor

from equations import temperatures
from understudy.simulate.pde import (
    Advection,
    Burgers,
    FisherKPP,
    Heat,
    KolmogorovFlow,
    KuramotoSivashinsky,
)


def codes(runs: int, *values: float) -> Tensor:
    return torch.tensor([[*values, 0.0]] * runs, dtype=torch.float64)


def simulator(name: str, problem: Problem, setting: dict[str, Any]) -> tuple[Any, Tensor]:
    """The simulator with one output, and the codes of its runs."""
    c, n, steps = problem.constants, setting["points"], setting["steps"]
    runs, duration = len(problem.start(problem.base)), c["duration"]
    options = {k: setting[k] for k in ("precision", "scheme") if k in setting}
    if name == "ks":
        made = KuramotoSivashinsky(n, 1, 0, steps, **options)
        return made, codes(runs, c["length"], duration, 1.0)
    if name == "burgers":
        made = Burgers(n, 1, 1, duration, steps, flux="spectral", **options)
        return made, codes(runs, np.pi * c["diffusivity"])
    if name == "fisher":
        made = FisherKPP(n, 1, duration, steps, **options)
        return made, codes(runs, c["diffusivity"], c["growth"])
    if name == "advection":
        return Advection(n, 1, duration), codes(runs, c["speed"])
    if name == "kolmogorov":
        made = KolmogorovFlow(n, 1, duration, steps, **options)
        return made, codes(runs, c["viscosity"])
    return Heat(n, 1, 1, duration, scheme="exact"), torch.from_numpy(temperatures())


def velocities(w: Tensor) -> Tensor:
    """Velocities ``(B, 2, n, n)`` of a vorticity ``(B, n, n)`` on a square of 2 pi."""
    n = w.shape[-1]
    kx = torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64)[:, None]
    ky = torch.arange(n // 2 + 1, dtype=torch.float64)
    stream = torch.fft.rfft2(w) / (kx**2 + ky**2).clamp_min(1.0)
    both = torch.stack([1j * ky * stream, -1j * kx * stream], dim=1)
    return torch.fft.irfft2(both, s=(n, n))


def vorticity(u: Tensor) -> Tensor:
    """The inverse of the above."""
    n = u.shape[-1]
    kx = torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64)[:, None]
    ky = torch.arange(n // 2 + 1, dtype=torch.float64)
    modes = torch.fft.rfft2(u.double())
    return torch.fft.irfft2(1j * kx * modes[:, 1] - 1j * ky * modes[:, 0], s=(n, n))


def maker(name: str) -> Make:
    def make(problem: Problem, setting: dict[str, Any], start: np.ndarray) -> Any:
        made, params = simulator(name, problem, setting)
        field = torch.from_numpy(start)
        field = velocities(field) if name == "kolmogorov" else field[:, None]

        @torch.no_grad()
        def run() -> Tensor:
            return deque(made.stream(params, field), maxlen=1)[0][1]

        def fields(found: Tensor) -> np.ndarray:
            return (vorticity(found) if name == "kolmogorov" else found[:, 0]).numpy()

        return run, fields

    return make


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    names = ("ks", "burgers", "fisher", "advection", "kolmogorov", "heat1d")
    serve({name: maker(name) for name in names}, ("torch",))
