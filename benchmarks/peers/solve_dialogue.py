"""A solver as a process that reads and writes one JSON text a line.

``{"problem": name, "setting": {...}, "answer": path}`` makes a run ready, answers with the seconds
of making it ready and of the first call (which compile) and of a second, and stores its fields
``(B, *space)``.
``{"time": repeats}`` gives wall and processor seconds of each of so many more. A problem that a
solver does not have, or a setting with which it fails, is answered by ``{"failed": why}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from equations import PROBLEMS, Problem, equation_of

Run = Callable[[], Any]
Make = Callable[[Problem, dict[str, Any], np.ndarray], tuple[Run, Callable[[Any], np.ndarray]]]
"""From a problem, a setting and the start on its grid: a run, and what turns its result into
fields of the problem; only the run is timed."""


def seconds(run: Run) -> tuple[float, float, Any]:
    """Wall and processor seconds of a call, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def serve(makers: Mapping[str, Make], packages: Sequence[str]) -> None:
    """Answer until the input ends; libraries may print, but not into the answers."""
    warnings.filterwarnings("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"versions": {p: version(p) for p in packages}}), file=answers, flush=True)
    run: Run = lambda: None  # noqa: E731
    for text in sys.stdin:
        request = json.loads(text)
        try:
            if "problem" in request:
                problem, setting = PROBLEMS[request["problem"]], request["setting"]
                start = problem.start(setting["points"])
                begin = time.perf_counter()
                make = makers[equation_of(request["problem"])]
                run, fields = make(problem, setting, start)
                run()
                first = time.perf_counter() - begin
                wall, cpu, found = seconds(run)
                np.save(request["answer"], np.asarray(fields(found), dtype=np.float64))
                reply: dict[str, Any] = {"first_s": first, "wall_s": [wall], "cpu_s": [cpu]}
            else:
                times = [seconds(run)[:2] for _ in range(request["time"])]
                reply = {"wall_s": [t[0] for t in times], "cpu_s": [t[1] for t in times]}
        except Exception as error:
            reply = {"failed": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(reply), file=answers, flush=True)
