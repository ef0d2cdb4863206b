"""What should be run next.

- :class:`BayesianSearcher`: Bayesian optimisation with any surrogate.
- :class:`RandomSearcher`, :class:`SobolSearcher`: searches that do not learn.
- :class:`UnderstudySampler`: Bayesian optimisation as a sampler of Optuna's studies.

All searchers speak `understudy.core.search`: ask for configurations, tell what became of them.
"""

from understudy.search.bayesopt import BayesianSearcher, MultiStart, Portfolio, RelaxAndRound
from understudy.search.designs import RandomSearcher, SobolSearcher
from understudy.search.optuna_sampler import UnderstudySampler

__all__ = [
    "BayesianSearcher",
    "MultiStart",
    "Portfolio",
    "RandomSearcher",
    "RelaxAndRound",
    "SobolSearcher",
    "UnderstudySampler",
]
