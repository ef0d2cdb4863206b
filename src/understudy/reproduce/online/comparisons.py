"""Online training beside itself: with other buffers, and with other samplers of parameters."""

from __future__ import annotations

from dataclasses import replace

from understudy.reproduce.online.networks import heat_problem, lorenz_problem
from understudy.reproduce.online.setting import Size
from understudy.reproduce.online.training import USUAL, VALIDATION_SEED, errors_by_run, train_online
from understudy.simulate.stream import (
    BreedSampler,
    FIFOBuffer,
    FIROBuffer,
    ReservoirBuffer,
    Sample,
    UniformSampler,
)


def errors_by_buffer(size: Size, seeds: range) -> dict[str, list[float]]:
    """Best validation of each seed with each buffer, two runs of heat at a time."""
    problem, spent = heat_problem(size), size.ranking
    fixed = problem.fixed(size.validation, VALIDATION_SEED)
    capacity = spent.offline * problem.samples
    errors: dict[str, list[float]] = {"FIFO": [], "FIRO": [], "Reservoir": []}
    for own in seeds:
        for name, buffer in (
            ("FIFO", FIFOBuffer[Sample](capacity)),
            ("FIRO", FIROBuffer[Sample](capacity, capacity // 2, seed=own)),
            ("Reservoir", ReservoirBuffer[Sample](capacity, capacity // 2, own)),
        ):
            report = train_online(problem, spent, USUAL, own, fixed, buffer, runs_per_job=2)
            errors[name].append(report.best)
    return errors


def errors_by_sampler(
    size: Size, seeds: range
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Errors of each seed with uniform sampling and with Breed, on the Lorenz system.

    Returns
    -------
    worst, means : dict of str to list of float
        Mean over the worst tenth of the validation runs, and over all.
    """
    problem = lorenz_problem()
    solver, spent = problem.solver, replace(size.breed, offline=max(size.breed.online // 10, 4))
    fixed = problem.fixed(20 * size.validation, VALIDATION_SEED)
    worst: dict[str, list[float]] = {"uniform": [], "Breed": []}
    means: dict[str, list[float]] = {"uniform": [], "Breed": []}
    for own in seeds:
        for name, sampler in (
            ("uniform", UniformSampler(solver.space, own)),
            (
                "Breed",
                BreedSampler(
                    solver.space,
                    own,
                    period=max(spent.updates // 20, 1),
                    window=spent.online // 4,
                    deviation=0.1,
                ),
            ),
        ):
            network = problem.made(own)
            train_online(problem, spent, USUAL, own, fixed, None, 4, sampler, network)
            errors = errors_by_run(problem.loss, network, fixed)
            worst[name].append(float(errors.topk(len(errors) // 10).values.mean()))
            means[name].append(float(errors.mean()))
    return worst, means
