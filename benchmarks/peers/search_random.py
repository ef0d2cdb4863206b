"""Random search."""

from __future__ import annotations

import math
import random
from typing import Any

from dialogue import Config, Values, serve


class Random:
    def __init__(self, problem: dict[str, Any]) -> None:
        self.inputs = problem["inputs"]
        self.draw = random.Random(problem["seed"])

    def tell(self, config: Config, values: Values) -> None:
        pass

    def ask(self, n: int) -> list[Config]:
        return [{i["name"]: self._one(i) for i in self.inputs} for _ in range(n)]

    def _one(self, item: dict[str, Any]) -> Any:
        if "choices" in item:
            return self.draw.choice(item["choices"])
        low, high = item["lower"], item["upper"]
        if item["type"] == "integer":
            return self.draw.randint(low, high)
        if item["log"]:
            return math.exp(self.draw.uniform(math.log(low), math.log(high)))
        return self.draw.uniform(low, high)


if __name__ == "__main__":
    serve(Random, ())
