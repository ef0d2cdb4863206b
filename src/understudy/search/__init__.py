"""What should be run next. Names are imported when first used.

- :class:`BayesianSearcher`: Bayesian optimisation with any surrogate.
- :class:`RandomSearcher`, :class:`SobolSearcher`: searches that do not learn.
- :class:`UnderstudySampler`: Bayesian optimisation as a sampler of Optuna's studies.
- :class:`PredictiveStopper`: stops training runs by the forecast of their learning curves.
- :class:`LearningCurvePruner`, :func:`lightning_callback`: the same for Optuna and Lightning.

All searchers speak `understudy.core.search`: ask for configurations, tell what became of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "BayesianSearcher": "understudy.search.bayesopt.searcher",
    "LearningCurvePruner": "understudy.search.early_stopping",
    "MultiStart": "understudy.search.bayesopt.maximise",
    "Patience": "understudy.search.early_stopping",
    "Portfolio": "understudy.search.bayesopt.portfolio",
    "PredictiveStopper": "understudy.search.early_stopping",
    "RandomSearcher": "understudy.search.designs",
    "RelaxAndRound": "understudy.search.bayesopt.maximise",
    "SobolSearcher": "understudy.search.designs",
    "UnderstudySampler": "understudy.search.optuna_sampler",
    "lightning_callback": "understudy.search.early_stopping",
}

__all__ = [
    "BayesianSearcher",
    "LearningCurvePruner",
    "MultiStart",
    "Patience",
    "Portfolio",
    "PredictiveStopper",
    "RandomSearcher",
    "RelaxAndRound",
    "SobolSearcher",
    "UnderstudySampler",
    "lightning_callback",
]

if TYPE_CHECKING:
    from understudy.search.bayesopt.maximise import MultiStart as MultiStart
    from understudy.search.bayesopt.maximise import RelaxAndRound as RelaxAndRound
    from understudy.search.bayesopt.portfolio import Portfolio as Portfolio
    from understudy.search.bayesopt.searcher import BayesianSearcher as BayesianSearcher
    from understudy.search.designs import RandomSearcher as RandomSearcher
    from understudy.search.designs import SobolSearcher as SobolSearcher
    from understudy.search.early_stopping import LearningCurvePruner as LearningCurvePruner
    from understudy.search.early_stopping import Patience as Patience
    from understudy.search.early_stopping import PredictiveStopper as PredictiveStopper
    from understudy.search.early_stopping import lightning_callback as lightning_callback
    from understudy.search.optuna_sampler import UnderstudySampler as UnderstudySampler


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'understudy.search' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value
