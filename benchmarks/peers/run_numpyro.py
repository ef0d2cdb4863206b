"""NumPyro's NUTS or HMC on the posterior of a Bayesian neural network: `run_numpyro.py Q A`.

The question is that of `benchmarks/sampling.py`: data, sizes of the network, variances, starts. The
answer has the functions' values at the query points and the potential energies, and what the draws
cost. With the setting ``collapsed`` the output layer is integrated out, as `understudy.nn` does it.

Compilation is not counted: the same run from NaN, where every path ends after one step, first fills
the cache of compiled programs, then shows what tracing and loading take, which is subtracted. HMC
would take ever more steps from NaN: the run itself is made twice, and the second one counts.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

COMPILED = {
    "jax_compilation_cache_dir": str(Path(sys.prefix) / "cache"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def main(question: str, answer: str) -> None:
    with np.load(question) as stored:
        task = {name: stored[name] for name in stored.files}
    settings = json.loads(str(task["settings"]))
    chains = len(task["start"])
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={chains}"

    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro.infer import HMC, MCMC, NUTS

    jax.config.update("jax_enable_x64", settings["dtype"] == "float64")
    for option, value in COMPILED.items():
        jax.config.update(option, value)
    density = Density(task, settings)
    common = {
        "potential_fn": density.collapsed if settings["collapsed"] else density.potential,
        "target_accept_prob": settings["target_acceptance"],
        "dense_mass": False,
    }
    if settings["method"] == "nuts":
        kernel = NUTS(**common)
    else:
        kernel = HMC(**common, trajectory_length=settings["path_length"])
    mcmc = MCMC(
        kernel,
        num_warmup=settings["burn_in"],
        num_samples=settings["samples"],
        num_chains=chains,
        chain_method=settings["chain_method"],
        progress_bar=False,
    )
    start = jnp.asarray(task["start"], settings["dtype"])
    if settings["collapsed"]:
        start = start[:, : density.hidden]
    key = jax.random.PRNGKey(settings["seed"])
    complete = jax.jit(partial(jax.lax.map, partial(jax.lax.map, density.complete)))

    def run(start: Any) -> tuple[Any, np.ndarray, dict[str, float]]:
        """Draws, leapfrog steps of the burn-in, and costs."""
        marks = [now()]
        mcmc.warmup(key, init_params=start, extra_fields=("num_steps",), collect_warmup=True)
        steps = np.asarray(mcmc.get_extra_fields()["num_steps"])
        marks.append(now())
        mcmc.run(mcmc.post_warmup_state.rng_key, extra_fields=("num_steps", "accept_prob"))
        draws = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
        if settings["collapsed"]:
            draws = jax.block_until_ready(complete((jax.random.split(key, draws.shape[:2]), draws)))
        marks.append(now())
        return draws, steps, costs(marks)

    nothing = start * jnp.nan if settings["method"] == "nuts" else start
    *_, first = run(nothing)
    overhead = run(nothing)[2] if settings["method"] == "nuts" else dict.fromkeys(first, 0.0)
    draws, warm_steps, cost = run(start)
    extra = mcmc.get_extra_fields()
    quantities = jax.lax.map(lambda chain: jax.lax.map(density.quantities, chain), draws)
    energy = jax.vmap(density.potential)(jnp.asarray(task["start"], settings["dtype"]))
    report = {
        **{part: cost[part] - overhead[part] for part in cost},
        "compile_cpu_s": sum(first[p] for p in first if p.endswith("cpu_s")),
        "gradients": int(np.sum(extra["num_steps"])),
        "burn_in_gradients": int(warm_steps.sum()),
        "acceptance": float(np.mean(extra["accept_prob"])),
        "energy_at_start": np.asarray(energy, float).tolist(),
        "versions": {"numpyro": numpyro.__version__, "jax": jax.__version__},
    }
    np.savez(answer, quantities=np.asarray(quantities).swapaxes(0, 1), report=json.dumps(report))


class Density:
    """Potential energies of all weights, and of the hidden ones alone."""

    def __init__(self, task: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
        import jax.numpy as jnp

        self.sizes = tuple(int(width) for width in task["sizes"])
        names = ("x", "y", "at")
        self.x, self.y, self.at = (jnp.asarray(task[name], settings["dtype"]) for name in names)
        self.prior, self.noise = settings["prior_variance"], settings["noise_variance"]
        self.hidden = sum((i + 1) * o for i, o in pairwise(self.sizes[:-1]))

    def features(self, theta: Any, points: Any) -> Any:
        """Last hidden layer (n, k - 1)."""
        import jax.numpy as jnp

        h, first = points, 0
        for i, o in pairwise(self.sizes[:-1]):
            weight = theta[first : first + i * o].reshape(i, o)
            h = jnp.tanh(h @ weight + theta[first + i * o : first + (i + 1) * o])
            first += (i + 1) * o
        return h

    def network(self, theta: Any, points: Any) -> Any:
        """Outputs (n, m)."""
        inputs, outputs = self.sizes[-2:]
        last = theta[self.hidden :]
        weight = last[: inputs * outputs].reshape(inputs, outputs)
        return self.features(theta, points) @ weight + last[inputs * outputs :]

    def potential(self, theta: Any) -> Any:
        error = self.y - self.network(theta, self.x)
        return 0.5 * ((error**2).sum() / self.noise + (theta**2).sum() / self.prior)

    def output_layer(self, theta: Any) -> tuple[Any, Any, Any]:
        """Features (n, k), Cholesky factor of the precision (k, k) and mean (k, m)."""
        import jax.numpy as jnp
        from jax.scipy.linalg import cho_solve

        h = self.features(theta, self.x)
        phi = jnp.concatenate([h, jnp.ones_like(h[:, :1])], axis=1)
        precision = phi.T @ phi / self.noise + jnp.eye(phi.shape[1], dtype=h.dtype) / self.prior
        factor = jnp.linalg.cholesky(precision)
        return phi, factor, cho_solve((factor, True), phi.T @ self.y / self.noise)

    def collapsed(self, theta: Any) -> Any:
        import jax.numpy as jnp

        phi, factor, mean = self.output_layer(theta)
        misfit = ((self.y - phi @ mean) ** 2).sum() / self.noise + (mean**2).sum() / self.prior
        logs = 2.0 * self.y.shape[1] * jnp.log(jnp.diagonal(factor)).sum()
        return 0.5 * (misfit + logs + (theta**2).sum() / self.prior)

    def complete(self, key_and_theta: tuple[Any, Any]) -> Any:
        """All weights: the hidden ones, and a draw of the output layer."""
        import jax
        import jax.numpy as jnp
        from jax.scipy.linalg import solve_triangular

        key, theta = key_and_theta
        _, factor, mean = self.output_layer(theta)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        last = mean + solve_triangular(factor.T, noise, lower=False)
        return jnp.concatenate([theta, last.reshape(-1)])

    def quantities(self, theta: Any) -> Any:
        """Values at the query points and the potential energy."""
        import jax.numpy as jnp

        return jnp.append(self.network(theta, self.at)[:, 0], self.potential(theta))


def now() -> tuple[float, float]:
    """Wall and CPU seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime + usage.ru_stime


def costs(marks: list[tuple[float, float]]) -> dict[str, float]:
    """Seconds of burn-in and sampling."""
    return {
        f"{name}_{kind}": after - before
        for name, (begin, end) in zip(("burn_in", "sampling"), pairwise(marks), strict=True)
        for kind, before, after in zip(("wall_s", "cpu_s"), begin, end, strict=True)
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
