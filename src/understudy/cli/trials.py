"""What is said of a study, as JSON and in words."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.console import cell, print_table, say

if TYPE_CHECKING:
    from understudy.search.study import Study, Trial

_SHOWN = 10
_REASONS = 3


def as_json(study: Study) -> dict[str, Any]:
    """Everything that a program may want to know of a study."""
    trials = study.trials()
    count = Counter(trial.state for trial in trials)
    one = len(study.problem.objectives) == 1
    best = study.best() if one else None
    return {
        "study": study.name,
        "storage": str(study.storage),
        "trials": len(trials),
        **{state: count[state] for state in ("done", "failed", "running", "waiting")},
        "best": _record(best) if best else None,
        "front": [_record(trial) for trial in study.front()] if not one else [],
        "failures": [{"trial": t.number, "reason": t.reason} for t in trials if t.reason],
    }


def _record(trial: Trial) -> dict[str, Any]:
    return {"trial": trial.number, "inputs": trial.config, "outcomes": dict(trial.outcomes or {})}


def standing(study: Study) -> str:
    """Say how good the best trial is, or how many are on the Pareto front."""
    if len(study.problem.objectives) > 1:
        front = len(study.front())
        return f"{front} on the Pareto front" if front else _none_yet(study)
    best = study.best()
    if best is None or best.outcomes is None:
        return _none_yet(study)
    objective = study.problem.objectives[0]
    return f"best {objective.name} {cell(best.outcomes[objective.name])}, trial {best.number}"


def _none_yet(study: Study) -> str:
    done = sum(trial.state == "done" for trial in study.trials())
    return f"none of {done} satisfies the constraints" if done else "no result yet"


def best_rows(study: Study, most: int = _SHOWN) -> list[dict[str, Any]]:
    """Rows of the best trial, or of the Pareto front, evenly thinned out."""
    if len(study.problem.objectives) == 1:
        best = study.best()
        chosen = [best] if best is not None else []
    else:
        front = study.front()
        step = (len(front) - 1) / max(most - 1, 1)
        chosen = front if len(front) <= most else [front[round(i * step)] for i in range(most)]
    return [{"trial": t.number, **dict(t.outcomes or {}), **t.config} for t in chosen]


def print_study(
    study: Study,
    problem: Path,
    storage: str,
    name: str | None,
    report: Path | None,
    interrupted: bool,
) -> None:
    """Print what became of the trials, the best, and what to do next."""
    trials = study.trials()
    count = Counter(trial.state for trial in trials)
    parts = [f"{count[state]} {state}" for state in ("done", "failed", "running", "waiting")]
    shown = [part for part in parts if not part.startswith("0 ")]
    if interrupted:
        say("Stopped early: what is done was kept.")
    say(f"Study {study.name}: {len(trials)} trials: {', '.join(shown) or 'none'}.")
    _print_reasons([trial.reason for trial in trials if trial.reason])
    rows = best_rows(study)
    several = len(study.problem.objectives) > 1
    if rows and several:
        front = len(study.front())
        more = f", {len(rows)} of {front}" if len(rows) < front else ""
        print_table(rows, {key: key for key in rows[0]}, f"Pareto front{more}:")
    elif rows:
        print_table(rows, {key: key for key in rows[0]}, "Best trial:")
    elif trials:
        say(standing(study).capitalize() + ".")
    if report is not None:
        from understudy.cli.summary import print_file

        print_file(report)
        say()
    _print_next(study, problem, storage, name, report, len(trials))


def _print_reasons(reasons: list[str]) -> None:
    for reason, times in Counter(reasons).most_common(_REASONS):
        say(f"  failed{f' {times} times' if times > 1 else ''}: {reason}")


def _print_next(
    study: Study, problem: Path, storage: str, name: str | None, report: Path | None, trials: int
) -> None:
    from understudy.cli.optimize import STORAGE

    where = "" if storage == STORAGE else f" --storage {shlex.quote(str(study.storage))}"
    named = "" if name is None else f" --name {shlex.quote(name)}"
    again = f"understudy optimize {shlex.quote(str(problem))} --resume{where}{named}"
    say("Next:")
    say(f"  {again} --trials {max(60, 2 * trials)}")
    if report is None:
        say(f"  {again} --trials 0 --report {shlex.quote(study.name + '.html')}")
    say(f"  optuna-dashboard {shlex.quote(str(study.storage))}")
