"""Problems on which solvers are compared: the same start at every resolution, and what is solved.

A start is a sum of a few waves (or a temperature that walls change), so that every solver gets its
exact values on a grid of its own. Errors are those at the nodes of a base grid that all grids have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

RUNS = 32
RUNS_2D = 16
MANY = 512
_MANY = f"-{MANY}"


@dataclass(frozen=True)
class Problem:
    """An equation with numbers.

    ``start(n)`` is ``(B, *space)`` at n points along each axis, ``base`` the number of points along
    an axis at which errors are taken, ``constants`` what a solver needs to know. ``nodes`` says
    where points lie: "periodic" at i L/n, "interior" at i/(n + 1).
    """

    title: str
    equation: str
    constants: dict[str, float]
    start: Callable[[int], np.ndarray]
    base: int
    nodes: str = "periodic"
    axes: int = 1

    def sampled(self, u: np.ndarray) -> np.ndarray:
        """Values ``(B, base, ...)`` at the base nodes of ``(B, n, ...)``."""
        n = u.shape[-1]
        if self.nodes == "interior":
            every = (n + 1) // (self.base + 1)
            index: Any = slice(every - 1, None, every)
        else:
            index = slice(None, None, n // self.base)
        return u[(slice(None), *[index] * self.axes)]


def line(seed: int, waves: int, amplitude: float, runs: int = RUNS) -> Callable[[int], Any]:
    """Sums of so many waves of random amplitude and phase, ``(runs, n)``."""

    def start(n: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        high = rng.uniform(-amplitude, amplitude, (runs, waves))
        phase = rng.uniform(0.0, 2.0 * np.pi, (runs, waves))
        x = np.arange(n) / n
        k = np.arange(1, waves + 1)
        angle = 2.0 * np.pi * k[:, None] * x + phase[..., None]
        return (high[..., None] * np.sin(angle)).sum(1)

    return start


def eddies(seed: int, waves: int, rms: float) -> Callable[[int], Any]:
    """Random vorticity ``(RUNS_2D, n, n)`` of so many waves along each axis."""

    def start(n: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        k = np.arange(-waves, waves + 1)
        modes = rng.normal(size=(2, RUNS_2D, len(k), len(k)))
        modes = modes[0] + 1j * modes[1]
        modes[:, waves, waves] = 0.0
        turn = np.exp(2.0j * np.pi * np.outer(np.arange(n) / n, k))
        field = np.einsum("xk,bkl,yl->bxy", turn, modes, turn).real
        size = np.sqrt((np.abs(modes) ** 2).sum((1, 2)) / 2.0)
        return rms * field / size[:, None, None]

    return start


def concentration(runs: int = RUNS, depth: float = 0.2) -> Callable[[int], Any]:
    wave = line(3, 4, 1.0, runs)
    return lambda n: 0.5 + depth * wave(n)


def equation_of(name: str) -> str:
    """The problem of which this is the same with more runs, or itself."""
    return name.removesuffix(_MANY)


def level(n: int) -> np.ndarray:
    """Initial temperatures ``(RUNS, n)``, each uniform; see :func:`temperatures`."""
    return np.repeat(temperatures()[:, :1], n, axis=1)


def temperatures() -> np.ndarray:
    """Initial temperature and that of both walls ``(RUNS, 3)``."""
    return np.random.default_rng(5).uniform(100.0, 500.0, (RUNS, 3))


def heat(x: np.ndarray, t: float) -> np.ndarray:
    """Temperatures ``(RUNS, n)`` at points between the walls, by their series."""
    first, left, right = (column[:, None] for column in temperatures().T)
    found = left + (right - left) * x
    for k in range(1, 200):
        high = 2.0 / (np.pi * k) * ((first - left) - (-1.0) ** k * (first - right))
        found = found + high * np.exp(-((np.pi * k) ** 2) * t) * np.sin(np.pi * k * x)
    return found


PROBLEMS = {
    "ks": Problem(
        "Kuramoto-Sivashinsky",
        "$u_t + u u_x + u_{xx} + u_{xxxx} = 0$ on a periodic interval of 64, until 20",
        {"length": 64.0, "duration": 20.0},
        line(1, 10, 0.8),
        32,
    ),
    "burgers": Problem(
        "Burgers",
        "$u_t + u u_x = 0.005\\, u_{xx}$ on the periodic unit interval, until 0.5",
        {"length": 1.0, "duration": 0.5, "diffusivity": 0.005},
        line(2, 4, 0.6),
        64,
    ),
    "fisher": Problem(
        "Fisher-KPP",
        "$u_t = 0.002\\, u_{xx} + 5 u (1 - u)$ on the periodic unit interval, until 1",
        {"length": 1.0, "duration": 1.0, "diffusivity": 0.002, "growth": 5.0},
        concentration(),
        32,
    ),
    "advection": Problem(
        "Advection",
        "$u_t + 0.7\\, u_x = 0$ on the periodic unit interval, until 1",
        {"length": 1.0, "duration": 1.0, "speed": 0.7},
        line(4, 8, 1.0),
        32,
    ),
    "kolmogorov": Problem(
        "Kolmogorov flow",
        "$\\omega_t + u \\cdot \\nabla\\omega = 0.02\\, \\Delta\\omega - 0.1\\, \\omega"
        " - 4 \\cos 4y$ on a periodic square of $2\\pi$, until 0.5",
        {"length": 2.0 * np.pi, "duration": 0.5, "viscosity": 0.02, "drag": 0.1, "waves": 4},
        eddies(6, 4, 3.0),
        32,
        axes=2,
    ),
    "heat1d": Problem(
        "Heat",
        "$u_t = u_{xx}$ on the unit interval, walls of other temperatures, until 0.05",
        {"duration": 0.05},
        level,
        15,
        "interior",
    ),
}

_STARTS = {
    "ks": line(1, 10, 0.8, MANY),
    "burgers": line(2, 4, 0.6, MANY),
    "fisher": concentration(MANY, 0.12),
}
PROBLEMS |= {
    name + _MANY: replace(PROBLEMS[name], title=f"{PROBLEMS[name].title}, {MANY} runs", start=start)
    for name, start in _STARTS.items()
}
