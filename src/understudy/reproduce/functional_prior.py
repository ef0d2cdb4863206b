r"""Claims of Tran, Rossi, Milios & Filippone (2022, arXiv 2011.12829), measured.

One dimension: 64 points on [-10, 10], of which none is in the middle 40 %, of a Gaussian process of
deviation 1.6 and lengthscale 1.8 with noise variance 0.1; x and y are standardised, and priors are
matched to a process of lengthscale 0.6 and variance 1 on [-6, 6]. Tables: random splits of nine
rows for training and one for testing, noise variance 0.1 of the standardised output, priors matched
to the hierarchical process. Classes: two noisy arcs that lie within each other, of ours, as the
paper's set is not distributed with a licence.

At ``cpu`` scale critics take 50 or 60 steps at rate 0.02, which the paper has for tables: at its
rate for one dimension, 0.08, Adagrad's first steps overshoot and a critic needs a thousand. At
``paper`` scale Adagrad remembers gradients from critic to critic, as in the official code.

GPi-G and GPi-H are the matched Gaussian and hierarchical priors, FG is N(0, 1) on weights in units
of their fan-in.
"""

from __future__ import annotations

from understudy.core.linalg import one_thread
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.functional.classes import classification
from understudy.reproduce.functional.line import one_dimension
from understudy.reproduce.functional.setting import SIZES
from understudy.reproduce.functional.tables import tables


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has fewer and smaller steps of critics and priors than the paper; ``paper`` has the
        settings of its tables.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = SIZES[scale]
    with one_thread():
        return [
            *one_dimension(size, range(seed, seed + size.line_seeds)),
            *tables(size, range(seed, seed + size.splits)),
            *classification(size, seed),
        ]
