"""exponax: ETDRK in Fourier modes, compiled by XLA; all runs in one call, by `vmap`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import exponax as ex
import jax
import jax.numpy as jnp
import numpy as np
from solve_dialogue import Make, Problem, serve

jax.config.update("jax_enable_x64", True)


def stepper(problem: Problem, name: str, n: int, dt: float, order: int) -> Any:
    c = problem.constants
    common = (problem.axes, c.get("length", 1.0), n, dt)
    if name == "ks":
        return ex.stepper.KuramotoSivashinskyConservative(*common, order=order)
    if name == "burgers":
        diffusivity = c["diffusivity"]
        return ex.stepper.Burgers(*common, diffusivity=diffusivity, conservative=True, order=order)
    if name == "fisher":
        return ex.stepper.reaction.FisherKPP(
            *common, diffusivity=c["diffusivity"], reactivity=c["growth"], order=order
        )
    if name == "advection":
        return ex.stepper.Advection(*common, velocity=c["speed"])
    return ex.stepper.KolmogorovFlowVorticity(
        *common,
        diffusivity=c["viscosity"],
        drag=-c["drag"],
        injection_mode=4,
        convection_scale=-1.0,  # its velocity of a vorticity has the other sign
        order=order,
    )


def maker(name: str) -> Make:
    def make(problem: Problem, setting: dict[str, Any], start: np.ndarray) -> Any:
        steps, dt = setting["steps"], problem.constants["duration"] / setting["steps"]
        jax.config.update("jax_enable_x64", setting["dtype"] == "float64")
        one = stepper(problem, name, setting["points"], dt, setting.get("order", 4))
        whole = ex.RepeatedStepper(one, steps) if steps > 1 else one
        u = jnp.asarray(start[:, None], dtype=setting["dtype"])
        compiled = eqx.filter_jit(jax.vmap(whole))
        return lambda: jax.block_until_ready(compiled(u)), lambda found: np.asarray(found)[:, 0]

    return make


if __name__ == "__main__":
    names = ("ks", "burgers", "fisher", "advection", "kolmogorov")
    serve({name: maker(name) for name in names}, ("exponax", "jax"))
