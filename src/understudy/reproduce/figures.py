"""Claims drawn as an SVG: each measurement as a dot on its own axis, beside its bar."""

from __future__ import annotations

import math
import textwrap
from html import escape

from understudy.reproduce.claims import Claim, Report

_WIDTH = 780
_LEFT, _RIGHT = 24, 560
_TOP = 84
_LINE = 18

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .faint { fill: #59636e; font-size: 12px; }
  .axis { stroke: #d1d9e0; stroke-width: 6; stroke-linecap: round; }
  .side { stroke: #a9c7ea; stroke-width: 6; }
  .bar { stroke: #1f2328; stroke-width: 2; }
  .spread { stroke-width: 2; }
  .holds { fill: #1a7f37; stroke: #1a7f37; }
  .short { fill: #bc4c00; stroke: #bc4c00; }
  text.holds, text.short { stroke: none; font-weight: 600; }
  .paper { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; }
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .axis { stroke: #30363d; }
    .side { stroke: #1f4a80; }
    .bar { stroke: #e6edf3; }
    .holds { fill: #3fb950; stroke: #3fb950; }
    .short { fill: #f0883e; stroke: #f0883e; }
  }
"""


def claims_figure(report: Report) -> str:
    """Picture of a report as self-contained SVG text, light or dark as the reader's system is.

    One row a claim. Its axis, whose ends are named below it, spans measurement, spread, bar and
    zero where that is near. The shaded part is where the claim holds, the upright line its bar, the
    dot the measurement with one standard deviation over seeds to either side. A dot that falls
    short is hollow.

    Parameters
    ----------
    report : Report
        What was measured.

    Returns
    -------
    str
        An SVG document.
    """
    rows: list[str] = []
    y = _TOP
    for claim in report.claims:
        row, height = _row(claim, y)
        rows.append(row)
        y += height
    held = sum(claim.holds for claim in report.claims)
    title = f"{report.slug}: {held} of {len(report.claims)} claims hold at {report.scale} scale"
    legend = "shaded: where the claim holds; line: bar; dot: measured, ± one sd over seeds"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="{escape(title)}">\n<style>{_STYLE}</style>\n'
        f'<rect class="paper" width="{_WIDTH}" height="{y}"/>\n'
        f'<text class="title" x="{_LEFT}" y="34">{escape(title)}</text>\n'
        f'<text class="faint" x="{_LEFT}" y="56">{legend}</text>\n' + "\n".join(rows) + "\n</svg>\n"
    )


def _row(claim: Claim, top: int) -> tuple[str, int]:
    """Drawing of one claim from ``top`` downwards, and its height."""
    lines = textwrap.wrap(claim.statement, 104) or [""]
    parts = [
        f'<text x="{_LEFT}" y="{top + i * _LINE}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    ]
    y = top + len(lines) * _LINE + 6
    parts += _track(claim, y)
    mark = "holds" if claim.holds else "short"
    metric = textwrap.shorten(claim.metric, 60, placeholder=" ...")
    low, high = _axis(claim)
    parts += [
        f'<text class="{mark}" x="{_RIGHT + 20}" y="{y - 4}">{_verdict(claim)}</text>',
        f'<text class="faint" x="{_RIGHT + 20}" y="{y + 13}">{_numbers(claim)}</text>',
        f'<text class="faint" x="{_LEFT}" y="{y + 25}">{escape(metric)}</text>',
        f'<text class="faint" x="{_RIGHT}" y="{y + 25}" text-anchor="end">{low:.3g} to {high:.3g}'
        "</text>",
    ]
    return "\n".join(parts), len(lines) * _LINE + 66


def _track(claim: Claim, y: int) -> list[str]:
    low, high = _axis(claim)

    def x(value: float) -> float:
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    bar = x(claim.bar)
    edge = _RIGHT if claim.direction == "at least" else _LEFT
    parts = [
        f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}"/>',
        f'<line class="side" x1="{bar}" x2="{edge}" y1="{y}" y2="{y}"/>',
        f'<line class="bar" x1="{bar}" x2="{bar}" y1="{y - 11}" y2="{y + 11}"/>',
    ]
    if not math.isfinite(claim.measured):
        return parts
    mark = "holds" if claim.holds else "short"
    if math.isfinite(claim.spread):
        ends = x(claim.measured - claim.spread), x(claim.measured + claim.spread)
        parts.append(
            f'<line class="spread {mark}" x1="{ends[0]}" x2="{ends[1]}" y1="{y}" y2="{y}"/>'
        )
    hollow = "" if claim.holds else ' style="fill-opacity:0;stroke-width:3"'
    parts.append(f'<circle class="{mark}" cx="{x(claim.measured)}" cy="{y}" r="6"{hollow}/>')
    return parts


def _axis(claim: Claim) -> tuple[float, float]:
    """Span of a row: all that it shows, and zero unless that would squeeze the rest together."""
    spread = claim.spread if math.isfinite(claim.spread) else 0.0
    shown = [claim.bar]
    if math.isfinite(claim.measured):
        shown += [claim.measured - spread, claim.measured + spread]
    low, high = min(shown), max(shown)
    if high - low > 0.1 * max(abs(low), abs(high)):
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        margin = 0.5 * abs(low) or 1.0
        return low - margin, high + margin
    margin = 0.12 * (high - low)
    return (low if low == 0.0 else low - margin), (high if high == 0.0 else high + margin)


def _verdict(claim: Claim) -> str:
    return "holds" if claim.holds else "does not hold"


def _numbers(claim: Claim) -> str:
    sign = "≥" if claim.direction == "at least" else "≤"
    spread = f" ± {claim.spread:.2g}" if math.isfinite(claim.spread) else ""
    return f"{claim.measured:.4g}{spread} (bar {sign} {claim.bar:.4g})"
