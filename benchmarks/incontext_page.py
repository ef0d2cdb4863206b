"""Tables and a figure of docs/systems/pfn.md: from the records and from the networks' own logs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from runner import ROOT, Record
from tables import markdown, mean_and_error
from understudy.models.incontext.pfn import PFN
from understudy.models.incontext.pretrain import Line
from understudy.models.incontext.pretrained import shared

PAGE = ROOT / "docs" / "systems" / "pfn.md"
FIGURE = PAGE.with_name("pfn-training.svg")
START, END = "<!-- {}: written by python benchmarks/incontext.py page -->", "<!-- end -->"
PEERS = {"in-context": "in context", "exact-gp": "exact process"}


def values(records: Iterable[Record], name: str, peer: str, metric: str) -> list[float]:
    return [r[metric] for r in records if (r["dataset"], r["peer"]) == (name, peer)]


def figure(records: Iterable[Record], name: str, peer: str, metric: str, digits: int) -> str:
    mean, error = mean_and_error(values(records, name, peer, metric))
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def accuracy_table(records: list[Record]) -> str:
    """A line a table; in every cell the network's figure and the process's."""
    pair = " / ".join(PEERS.values())
    header = ["", f"R2, {pair}", "NLPD", "coverage of 90 %", "CPU seconds"]
    metrics = (("r2", 3), ("nlpd", 2), ("coverage_90", 2), ("cpu_s", 2))
    lines = []
    for name in dict.fromkeys(record["dataset"] for record in records):
        cells = [
            " / ".join(figure(records, name, peer, metric, digits) for peer in PEERS)
            for metric, digits in metrics
        ]
        lines.append([name, *cells])
    return markdown(header, lines)


def speed_table(times: dict[str, Record]) -> str:
    """Wall and processor milliseconds."""
    lines = []
    for name, found in times.items():
        if "failed" in found:
            lines.append([name, found["failed"], ""])
            continue
        lines.append([name, *(f"{found[key]:.0f}" for key in ("wall_ms", "cpu_ms"))])
    return markdown(["", "wall ms", "CPU ms"], lines)


_STYLE = """\
<style>
  text { fill: #59636e }
  polyline { fill: none; stroke: #2f6fb7; stroke-width: 1.5 }
  line { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 }
    polyline { stroke: #6cb0f5 }
    line { stroke: #30363d }
  }
</style>"""


def training_figure(networks: dict[str, PFN], width: int = 250, height: int = 190) -> str:
    """Loss against data sets seen, one panel a network; the data sets on a logarithmic axis."""
    panels = [
        _panel(name, network, i * width, width, height)
        for i, (name, network) in enumerate(networks.items())
    ]
    box = f'viewBox="0 0 {width * len(panels)} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="11">'
    return "\n".join([head, _STYLE, *panels, "</svg>"]) + "\n"


def _course(log: list[Line], least: int = 20_000) -> tuple[list[float], list[float]]:
    """Logarithms of data sets seen and mean losses, of at least so many data sets a point."""
    seen, loss = list[float](), list[float]()
    before, count, total = 0, 0, 0.0
    for line in log:
        new = line.data_sets - before
        before, count, total = line.data_sets, count + new, total + new * line.loss
        if count >= least:
            seen.append(math.log10(line.data_sets))
            loss.append(total / count)
            count, total = 0, 0.0
    return seen, loss


def _panel(name: str, network: PFN, left: int, width: int, height: int) -> str:
    seen, loss = _course(network.log)
    low, high = min(loss), max(loss)
    x0, x1, y0, y1 = left + 44, left + width - 16, height - 34, 26

    def x(value: float) -> float:
        return round(x0 + (value - seen[0]) / (seen[-1] - seen[0]) * (x1 - x0), 1)

    def y(value: float) -> float:
        return round(y0 + (value - low) / (high - low) * (y1 - y0), 1)

    parts = [f'<text x="{x0}" y="14">{name}: loss, nats a question</text>']
    for value in (low, high):
        at = y(value)
        parts.append(f'<line x1="{x0}" x2="{x1}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{x0 - 4}" y="{at + 4}" text-anchor="end">{value:.2f}</text>')
    for tick in range(math.ceil(seen[0]), math.floor(seen[-1]) + 1):
        place = f'x="{x(tick)}" y="{height - 18}" text-anchor="middle"'
        parts.append(f"<text {place}>10{_UP[tick]}</text>")
    parts.append(f'<text x="{x1}" y="{height - 4}" text-anchor="end">data sets</text>')
    points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(seen, loss, strict=True))
    return "\n".join([*parts, f'<polyline points="{points}"/>'])


_UP = dict(enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹"))


def write(results: Path) -> None:
    """Write both tables between their marks, and the figure."""
    accuracy = json.loads((results / "accuracy.json").read_text())["records"]
    times = json.loads((results / "speed.json").read_text())["times"]
    text = PAGE.read_text(encoding="utf-8")
    for name, made in (("accuracy", accuracy_table(accuracy)), ("speed", speed_table(times))):
        before, rest = text.split(START.format(name), 1)
        after = rest.split(END, 1)[1]
        text = f"{before}{START.format(name)}\n\n{made}\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")
    names = ("regression", "classification", "curves")
    FIGURE.write_text(training_figure({name: shared(name) for name in names}), encoding="utf-8")
