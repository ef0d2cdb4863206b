r"""Claims of PDE-Refiner (Lippe et al. 2023, arXiv 2308.05732), on Kuramoto-Sivashinsky waves.

A one-step model and PDE-Refiner share network, data, optimiser and the number of steps.
At ``paper`` scale fields have 256 points, lengths and time steps vary as in the paper, and the
network is its U-Net; at ``cpu`` scale the length is 32, with 64 points, and the network a small
dilated one, trained by SOAP, and on antithetic noise where it refines. Both step by four outputs of
the solver, about 0.8. The smallest noise variance is a quarter of the one-step model's squared
error in units of the increments, and at least the paper's 4e-7: what is trained for a shorter time
errs more, and its chain has to start from there.

At ``paper`` scale ``UNDERSTUDY_SECONDS`` bounds the wall time: both models are then trained for as
many steps as fit, with a U-Net of 4.6 instead of 54 million parameters. The time that is left goes
to the ablations.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from understudy.models.operators.pde_refiner import full_precision
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.refined_steps.ablations import ablation, efficiency
from understudy.reproduce.refined_steps.rollouts import horizon, spectral, uncertainty
from understudy.reproduce.refined_steps.sizes import Budget, budget
from understudy.reproduce.refined_steps.study import Pair, Study, made


def run(scale: Scale, seed: int = 0) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``smoke`` shows that the path runs; ``paper`` is meant for a GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    return list(measure(budget(scale), seed))


def measure(spent: Budget, seed: int = 0) -> Iterator[Claim]:
    """Claims one after the other, the headline first; ablations for which no time is left are not.

    Parameters
    ----------
    spent : budget
        See :func:`~understudy.reproduce.refined_steps.sizes.budget`.
    seed : int
    """
    with full_precision():
        study = Study.start(spent, seed)
        trainings = [partial(Pair.train, study, s) for s in study.seeds]
        results = made(
            [*trainings, partial(ablation, study), partial(efficiency, study)], spent.workers
        )
        pairs: list[Pair] = [next(results) for _ in trainings]
        study.milliseconds |= pairs[0].milliseconds
        yield spectral(study, pairs)
        yield horizon(study, pairs)
        yield from uncertainty(study, pairs[0])
        yield from next(results)
        yield from next(results)
