r"""Claims of DGNO and MultiONet (Zang & Koutsourelakis 2025, arXiv 2502.06250), measured.

Coefficients are of two phases, 5 and 10, on 29 x 29 cells of the unit square, from a law of our own
(:mod:`understudy.simulate.pde.darcy`), and smooth ones from another; solutions, of finite volumes
three times as fine, are given to the supervised networks alone, and to tests. First fields of
Burgers' equation are of a law of our own as well
(:mod:`understudy.simulate.pde.walled_burgers`). Everything that is trained by residuals has SOAP in
the place of the paper's Adam, which reaches in a quarter of the steps what Adam does; its rate was
searched for none of the operators.

There are two rivals. The PI-DeepONet of the paper's comparison has a branch of convolutions, a
trunk with rectifiers and finite differences of its own cells in the place of weak residuals, and no
flux. Another is given DGNO's decoders, its weak residuals and its flux. Both take as many more
steps as fit into about its time; processor times are told.

Readings of the inverse problem are taken at centres of cells. The noise that the posterior is
told of includes the operator's error at the sensors, measured on fields of their own. What it is
compared to is a search over all cells by gradients of the exact solver with a penalty on total
variation, whose weight was chosen for each number of sensors, among 0.03, 0.1, 0.3, 1 and 3, on
other fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from understudy.core.executor import executor
from understudy.core.linalg import one_thread
from understudy.models.operators.dgno import DeepGenerativeNeuralOperator
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.generative.inversion import inversions
from understudy.reproduce.generative.label_free import (
    SMALL_RADIUS,
    ResidualPlan,
    label_free,
)
from understudy.reproduce.generative.pairs import (
    BurgersPairs,
    Pairs,
    burgers,
    burgers_plans,
    supervised,
)
from understudy.reproduce.generative.setting import TEST_SEED, Size, darcy_fields

_SIZES = {
    Scale.SMOKE: Size(
        *(15, (8, 8), 6, 12, 4, 12, 0.03, 5, 12, 4, 1, (8, 8), 6, 2),
        *(((20, 25.0, 0.3), (8, 20.0, 0.1)), 6, 1, 12, 4, (8, 8)),
    ),
    Scale.CPU: Size(
        *(29, (48,) * 4, 32, 300, 1400, 100, 0.03, 5, 500, 800, 3, (64,) * 4, 100, 24),
        *(((100, 25.0, 0.3), (25, 20.0, 0.1)), 120, 2, 500, 1500, (128,) * 3),
        workers=2,
    ),
    Scale.PAPER: Size(
        *(29, (80,) * 6, 128, 1000, 50_000, 300, 0.03, 9, 1000, 50_000, 3, (80,) * 6, 200, 20),
        *(((100, 25.0, 0.3), (25, 20.0, 0.1)), 1000, 4, 1000, 40_000, (128,) * 3),
        batch_size=50,
        learning_rate=3e-3,
        device="cuda",
    ),
}


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has decoders of 4 layers of 48, 300 fields and 1400 steps, ``paper`` the sizes of
        the paper and a quarter of its steps, on a GPU.
    seed : int
        Of the fields and the weights; that of the first repetition of the supervised networks.
    """
    size = _SIZES[scale]
    with one_thread():
        test = darcy_fields(size, TEST_SEED, size.test)
        smooth = darcy_fields(size, TEST_SEED, size.test, "cosines")
        seeds = range(seed, seed + size.pair_seeds)
        pairs = [Pairs(size, s, test, last_only) for s in seeds for last_only in (False, True)]
        own = ResidualPlan(size, seed, test)
        plans = {
            "more": replace(own, fields=2 * size.fields),
            "own": own,
            "tiny": replace(own, radius=SMALL_RADIUS),
            "weak": replace(own, kind="weak"),
            "differences": replace(own, kind="differences"),
            "smooth": replace(own, kind="smooth", test=smooth),
        }
        waves = burgers_plans(size, seeds)
        results = _made(size, [*plans.values(), *pairs, *waves])
        trained = dict(zip(plans, results, strict=False))
        errors = results[len(plans) :]
        operator = trained["more"].operator
        assert isinstance(operator, DeepGenerativeNeuralOperator)
        return [
            supervised(size, pairs, errors[: len(pairs)]),
            *burgers(size, waves, errors[len(pairs) :]),
            *label_free(size, seed, test, smooth, trained),
            *inversions(size, seed, operator, test),
        ]


def _made(size: Size, tasks: Sequence[Any]) -> list[Any]:
    """Result of each task."""
    if size.workers == 1:
        return [_do(task) for task in tasks]
    with executor("local", size.workers) as pool:
        return list(pool.map(_do, tasks))


def _do(task: ResidualPlan | Pairs | BurgersPairs) -> Any:
    with one_thread():
        return task.result()
