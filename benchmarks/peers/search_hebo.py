"""HEBO with its defaults; one objective."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from dialogue import Config, Values, serve
from hebo.design_space.design_space import DesignSpace
from hebo.optimizers.hebo import HEBO


def parameter(item: dict[str, Any]) -> dict[str, Any]:
    name = item["name"]
    if "choices" in item:
        return {"name": name, "type": "cat", "categories": item["choices"]}
    kind = "int" if item["type"] == "integer" else "pow" if item["log"] else "num"
    base = {"base": 10} if kind == "pow" else {}
    return {"name": name, "type": kind, "lb": item["lower"], "ub": item["upper"], **base}


class Hebo:
    def __init__(self, problem: dict[str, Any]) -> None:
        [self.objective] = problem["objectives"]
        np.random.seed(problem["seed"])
        space = DesignSpace().parse([parameter(item) for item in problem["inputs"]])
        self.optimizer = HEBO(space, scramble_seed=problem["seed"], rand_sample=10)

    def tell(self, config: Config, values: Values) -> None:
        sign = 1.0 if self.objective["direction"] == "minimize" else -1.0
        loss = np.array([[sign * values[self.objective["name"]]]])
        self.optimizer.observe(pd.DataFrame([config]), loss)

    def ask(self, n: int) -> list[Config]:
        return self.optimizer.suggest(n_suggestions=n).to_dict("records")


if __name__ == "__main__":
    serve(Hebo, ("HEBO", "torch"))
