"""``docs/benchmarks-search.md`` from the records of `optimize.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

Record = dict[str, Any]
FIRST, BATCH = 10, 5

_HEAD = """# Benchmarks of search

<!-- Written by `python benchmarks/optimize.py --table`; change benchmarks/search_page.py, not this file. -->

`understudy optimize` with its defaults against BoTorch's defaults (`SingleTaskGP`, mixed where there
are choices, with qLogNEI or qLogNEHVI), Ax's client, Optuna's TPE and Gaussian process samplers,
HEBO and random search, each with its own defaults, in its own environment. On every problem, with
every seed, all are told the same ten first runs and propose ten batches of five: 60 evaluations.
Problems and seeds were fixed before any result was looked at, and all runs are shown. BoTorch and
understudy are given the reference point of the hypervolume; HEBO takes one objective. TPE is multivariate with a
constant liar, as is advised for batches.
"""  # noqa: E501


def page(records: Iterable[Record], peers: Mapping[str, Any]) -> str:
    """Markdown of all tables."""
    records = list(records)
    done = [record for record in records if "failed" not in record]
    problems = list(dict.fromkeys(r["problem"] for r in sorted(records, key=_order)))
    shown = [peer for peer in peers if any(r["peer"] == peer for r in records)]
    titles = {peer: peers[peer].title for peer in shown}
    parts = [
        _HEAD,
        *_machine(done, titles),
        "\n## Mean rank\n",
        "Rank of the best found after 60 evaluations among the peers, 1 for the best, ties shared;"
        " mean over the seeds that all peers of a problem have.\n",
        *_ranks(done, problems, titles),
        "\n## Best found after 60 evaluations\n",
        "Mean ± standard error over the seeds: regret where the optimum is known (a dagger marks"
        " the best value otherwise, or minus the hypervolume of several objectives); lower is"
        " better.\n",
        *_finals(done, problems, titles),
        "\n## CPU seconds a suggestion\n",
        "CPU time of a round over its five suggestions, mean over rounds and seeds, one thread.\n",
        *_seconds(done, problems, titles),
    ]
    failed = [record for record in records if "failed" in record]
    if failed:
        parts += ["\n## Runs that failed\n"]
        parts += [f"- {r['problem']}, seed {r['seed']}, {r['peer']}: {r['failed']}" for r in failed]
    return "\n".join(parts) + "\n"


def _order(record: Record) -> tuple[int, str]:
    from problems import TASKS

    return list(TASKS).index(record["problem"]), record["peer"]


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _machine(records: list[Record], titles: Mapping[str, str]) -> list[str]:
    rows = []
    for peer, title in titles.items():
        mine = [record for record in records if record["peer"] == peer]
        if not mine:
            continue
        versions = ", ".join(f"{k} {v}" for k, v in mine[-1]["versions"].items())
        days = sorted({record["measured"] for record in mine})
        span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        rows.append([title, versions or "-", str(len(mine)), span])
    processors = sorted({r["hardware"]["processor"] for r in records})
    return [
        f"Machine: {'; '.join(processors)}, one thread a run.\n",
        *_table(["system", "versions", "runs", "measured"], rows),
    ]


def _finals_of(records: list[Record], problem: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for record in records:
        if record["problem"] == problem:
            found[record["peer"]][record["seed"]] = record["history"][-1]
    return found


def _ranks(records: list[Record], problems: list[str], titles: Mapping[str, str]) -> list[str]:
    rows, total = [], defaultdict(list)
    for problem in problems:
        finals = _finals_of(records, problem)
        shared = sorted(set.intersection(*(set(seeds) for seeds in finals.values())))
        if not shared:
            continue
        names = list(finals)
        ranks = rankdata([[finals[name][s] for s in shared] for name in names], axis=0).mean(1)
        means = dict(zip(names, ranks, strict=True))
        for name, rank in means.items():
            total[name].append(rank)
        cells = [f"{means[p]:.2f}" if p in means else "" for p in titles]
        rows.append([f"{problem} ({len(shared)} seeds)", *cells])
    overall = [f"**{np.mean(total[p]):.2f}**" if total[p] else "" for p in titles]
    return _table(["problem", *titles.values()], [*rows, ["**mean**", *overall]])


def _finals(records: list[Record], problems: list[str], titles: Mapping[str, str]) -> list[str]:
    from problems import TASKS

    rows = []
    for problem in problems:
        task, finals = TASKS[problem](), _finals_of(records, problem)
        mark = "" if task.best is not None else " †"
        cells = [_spread(list(finals[p].values())) if p in finals else "" for p in titles]
        rows.append([problem + mark, *cells])
    return _table(["problem", *titles.values()], rows)


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.4g}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.2g}"


def _seconds(records: list[Record], problems: list[str], titles: Mapping[str, str]) -> list[str]:
    rows = []
    for problem in problems:
        cells = []
        for peer in titles:
            rounds = [
                second
                for record in records
                if (record["problem"], record["peer"]) == (problem, peer)
                for second in record["round_cpu_s"]
            ]
            cells.append(f"{np.mean(rounds) / BATCH:.3f}" if rounds else "")
        rows.append([problem, *cells])
    return _table(["problem", *titles.values()], rows)
