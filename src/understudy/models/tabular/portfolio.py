"""The members that `understudy.fit` considers: adding one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from understudy.core.surrogate import Surrogate
from understudy.models.incontext.estimators import PFNSurrogate
from understudy.models.tabular.boosting import BoostingSurrogate
from understudy.models.tabular.deep_ensemble import DeepEnsemble
from understudy.models.tabular.deep_kernel import DeepKernelSurrogate
from understudy.models.tabular.exact_gp import ExactGP
from understudy.models.tabular.infinite_width import InfiniteWidthSurrogate
from understudy.models.tabular.laplace import LaplaceSurrogate
from understudy.models.tabular.polynomial import PolynomialSurrogate
from understudy.models.tabular.scale_mixture import StudentTProcess
from understudy.models.tabular.sparse_gp import SparseGP


@dataclass(frozen=True)
class Task:
    """The size of a table: rows, features (after one-hot coding) and outputs."""

    rows: int
    features: int
    outputs: int


@dataclass(frozen=True)
class Candidate:
    """A member of the portfolio.

    Parameters
    ----------
    name : str
        As the leaderboard and ``--members`` show it.
    model : type of Surrogate
        Made with ``seed`` and ``max_seconds`` where its constructor takes them.
    suits : callable
        Whether it can serve a table of this size at all.
    after : str, optional
        Run only if that candidate holds weight in the stack so far: effort goes where it pays.
    costly : bool
        Tried on one fold first, and stopped if others dominate it there.
    params : tuple of (str, value)
        Further constructor parameters.
    """

    name: str
    model: type[Surrogate]
    suits: Callable[[Task], bool] = lambda task: True
    after: str | None = None
    costly: bool = False
    params: tuple[tuple[str, object], ...] = ()

    def make(self, seed: int, max_seconds: float) -> Surrogate:
        """Return an unfitted surrogate with this seed and time limit."""
        surrogate = self.model(**dict(self.params))
        known = surrogate.get_params(deep=False)
        wanted = {"seed": seed, "max_seconds": max_seconds}
        return surrogate.set_params(**{k: v for k, v in wanted.items() if k in known})


PORTFOLIO: tuple[Candidate, ...] = (
    Candidate(
        "pfn",
        PFNSurrogate,
        lambda task: task.rows <= 60 and task.features <= 10,  # beyond, processes are sharper
        params=(("orders", 1),),
    ),
    Candidate("polynomial", PolynomialSurrogate),
    Candidate("exact-gp", ExactGP, lambda task: task.rows <= 5_000),
    Candidate(
        "smooth-gp",
        ExactGP,
        lambda task: task.rows <= 2_000,
        after="exact-gp",
        params=(("kernel", "rbf"),),
    ),
    Candidate("sparse-gp", SparseGP, lambda task: task.rows > 5_000),
    Candidate("infinite-width", InfiniteWidthSurrogate, lambda task: task.rows <= 2_000),
    Candidate("student-t", StudentTProcess, lambda task: task.rows <= 100),
    Candidate("deep-ensemble", DeepEnsemble),
    Candidate("boosting", BoostingSurrogate, lambda task: task.rows >= 40, costly=True),
    Candidate("laplace", LaplaceSurrogate, costly=True),
    Candidate("deep-kernel", DeepKernelSurrogate, lambda task: task.rows >= 100, costly=True),
)

MODELS: dict[str, type[Surrogate]] = {c.model.__name__: c.model for c in PORTFOLIO}
"""Classes that an artifact may name."""
