"""Ax's client with its defaults; the shared first runs are attached as trials of ours."""

from __future__ import annotations

import logging
from typing import Any

from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
from dialogue import Config, Values, plain, serve


def parameter(item: dict[str, Any]) -> RangeParameterConfig | ChoiceParameterConfig:
    name = item["name"]
    if "choices" in item:
        kinds = {bool: "bool", int: "int", float: "float", str: "str"}
        kind = kinds[type(item["choices"][0])]
        return ChoiceParameterConfig(name=name, values=item["choices"], parameter_type=kind)
    whole = item["type"] == "integer"
    return RangeParameterConfig(
        name=name,
        bounds=(item["lower"], item["upper"]),
        parameter_type="int" if whole else "float",
        scaling="log" if item.get("log") else "linear",
    )


class Ax:
    def __init__(self, problem: dict[str, Any]) -> None:
        logging.disable(logging.WARNING)
        self.client = Client(random_seed=problem["seed"])
        self.client.configure_experiment([parameter(item) for item in problem["inputs"]])
        terms = [
            f"{'-' if o['direction'] == 'minimize' else ''}{o['name']}"
            for o in problem["objectives"]
        ]
        self.client.configure_optimization(objective=", ".join(terms))
        self.asked: list[tuple[Config, int]] = []

    def tell(self, config: Config, values: Values) -> None:
        known = [index for asked, index in self.asked if asked == config]
        index = known[0] if known else self.client.attach_trial(config)
        self.asked = [(asked, i) for asked, i in self.asked if i != index]
        self.client.complete_trial(trial_index=index, raw_data=values)

    def ask(self, n: int) -> list[Config]:
        trials = self.client.get_next_trials(max_trials=n)
        self.asked = [({k: plain(v) for k, v in config.items()}, i) for i, config in trials.items()]
        return [config for config, _ in self.asked]


if __name__ == "__main__":
    serve(Ax, ("ax-platform", "botorch", "torch"))
