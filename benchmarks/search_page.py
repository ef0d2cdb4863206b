"""``docs/benchmarks-search.md`` from the records of `optimize.py`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import rankdata

from problems import TASKS, Task

Record = dict[str, Any]
Key = tuple[str, int]
FIRST, BATCH = 10, 5
OURS = "understudy"
_LEAST_REGRET = 1e-12

_HEAD = """# Benchmarks of search

<!-- Written by `python benchmarks/optimize.py --table`; change benchmarks/search_page.py, not this file. -->

Which optimiser finds the better design with the same number of runs, and what a suggestion costs.
`BayesianSearcher`, which `understudy optimize` asks, is measured with its defaults against BoTorch's
defaults (`SingleTaskGP`, mixed where there are choices, with qLogNEI or qLogNEHVI), Ax's client,
Optuna's TPE and Gaussian process samplers, HEBO, and random search, each with its own defaults.

On every problem, with every seed, all are told the same ten first runs (scrambled Sobol points) and
propose ten batches of five: 60 evaluations. Problems, seeds and numbers of runs were fixed before
any result was looked at, and all runs are shown. BoTorch and understudy are given the reference
point of the hypervolume; Ax and Optuna find their own. HEBO takes one objective. TPE is multivariate
with a constant liar, as Optuna advises for batches. "understudy, PFN" is the same searcher with a
pre-trained network (`surrogate="pfn"`), which reads ten inputs at most.
"""  # noqa: E501


_READING = """
## Which to use

- **Runs are expensive, inputs are from 2 to 200, one objective, no noise:** understudy has
  the best mean rank, from the first twenty evaluations on. Its lead is largest on ackley10 and
  polynomial-200; on branin it is no better than Optuna's Gaussian process, on network-100 hardly, and
  on borehole all three processes find the optimum.
- **Two or three objectives:** on branin-currin understudy finds the larger hypervolume with seven of
  ten seeds, by thousandths, for a quarter of BoTorch's time. On oil-sorbent it is ahead of Optuna's
  Gaussian process with nine of ten seeds; of BoTorch there is one seed, behind both, as a search
  takes it six minutes and more.
- **Choices and few real differences:** on support-vectors all lie within 1 %, and random search ranks
  with BoTorch and Optuna's Gaussian process; little is to be gained there by any of them.
- **A suggestion must take a tenth of a second or less:** Optuna's TPE takes hundredths and stays far
  ahead of random search, but well behind every process here.
- **Optuna GP** costs about what understudy does, up to 20 inputs; from 100 it is two to three times
  cheaper, and behind on polynomial-200.
- **BoTorch** is a toolbox: what is measured are its defaults, which one would replace for 200 inputs
  or for choices.

## What cannot be concluded

- Ten problems are not all problems. They were chosen, by the authors of understudy, before results
  were known; most are formulas. None is noisy, constrained, or fails.
- 60 evaluations in batches of five. With hundreds of evaluations, or one at a time, ranks may differ.
- Where a table has few seeds, runs were too long for the machine; none was left out for its result.
  So oil-sorbent, of which BoTorch has one seed, decides nothing. HEBO has ten seeds of the problems of
  one objective up to 100 inputs without choices, Ax of those up to 10 inputs and of branin-currin.
- Most of BoTorch's runs were made on another processor, with another PyTorch, than all others (see
  below). That changes rounding, and the cost: that of these runs is not in the table of seconds.
- A rank does not say by how much. On hartmann6 four of ten searches by understudy end in the
  second-best optimum, at a regret of 0.12; on support-vectors the medians of all systems lie within
  1 % of one another.
- For one objective, closed forms of batches and noise were chosen on other functions and seeds from
  100 on: about half the cost, and optima that could not be told from those by samples. For two, they
  were tried on branin-currin and oil-sorbent themselves, with seeds from 100 on.
"""  # noqa: E501


class Runs:
    """Records of searches that ended, by problem, seed and peer."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = [record for record in records if "failed" not in record]
        self.by: dict[Key, dict[str, Record]] = defaultdict(dict)
        for record in self.records:
            self.by[record["problem"], record["seed"]][record["peer"]] = record

    def widely(self, peers: Iterable[str]) -> list[str]:
        """Peers that have more than half of all problems and seeds."""
        count = Counter(record["peer"] for record in self.records)
        return [peer for peer in peers if count[peer] > len(self.by) / 2]

    def shared(self, peers: Iterable[str]) -> list[Key]:
        """Problems and seeds that all these peers have."""
        wanted = set(peers)
        return sorted(key for key, found in self.by.items() if wanted <= set(found))

    def ranks(self, keys: list[Key], peers: list[str], evaluation: int = -1) -> np.ndarray:
        """Ranks (keys, peers) of the best after an evaluation, 1 for the best, ties shared."""
        return np.array(
            [
                rankdata([self.by[key][peer]["history"][evaluation] for peer in peers])
                for key in keys
            ]
        )

    def finals(self, problem: str, peer: str) -> list[float]:
        """Last values of one peer on one problem."""
        return [
            found[peer]["history"][-1]
            for (name, _), found in self.by.items()
            if name == problem and peer in found
        ]


def page(records: Iterable[Record], peers: Mapping[str, Any], figure: str) -> str:
    """Markdown of all tables; the figure is the path of that of `rank_figure`."""
    records = list(records)
    runs = Runs(records)
    shown = {k: p.title for k, p in peers.items() if any(r["peer"] == k for r in runs.records)}
    everywhere = runs.widely(shown)
    keys = runs.shared(everywhere)
    parts = [
        _HEAD,
        "## Mean rank\n",
        *_summary(runs, keys, everywhere, shown),
        f"\n![Mean rank after each evaluation]({figure})\n",
        *_by_problem(runs, keys, everywhere, shown),
        *_with_few(runs, [key for key in shown if key not in everywhere], everywhere, shown),
        _READING,
        "\n## Best found after 60 evaluations\n",
        "Median over the seeds, with quartiles in brackets: log10 of the regret where the optimum"
        " is known, otherwise the value itself or the hypervolume. The number of seeds is given"
        " where there are fewer than others have; such cells are not of the same first runs.\n",
        *_finals(runs, shown),
        "\n## CPU seconds a suggestion\n",
        "CPU time of a round over its five suggestions, refitting included: median over the runs"
        f" made on one machine ({_machine(runs)}), one thread.\n",
        *_seconds(runs, shown),
        "\n## What was run\n",
        *_machines(runs, shown),
        *_failures(records),
    ]
    return "\n".join(parts) + "\n"


# -- ranks ------------------------------------------------------------------------------------


def _summary(runs: Runs, keys: list[Key], peers: list[str], titles: Mapping[str, str]) -> list[str]:
    ranks = runs.ranks(keys, peers)
    mean, error = _mean_rank(keys, ranks)
    rows = []
    for at in np.argsort(mean):
        duel = ""
        if peers[at] != OURS:
            ours, theirs = ranks[:, peers.index(OURS)], ranks[:, at]
            duel = f"{(ours < theirs).sum()} / {(ours == theirs).sum()} / {(ours > theirs).sum()}"
        rows.append([titles[peers[at]], f"{mean[at]:.2f} ± {error[at]:.2f}", duel])
    problems = len({name for name, _ in keys})
    return [
        f"Rank among the {len(peers)} systems of which most runs are made, 1 for the best, ties"
        f" shared: mean over {problems} problems of the mean over seeds, on the {len(keys)} pairs"
        " of a problem and a seed that all have. The standard error says how much other seeds"
        " would change it, not how much other problems would.\n",
        *_table(["system", "mean rank", "understudy better / equal / worse"], rows),
    ]


def _mean_rank(keys: list[Key], ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over problems of the mean rank over seeds, and its standard error over seeds.

    Of problems with one seed, the variance is taken to be the mean of that of the others.
    """
    names = sorted({name for name, _ in keys})
    groups = [ranks[[i for i, key in enumerate(keys) if key[0] == name]] for name in names]
    mean = np.mean([group.mean(0) for group in groups], 0)
    known = [group.var(0, ddof=1) for group in groups if len(group) > 1]
    usual = np.mean(known, 0) if known else np.full(len(mean), np.nan)
    spread = [g.var(0, ddof=1) / len(g) if len(g) > 1 else usual for g in groups]
    return mean, np.sqrt(np.sum(spread, 0)) / len(groups)


def _by_problem(
    runs: Runs, keys: list[Key], peers: list[str], titles: Mapping[str, str]
) -> list[str]:
    rows = []
    for name in TASKS:
        mine = [key for key in keys if key[0] == name]
        if mine:
            means = runs.ranks(mine, peers).mean(0)
            rows.append([f"{name} ({len(mine)})", *(f"{rank:.2f}" for rank in means)])
    return [
        "\nThe same by problem, with the number of seeds:\n",
        *_table(["problem", *(titles[peer] for peer in peers)], rows),
    ]


def _with_few(runs: Runs, few: list[str], peers: list[str], titles: Mapping[str, str]) -> list[str]:
    """Ranks with a peer of which few runs are made, on those."""
    parts = []
    for peer in few:
        whole = [*peers, peer]
        keys = runs.shared(whole)
        if not keys:
            continue
        mean, error = _mean_rank(keys, runs.ranks(keys, whole))
        row = [
            f"{m:.2f}" if np.isnan(e) else f"{m:.2f} ± {e:.2f}"
            for m, e in zip(mean, error, strict=True)
        ]
        seeds = len({seed for _, seed in keys})
        parts += [
            f"\nWith {titles[peer]}, on {len(keys)} pair(s) of a problem"
            f" and a seed, of {seeds} seed(s):\n",
            *_table(["", *(titles[p] for p in whole)], [["mean rank", *row]]),
        ]
    return parts


def rank_figure(records: Iterable[Record], peers: Mapping[str, Any]) -> str:
    """SVG of the mean rank after each evaluation."""
    runs = Runs(records)
    shown = runs.widely(peers)
    keys = runs.shared(shown)
    steps = range(FIRST, len(runs.by[keys[0]][shown[0]]["history"]))
    curves = np.array([_mean_rank(keys, runs.ranks(keys, shown, at))[0] for at in steps])
    return _svg([step + 1 for step in steps], curves, [peers[key].title for key in shown])


_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#7f7f7f")


def _svg(steps: list[int], curves: np.ndarray, titles: list[str]) -> str:
    """Curves (steps, k) over steps, each with its title at its end; small values on top."""
    width, height, left, top = 520, 260, 40, 14
    x = np.interp(steps, [steps[0], steps[-1]], [left, width])
    ends = float(np.floor(curves.min())), float(np.ceil(curves.max()))
    y = np.interp(curves, ends, [top, height])
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" font-family="sans-serif"'
        ' font-size="12">',
        '<rect width="640" height="300" fill="white"/>',
    ]
    for rank in range(int(ends[0]), int(ends[1]) + 1):
        at = float(np.interp(rank, ends, [top, height]))
        lines.append(f'<line x1="{left}" x2="{width}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{rank}</text>')
    for step in range(steps[0] - 1, steps[-1] + 1, 10):
        at = float(np.interp(step, [steps[0], steps[-1]], [left, width]))
        lines.append(f'<text x="{at:.1f}" y="{height + 18}" text-anchor="middle">{step}</text>')
    middle = (left + width) / 2
    lines.append(f'<text x="{middle}" y="{height + 36}" text-anchor="middle">evaluations</text>')
    label = _apart(y[-1], 13.0)
    for k, title in enumerate(titles):
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y[:, k], strict=True))
        colour = _COLOURS[k % len(_COLOURS)]
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        lines.append(f'<text x="{width + 8}" y="{label[k] + 4:.1f}" fill="{colour}">{title}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _apart(y: np.ndarray, gap: float) -> np.ndarray:
    """Places near y that lie at least a gap from one another, in the same order."""
    order, placed = np.argsort(y), y.astype(float).copy()
    for before, here in pairwise(order):
        placed[here] = max(placed[here], placed[before] + gap)
    return placed


# -- values and cost --------------------------------------------------------------------------


def _finals(runs: Runs, titles: Mapping[str, str]) -> list[str]:
    rows = []
    for name, make in TASKS.items():
        task = make()
        found = {peer: runs.finals(name, peer) for peer in titles}
        if any(found.values()):
            most = max(len(values) for values in found.values())
            cells = [_quartiles(_shown(task, values), most) for values in found.values()]
            rows.append([f"{name}: {_measure(task)}", *cells])
    return _table(["problem", *titles.values()], rows)


def _measure(task: Task) -> str:
    if task.reference_point is not None:
        return "hypervolume, large is good"
    if task.best is not None:
        return "log10 regret, small is good"
    return "value, large is good" if task.direction == "maximize" else "value, small is good"


def _shown(task: Task, losses: list[float]) -> np.ndarray:
    values = np.array(losses)
    if task.reference_point is None and task.best is not None:
        return np.log10(np.maximum(values, _LEAST_REGRET))
    return -values if task.reference_point or task.direction == "maximize" else values


def _quartiles(values: np.ndarray, most: int) -> str:
    if len(values) == 0:
        return ""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    count = "" if len(values) == most else f" ({len(values)})"
    spread = f" [{low:.4g}, {high:.4g}]" if len(values) > 2 else ""
    return f"{middle:.4g}{spread}{count}"


def _seconds(runs: Runs, titles: Mapping[str, str]) -> list[str]:
    rows, machine = [], _machine(runs)
    for name in TASKS:
        cells = []
        for peer in titles:
            found = [
                np.mean(record["round_cpu_s"]) / BATCH
                for record in runs.records
                if (record["problem"], record["peer"]) == (name, peer)
                and _processor(record) == machine
            ]
            cells.append(f"{np.median(found):.2f}" if found else "")
        rows.append([name, *cells])
    return _table(["problem", *titles.values()], rows)


def _processor(record: Record) -> str:
    return f"{record['hardware']['processor']}, {record['hardware']['cores']} cores"


def _machine(runs: Runs) -> str:
    """Where most of our runs were made."""
    ours = [_processor(record) for record in runs.records if record["peer"] == OURS]
    return max(sorted(set(ours)), key=ours.count)


# -- what was run -----------------------------------------------------------------------------


def _machines(runs: Runs, titles: Mapping[str, str]) -> list[str]:
    rows = []
    for peer, title in titles.items():
        mine = [record for record in runs.records if record["peer"] == peer]
        versions = {", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in mine}
        days = sorted({record["measured"] for record in mine})
        machines = {_processor(record) for record in mine}
        rows.append(
            [
                title,
                "; ".join(sorted(versions)) or "-",
                str(len(mine)),
                "; ".join(sorted(machines)),
                days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
            ]
        )
    return _table(["system", "versions", "runs", "machine", "measured"], rows)


def _failures(records: list[Record]) -> list[str]:
    failed = [record for record in records if "failed" in record]
    if not failed:
        return ["\nNo run failed."]
    lines = [f"- {r['problem']}, seed {r['seed']}, {r['peer']}: {r['failed']}" for r in failed]
    return ["\nRuns that failed:\n", *lines]


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
