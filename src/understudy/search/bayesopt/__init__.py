"""Bayesian optimisation: surrogates, acquisition functions and how these are maximised."""

from understudy.search.bayesopt.maximise import MultiStart, RelaxAndRound
from understudy.search.bayesopt.portfolio import Portfolio
from understudy.search.bayesopt.searcher import BayesianSearcher

__all__ = ["BayesianSearcher", "MultiStart", "Portfolio", "RelaxAndRound"]
