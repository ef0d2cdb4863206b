"""Our own search, with its defaults or the surrogate that the argument names."""

from __future__ import annotations

import sys
from typing import Any

from dialogue import Config, Values, serve

from understudy.core.search import Objective, Problem
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.search.bayesopt import BayesianSearcher


def space(inputs: list[dict[str, Any]]) -> Space:
    parts = []
    for item in inputs:
        if "choices" in item:
            parts.append(Categorical(item["name"], tuple(item["choices"])))
        elif item["type"] == "integer":
            parts.append(Integer(item["name"], item["lower"], item["upper"]))
        else:
            parts.append(Continuous(item["name"], item["lower"], item["upper"], log=item["log"]))
    return Space(tuple(parts))


class Understudy:
    def __init__(self, problem: dict[str, Any]) -> None:
        objectives = tuple(Objective(**objective) for objective in problem["objectives"])
        self.searcher = BayesianSearcher(
            Problem(space(problem["inputs"]), objectives),
            seed=problem["seed"],
            surrogate=sys.argv[1] if len(sys.argv) > 1 else "portfolio",
            reference=problem["reference_point"],
        )

    def tell(self, config: Config, values: Values) -> None:
        self.searcher.tell([config], [values])

    def ask(self, n: int) -> list[Config]:
        return self.searcher.ask(n)


if __name__ == "__main__":
    serve(Understudy, ("understudy", "torch", "botorch"))
