"""What every peer script does around its model: read the task, time the fit, write the answer.

A task is an ``.npz`` with ``X_train (n, d)``, ``Y_train (n, m)``, ``X_test (t, d)``,
``Y_test (t, m)`` and a ``seed``. An answer is an ``.npz`` with ``mean (t, m)`` and, where the peer
gives one, ``sd (t, m)``, beside a JSON text of what the fit cost. A model whose predictive is not
Gaussian may give a function ``score`` of ``Y_test`` that returns ``log_density`` and ``crps``, each
(t, m); ``Y_test`` is read only after the fit and the predictions.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

Answer = Mapping[str, Any]
Fit = Callable[[np.ndarray, np.ndarray, int], Callable[[np.ndarray], Answer]]


def cpu_seconds() -> float:
    """User and system seconds of this process and of its finished children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mib() -> float:
    """Peak resident memory of this process, or of its largest finished child, in MiB."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(usage.ru_maxrss for usage in usages) / 1024.0


def main(fit: Fit, packages: Sequence[str], warm_up: int = 0) -> None:
    """Answer the task named by the first argument into the file named by the second.

    A fit to the first ``warm_up`` rows goes before and is not counted: it loads libraries that are
    imported where they are used, which fits of a tenth of a second would be measured by.
    """
    task_path, answer_path = sys.argv[1:3]
    with np.load(task_path) as task:
        X, Y, X_test, seed = task["X_train"], task["Y_train"], task["X_test"], int(task["seed"])
    if warm_up:
        fit(X[:warm_up], Y[:warm_up], seed)
    wall, cpu = time.perf_counter(), cpu_seconds()
    predict = fit(X, Y, seed)
    cost = {"fit_wall_s": time.perf_counter() - wall, "fit_cpu_s": cpu_seconds() - cpu}
    wall = time.perf_counter()
    answer = dict(predict(X_test))
    cost |= {"predict_wall_s": time.perf_counter() - wall, "peak_mib": peak_mib()}
    report = {
        "cost": cost,
        "details": answer.pop("details", {}),
        "versions": {package: version(package) for package in packages},
    }
    score = answer.pop("score", None)
    if score is not None:
        with np.load(task_path) as task:
            answer |= score(task["Y_test"])
    arrays = {name: np.asarray(value) for name, value in answer.items() if value is not None}
    temporary = f"{answer_path}.part.npz"
    np.savez(temporary, **arrays, report=json.dumps(report, default=str))
    os.replace(temporary, answer_path)
