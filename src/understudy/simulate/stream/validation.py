"""Fixed runs that a study is judged by."""

from __future__ import annotations

import torch

from understudy.core.errors import UserError
from understudy.simulate.stream.samplers import ParameterSampler
from understudy.simulate.stream.samples import Assembler, Batch, Sample, Windows
from understudy.simulate.stream.solver import StreamingSolver


def validation_batch(
    simulator: StreamingSolver,
    sampler: ParameterSampler,
    runs: int,
    windows: Windows | None = None,
    runs_per_job: int = 50,
) -> Batch:
    """Samples of fixed runs, computed here and now.

    Parameters
    ----------
    simulator : StreamingSolver
    sampler : ParameterSampler
        Of another seed than that of the study.
    runs : int
    windows : Windows, optional
    runs_per_job : int
        Runs computed side by side; 1 for external solvers.

    Raises
    ------
    UserError
        A run diverged.
    """
    windows = windows or Windows()
    samples: list[Sample] = []
    for first in range(0, runs, runs_per_job):
        codes = sampler.draw(min(runs_per_job, runs - first))
        makers = [Assembler(first + i, x, windows) for i, x in enumerate(codes)]
        with torch.no_grad():
            for step, (times, fields) in enumerate(simulator.stream(codes)):
                if not bool(fields.isfinite().all()):
                    raise UserError("a validation run diverged; change the seed or the space")
                rows = zip(makers, times.tolist(), fields.float().clone(), strict=True)
                made = [maker.add(step, t, field) for maker, t, field in rows]
                samples += [sample for sample in made if sample is not None]
    return Batch.of(samples, windows)
