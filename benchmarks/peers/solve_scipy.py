"""scipy's `solve_ivp`: equations in Fourier modes or differences, written here with `scipy.fft`.

The explicit methods step all runs as one system, the implicit ones each run for itself with a dense
Jacobian, but for heat, whose sparse Jacobian is that of all runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft as fft
from scipy.integrate import solve_ivp
from scipy.sparse import csc_matrix, diags, identity, kron
from solve_dialogue import Make, Problem, serve

from equations import temperatures

IMPLICIT = ("LSODA", "BDF", "Radau")
Rate = Callable[[np.ndarray], np.ndarray]


def rate_of(name: str, problem: Problem, n: int) -> Rate:
    """Rate of change of periodic fields ``(..., n)``; products by the two-thirds rule."""
    c = problem.constants
    q = 2.0 * np.pi / c["length"] * np.arange(n // 2 + 1)
    kept = np.arange(n // 2 + 1) < n / 3
    slope = 0.5j * q * kept

    def square(w: np.ndarray) -> np.ndarray:
        return fft.rfft(fft.irfft(w * kept, n) ** 2)

    def ks(u: np.ndarray) -> np.ndarray:
        w = fft.rfft(u)
        return fft.irfft((q**2 - q**4) * w - slope * square(w), n)

    def burgers(u: np.ndarray) -> np.ndarray:
        w = fft.rfft(u)
        return fft.irfft(-c["diffusivity"] * q**2 * w - slope * square(w), n)

    def fisher(u: np.ndarray) -> np.ndarray:
        return c["growth"] * u * (1.0 - u) - fft.irfft(c["diffusivity"] * q**2 * fft.rfft(u), n)

    def advection(u: np.ndarray) -> np.ndarray:
        return -c["speed"] * fft.irfft(1j * q * fft.rfft(u), n)

    return {"ks": ks, "burgers": burgers, "fisher": fisher, "advection": advection}[name]


def flow(problem: Problem, n: int) -> Rate:
    """Rate of change of vorticity ``(B, n, n)``."""
    c = problem.constants
    k, ky = np.fft.fftfreq(n, 1.0 / n)[:, None], np.arange(n // 2 + 1)
    squares = k**2 + ky**2
    kept = (np.abs(k) < n / 3) & (ky < n / 3)
    y = 2.0 * np.pi * np.arange(n) / n
    force = -c["waves"] * np.cos(c["waves"] * y)

    def rate(u: np.ndarray) -> np.ndarray:
        w = fft.rfft2(u)
        low = w * kept
        stream = low / np.maximum(squares, 1)
        both = np.stack([1j * ky * stream, -1j * k * stream, 1j * k * low, 1j * ky * low])
        vx, vy, wx, wy = fft.irfft2(both, s=(n, n))
        slow = -(c["viscosity"] * squares + c["drag"]) * w - kept * fft.rfft2(vx * wx + vy * wy)
        return fft.irfft2(slow, s=(n, n)) + force

    return rate


def periodic(name: str) -> Make:
    def make(problem: Problem, setting: dict[str, Any], start: np.ndarray) -> Any:
        n, method, rtol = setting["points"], setting["method"], setting["rtol"]
        rate = flow(problem, n) if name == "kolmogorov" else rate_of(name, problem, n)

        def solve(u: np.ndarray) -> np.ndarray:
            size = np.abs(u).max()
            found = solve_ivp(
                lambda t, y: rate(y.reshape(u.shape)).ravel(),
                (0.0, problem.constants["duration"]),
                u.ravel(),
                method,
                t_eval=(problem.constants["duration"],),
                rtol=rtol,
                atol=rtol * size,
            )
            return found.y[:, -1].reshape(u.shape)

        def run() -> np.ndarray:
            return np.stack([solve(u) for u in start]) if method in IMPLICIT else solve(start)

        return run, lambda found: found

    return make


def heat(problem: Problem, setting: dict[str, Any], start: np.ndarray) -> Any:
    n, table = setting["points"], temperatures()
    line = diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(n, n)) * (n + 1) ** 2
    sources = np.zeros_like(start)
    sources[:, 0], sources[:, -1] = (n + 1) ** 2 * table[:, 1:].T
    whole = csc_matrix(kron(identity(len(start)), line))
    known = sources.ravel()

    def run() -> np.ndarray:
        end, rtol = problem.constants["duration"], setting["rtol"]
        found = solve_ivp(
            lambda t, y: whole @ y + known,
            (0.0, end),
            start.ravel(),
            setting["method"],
            t_eval=(end,),
            jac=whole,
            rtol=rtol,
            atol=100.0 * rtol,
        )
        return found.y[:, -1].reshape(start.shape)

    return run, lambda found: found


if __name__ == "__main__":
    names = ("ks", "burgers", "fisher", "advection", "kolmogorov")
    serve({name: periodic(name) for name in names} | {"heat1d": heat}, ("scipy",))
