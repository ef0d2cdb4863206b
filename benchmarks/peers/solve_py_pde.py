"""py-pde: central differences, an adaptive explicit method, compiled by Numba once for all runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pde
from solve_dialogue import Make, Problem, serve


def rate(name: str, c: dict[str, float]) -> str:
    if name == "ks":
        return "-laplace(laplace(u) + u) - 0.5 * d_dx(u**2)"
    if name == "burgers":
        return f"{c['diffusivity']} * laplace(u) - 0.5 * d_dx(u**2)"
    return f"{c['diffusivity']} * laplace(u) + {c['growth']} * u * (1 - u)"


def maker(name: str) -> Make:
    def make(problem: Problem, setting: dict[str, Any], start: np.ndarray) -> Any:
        c, n = problem.constants, setting["points"]
        grid = pde.CartesianGrid([[0.0, c["length"]]], n, periodic=True)
        equation = pde.PDE({"u": rate(name, c)})
        solver = pde.solvers.RungeKuttaSolver(
            equation, adaptive=True, tolerance=setting["rtol"], backend="numba"
        )
        stepper = solver.make_stepper(pde.ScalarField(grid, start[0]), 1e-6)

        def run() -> np.ndarray:
            found = np.empty_like(start)
            for i, u in enumerate(start):
                state = pde.ScalarField(grid, u)
                stepper(state, 0.0, c["duration"])
                found[i] = state.data
            return found

        return run, lambda found: found

    return make


if __name__ == "__main__":
    serve({name: maker(name) for name in ("ks", "burgers", "fisher")}, ("py-pde", "numba"))
