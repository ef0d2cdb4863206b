"""A searcher of a peer as a process that reads and writes one JSON text a line.

The first line is the problem, with a list of ``inputs`` (name, type, bounds or choices, log), of
``objectives`` (name, direction), a ``reference_point`` or null, and a ``seed``. Then
``{"tell": [[config, values], ...]}`` is answered by ``{}``, and ``{"ask": n}`` by n ``configs`` and
what they took in ``wall_s`` and ``cpu_s``, in which what had to be done when told is counted.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Protocol

from answer import cpu_seconds

Config = dict[str, Any]
Values = dict[str, float]


class Search(Protocol):
    def tell(self, config: Config, values: Values) -> None: ...

    def ask(self, n: int) -> list[Config]: ...


def plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def serve(make: Callable[[dict[str, Any]], Search], packages: Sequence[str]) -> None:
    """Answer until the input ends; libraries may print, but not into the answers."""
    warnings.filterwarnings("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    search = make(json.loads(sys.stdin.readline()))
    print(json.dumps({"versions": {p: version(p) for p in packages}}), file=answers, flush=True)
    wall = cpu = 0.0
    for line in sys.stdin:
        request = json.loads(line)
        begin, begin_cpu = time.perf_counter(), cpu_seconds()
        configs = []
        for config, values in request.get("tell", []):
            search.tell(config, values)
        if "ask" in request:
            configs = [{k: plain(v) for k, v in c.items()} for c in search.ask(request["ask"])]
        wall, cpu = wall + time.perf_counter() - begin, cpu + cpu_seconds() - begin_cpu
        reply = {"configs": configs, "wall_s": wall, "cpu_s": cpu} if "ask" in request else {}
        if "ask" in request:
            wall = cpu = 0.0
        print(json.dumps(reply), file=answers, flush=True)
