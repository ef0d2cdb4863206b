"""jax-cfd: its spectral equations, stepped by Crank-Nicolson with RK4, compiled by XLA."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_cfd.base import forcings, grids
from jax_cfd.spectral import equations, time_stepping
from solve_dialogue import Make, Problem, serve


def equation(name: str, problem: Problem, n: int) -> Any:
    c = problem.constants
    domain = ((0.0, c["length"]),) * problem.axes
    grid = grids.Grid((n,) * problem.axes, domain=domain)
    if name == "ks":
        return equations.KuramotoSivashinsky(grid)
    offsets = ((0.0, 0.0), (0.0, 0.0))
    return equations.NavierStokes2D(
        c["viscosity"],
        grid,
        drag=c["drag"],
        smooth=True,
        forcing_fn=lambda g: forcings.kolmogorov_forcing(g, k=4, offsets=offsets),
    )


def maker(name: str) -> Make:
    def make(problem: Problem, setting: dict[str, Any], start: np.ndarray) -> Any:
        jax.config.update("jax_enable_x64", setting["dtype"] == "float64")
        steps, n = setting["steps"], setting["points"]
        dt = problem.constants["duration"] / steps
        step = time_stepping.crank_nicolson_rk4(equation(name, problem, n), dt)
        axes = tuple(range(-problem.axes, 0))

        def one(u: jax.Array) -> jax.Array:
            w, _ = jax.lax.scan(lambda w, _: (step(w), None), jnp.fft.rfftn(u), length=steps)
            return jnp.fft.irfftn(w, s=(n,) * problem.axes, axes=axes)

        u = jnp.asarray(start, dtype=setting["dtype"])
        compiled = jax.jit(jax.vmap(one))
        return lambda: jax.block_until_ready(compiled(u)), np.asarray

    return make


if __name__ == "__main__":
    serve({name: maker(name) for name in ("ks", "kolmogorov")}, ("jax-cfd", "jax"))
