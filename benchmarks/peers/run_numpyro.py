"""NumPyro's NUTS or HMC on the posterior of a Bayesian neural network: `run_numpyro.py Q A`.

The question is that of `benchmarks/sampling.py`: data, sizes of the network, variances, starts. The
answer has the functions' values at the query points and what the draws cost.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from itertools import pairwise

import numpy as np


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

    jax.config.update("jax_enable_x64", True)
    sizes = tuple(int(width) for width in task["sizes"])
    x, y, at = (jnp.asarray(task[name]) for name in ("x", "y", "at"))

    def network(theta: jax.Array, points: jax.Array) -> jax.Array:
        h, first = points, 0
        for layer, (i, o) in enumerate(pairwise(sizes)):
            weight = theta[first : first + i * o].reshape(i, o)
            h = h @ weight + theta[first + i * o : first + (i + 1) * o]
            h = jnp.tanh(h) if layer < len(sizes) - 2 else h
            first += (i + 1) * o
        return h

    def potential(theta: jax.Array) -> jax.Array:
        error = y - network(theta, x)
        prior, noise = settings["prior_variance"], settings["noise_variance"]
        return 0.5 * (jnp.sum(error**2) / noise + jnp.sum(theta**2) / prior)

    common = {
        "potential_fn": potential,
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
    start = jnp.asarray(task["start"])
    key = jax.random.PRNGKey(settings["seed"])
    begin, cpu = time.perf_counter(), cpu_seconds()
    mcmc.warmup(key, init_params=start, extra_fields=("num_steps",), collect_warmup=True)
    warm_steps = np.asarray(mcmc.get_extra_fields()["num_steps"])
    middle, middle_cpu = time.perf_counter(), cpu_seconds()
    mcmc.run(mcmc.post_warmup_state.rng_key, extra_fields=("num_steps", "accept_prob"))
    draws = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    end, end_cpu = time.perf_counter(), cpu_seconds()
    extra = mcmc.get_extra_fields()
    values = jax.lax.map(
        lambda chain: jax.lax.map(lambda theta: network(theta, at)[:, 0], chain), draws
    )
    energy = jax.lax.map(lambda chain: jax.lax.map(potential, chain), draws)
    report = {
        "burn_in_wall_s": middle - begin,
        "burn_in_cpu_s": middle_cpu - cpu,
        "sampling_wall_s": end - middle,
        "sampling_cpu_s": end_cpu - middle_cpu,
        "gradients": int(np.sum(extra["num_steps"])),
        "burn_in_gradients": int(warm_steps.sum()),
        "acceptance": float(np.mean(extra["accept_prob"])),
        "versions": {"numpyro": numpyro.__version__, "jax": jax.__version__},
    }
    quantities = np.concatenate([np.asarray(values), np.asarray(energy)[..., None]], axis=2)
    np.savez(answer, quantities=quantities.swapaxes(0, 1), report=json.dumps(report))


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
