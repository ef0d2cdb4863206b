"""What should be run next.

- :class:`BayesianSearcher`: Bayesian optimisation with any surrogate.
- :class:`RandomSearcher`, :class:`SobolSearcher`: searches that do not learn.

All searchers speak `understudy.core.search`: ask for configurations, tell what became of them.
"""

from understudy.search.bayesopt import BayesianSearcher, MultiStart, Portfolio, RelaxAndRound
from understudy.search.designs import RandomSearcher, SobolSearcher

__all__ = [
    "BayesianSearcher",
    "MultiStart",
    "Portfolio",
    "RandomSearcher",
    "RelaxAndRound",
    "SobolSearcher",
]
