"""Optuna's TPE or Gaussian process sampler, as the argument says."""

from __future__ import annotations

import sys
from typing import Any

import optuna
from dialogue import Config, Values, serve
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

optuna.logging.set_verbosity(optuna.logging.ERROR)


def distribution(item: dict[str, Any]) -> Any:
    if "choices" in item:
        return CategoricalDistribution(item["choices"])
    if item["type"] == "integer":
        return IntDistribution(item["lower"], item["upper"])
    return FloatDistribution(item["lower"], item["upper"], log=item["log"])


class Optuna:
    def __init__(self, problem: dict[str, Any]) -> None:
        seed = problem["seed"]
        sampler = (
            optuna.samplers.GPSampler(seed=seed, deterministic_objective=False)
            if sys.argv[1] == "gp"
            else optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        )
        self.objectives = problem["objectives"]
        self.space = {item["name"]: distribution(item) for item in problem["inputs"]}
        self.study = optuna.create_study(
            directions=[objective["direction"] for objective in self.objectives], sampler=sampler
        )
        self.asked: list[tuple[Config, optuna.Trial]] = []

    def tell(self, config: Config, values: Values) -> None:
        numbers = [values[objective["name"]] for objective in self.objectives]
        for at, (known, trial) in enumerate(self.asked):
            if known == config:
                self.study.tell(trial, numbers)
                del self.asked[at]
                return
        self.study.add_trial(
            optuna.trial.create_trial(params=config, distributions=self.space, values=numbers)
        )

    def ask(self, n: int) -> list[Config]:
        self.asked = [(trial.params, trial) for trial in (self._next() for _ in range(n))]
        return [config for config, _ in self.asked]

    def _next(self) -> optuna.Trial:
        return self.study.ask(self.space)


if __name__ == "__main__":
    serve(Optuna, ("optuna",))
