"""Records into tables: a line a data set, a column a peer, mean and standard error over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Record = dict[str, Any]

PEER_TITLES = {
    "understudy": "understudy",
    "autoemulate": "AutoEmulate",
    "autoemulate-refit": "AutoEmulate, refit",
    "smt": "SMT KRG",
    "botorch": "BoTorch GP",
}
NONE = "–"


@dataclass(frozen=True)
class Metric:
    """A figure of one run: its heading, its digits after the point, and where it is in a record."""

    title: str
    digits: int
    of: Callable[[Record], float | None]


def _score(name: str, combine: Callable[[Sequence[float]], float] = np.mean) -> Callable:
    def value(record: Record) -> float | None:
        values = record["scores"].get(name)
        return None if values is None else float(combine(values))

    return value


def _cost(name: str) -> Callable[[Record], float]:
    return lambda record: float(record["cost"][name])


METRICS: dict[str, Metric] = {
    "r2": Metric("Test R2, mean over outputs", 4, _score("r2")),
    "r2_median": Metric("Test R2, median over outputs", 4, _score("r2", np.median)),
    "nlpd": Metric("NLPD", 3, _score("nlpd")),
    "crps": Metric("CRPS", 4, _score("crps")),
    "coverage_90": Metric("Coverage of the 90 % interval", 3, _score("coverage_90")),
    "width_90": Metric("Mean width of the 90 % interval", 3, _score("width_90")),
    "fit_cpu_s": Metric("CPU seconds to fit", 1, _cost("fit_cpu_s")),
    "fit_wall_s": Metric("Wall seconds to fit", 1, _cost("fit_wall_s")),
    "peak_mib": Metric("Peak memory, MiB", 0, _cost("peak_mib")),
}

Group = tuple[str, int | None]


def groups(records: Iterable[Record], order: Sequence[str]) -> dict[Group, list[Record]]:
    """Records by data set and row limit: data sets in the given order, small limits first."""
    found: dict[Group, list[Record]] = {}
    for record in records:
        found.setdefault((record["dataset"], record["rows"]), []).append(record)
    place = {name: i for i, name in enumerate(order)}
    return dict(sorted(found.items(), key=lambda item: (place[item[0][0]], item[0][1] or math.inf)))


def group_title(group: Group) -> str:
    dataset, rows = group
    return dataset if rows is None else f"{dataset}, {rows} rows"


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error (None for a single value)."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


def cell(records: Sequence[Record], metric: Metric) -> str:
    """Text of one cell: mean ± standard error over the seeds, or why there is none."""
    if not records:
        return ""
    done = [record for record in records if "scores" in record]
    if not done:
        return records[0]["failed"] if "stopped" in records[0]["failed"] else "failed"
    values = [value for value in map(metric.of, done) if value is not None]
    if not values:
        return NONE
    mean, error = mean_and_error(values)
    text = f"{mean:.{metric.digits}f}"
    if error is not None:
        text += f" ± {error:.{metric.digits}f}"
    return text + (f" ({len(values)} of {len(records)})" if len(values) < len(records) else "")


def by_peer(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["peer"], []).append(record)
    return found


def grid(records: Sequence[Record], metric: Metric, order: Sequence[str]) -> list[list[str]]:
    """One line a data set and row limit; columns: its title, then every peer of PEER_TITLES."""
    return [
        [group_title(group)]
        + [cell(by_peer(members).get(peer, []), metric) for peer in PEER_TITLES]
        for group, members in groups(records, order).items()
    ]


def cost_ratios(records: Sequence[Record], order: Sequence[str]) -> list[list[str]]:
    """CPU seconds of every peer divided by ours, over the seeds that both have."""
    lines = []
    for group, members in groups(records, order).items():
        ours = _cpu_by_seed(members, "understudy")
        line = [group_title(group)]
        for peer in PEER_TITLES:
            theirs = _cpu_by_seed(members, peer)
            seeds = ours.keys() & theirs.keys()
            total = sum(ours[s] for s in seeds)
            line.append(f"{sum(theirs[s] for s in seeds) / total:.1f}" if seeds else "")
        lines.append(line)
    return lines


def _cpu_by_seed(records: Iterable[Record], peer: str) -> dict[int, float]:
    cpu = METRICS["fit_cpu_s"].of
    done = (r for r in records if r["peer"] == peer and "scores" in r)
    return {record["seed"]: cpu(record) for record in done}


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table: first column left, the others right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines)) + "\n"


def _figure(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


GP_METRICS: dict[str, Metric] = {
    "log_likelihood": Metric(
        "log ML", 1, lambda record: float(np.mean(record["details"]["log_likelihood"]))
    ),
    "r2": Metric("R2", 4, _score("r2")),
    "nlpd": Metric("NLPD", 3, _score("nlpd")),
    "coverage_90": Metric("cover 90", 3, _score("coverage_90")),
    "fit_cpu_s": Metric("CPU s", 2, _cost("fit_cpu_s")),
}


def gp_lines(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the exact GP's table: every figure as ours / BoTorch's, over seeds."""
    header = ["rows x inputs x outputs", *(metric.title for metric in GP_METRICS.values())]
    lines = []
    for (dataset, _), members in groups(records, sorted({r["dataset"] for r in records})).items():
        done = [record for record in members if "scores" in record]
        pair = [by_peer(done).get(name, []) for name in ("exact-gp", "botorch-matern")]
        lines.append([_shape(dataset, members[0])])
        for metric in GP_METRICS.values():
            means = [_mean(metric, group) for group in pair]
            lines[-1].append(" / ".join(_figure(mean, metric.digits) for mean in means))
        ours, theirs = (_mean(GP_METRICS["fit_cpu_s"], group) for group in pair)
        lines[-1].append(f"{theirs / ours:.0f}" if ours and theirs else "")
    return [*header, "CPU ratio"], lines


def _mean(metric: Metric, records: Sequence[Record]) -> float | None:
    values = [value for value in map(metric.of, records) if value is not None]
    return float(np.mean(values)) if values else None


def _shape(dataset: str, record: Record) -> str:
    name = "" if dataset.startswith("smooth-") else f"{dataset}, "
    return f"{name}{record['n_train']} x {record['inputs']} x {record['outputs']}"


def scaling_lines(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the scaling table."""
    header = ["rows", "inputs", "R2", "cover 90", "wall s", "CPU s", "MiB", "µs a predicted row"]
    lines = []
    for record in sorted(records, key=lambda r: (r["inputs"] != 10, r["n_train"], r["inputs"])):
        line = [f"{record['n_train']:,}", str(record["inputs"])]
        if "failed" in record:
            lines.append([*line, record["failed"], "", "", "", "", ""])
            continue
        cost = record["cost"]
        metrics = ("r2", "coverage_90", "fit_wall_s", "fit_cpu_s", "peak_mib")
        line += [cell([record], METRICS[name]) for name in metrics]
        lines.append([*line, f"{1e6 * cost['predict_wall_s'] / record['n_test']:.0f}"])
    return header, lines
