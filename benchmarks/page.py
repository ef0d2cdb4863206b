"""The page docs/benchmarks.md: written from the records, never by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets import DATASETS
from tables import (
    METRICS,
    PEER_TITLES,
    Record,
    cost_ratios,
    gp_lines,
    grid,
    group_title,
    groups,
    markdown,
    scaling_lines,
)

INTRODUCTION = """\
# Benchmarks

<!-- Written by `python benchmarks/fit.py --table`; change benchmarks/page.py, not this file. -->

`understudy.fit` with its defaults against AutoEmulate, SMT's Kriging (`KRG`) and a plain BoTorch
`SingleTaskGP`, each with its own defaults, in its own environment, on the same rows. A fifth of
every table is the test set; the split follows the seed. Figures are means over the outputs, then
mean ± standard error over the seeds (no ± where there is one seed). NLPD, CRPS and the interval
width are in units of each output's standard deviation in the training rows; lower is better.
`benchmarks/README.md` in the repository says how to run it.
"""

READING = """\
## How to read these tables

- "150 rows" means that every system was given the same 150 training rows (and the whole test set),
  because AutoEmulate tunes six families of models by cross-validation and takes long on more.
- `AutoEmulate(x, y)` keeps a fifth of the rows it is given to choose its best model, which stays
  fitted on the other four fifths. "AutoEmulate, refit" is that configuration fitted again on all
  rows by AutoEmulate's own `fit_from_reinitialized`; its cost is the sum of both.
- AutoEmulate's best model may give no uncertainty (radial basis functions, polynomials, one
  network): then NLPD, CRPS and coverage are missing (–). Where seeds differ in this, the count of
  seeds that have the figure follows it. Its Gaussian processes give the posterior of the function
  without observation noise, so their intervals are not made to cover observations, and it works in
  float32.
- SMT's Kriging fits one model an output; its variance has no noise term by default, so on noisy
  tables its intervals cannot cover. A predicted standard deviation under a millionth of the
  output's is raised to that.
- The peers have the rows of 150 only, as AutoEmulate would take hours a table otherwise. SMT is
  missing on cardiac3: 26 models of 21 inputs, half an hour a fit if they cost what those of
  cardiac1 do.
- BoTorch's GP predicts observations, with its noise.
- CPU and wall seconds are of the fit alone, without imports or predictions. Peak memory is of the
  whole process. Wall times were taken on a machine with other work and compare less well than CPU
  times; the number of threads is in the table of versions.
- The budget of `understudy.fit` is a limit in wall time, so a slower machine makes it search less;
  the other systems have no limit.
"""

GP = """\
## The exact GP by itself

Ours / BoTorch's `fit_gpytorch_mll` on a `SingleTaskGP` with the same Matern-5/2 kernel and prior
(ours learns an output scale as well). "log ML" is the log marginal likelihood of the standardised
training outputs without the priors, averaged over the outputs. Both fit 20 rows before the clock
starts, so that libraries are loaded.
"""

SCALING = """\
## Scaling

Random smooth functions with 2 % noise and one output, `understudy.fit` with its defaults.
"""


def facts(records: Sequence[Record]) -> str:
    """Table of the data sets."""
    lines = []
    for group, members in groups(records, list(DATASETS)).items():
        first = members[0]
        counts = [first["n_train"], first["n_test"], first["inputs"], first["outputs"]]
        seeds = sorted({record["seed"] for record in members})
        lines.append([group_title(group), *map(str, counts), ", ".join(map(str, seeds))])
    header = ["data", "training rows", "test rows", "inputs", "outputs", "seeds"]
    return markdown(header, lines)


def versions(records: Iterable[Record]) -> str:
    """Table of what ran: packages, threads, processor, dates."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(PEER_TITLES.get(record["peer"], record["peer"]), []).append(record)
    lines = []
    for title, members in found.items():
        packages = next((r["versions"] for r in members if "versions" in r), {})
        text = ", ".join(f"{name} {number}" for name, number in packages.items())
        threads = sorted({str(record["hardware"]["threads"]) for record in members})
        dates = sorted({record["measured"] for record in members})
        lines.append(
            [title, text, " or ".join(threads), " to ".join(dict.fromkeys((dates[0], dates[-1])))]
        )
    return markdown(["system", "versions", "threads", "measured"], lines)


def hardware(records: Sequence[Record]) -> str:
    """Sentence on the machine."""
    machines = {(r["hardware"]["processor"], r["hardware"]["cores"]) for r in records}
    text = "; ".join(f"{processor}, {cores} cores" for processor, cores in sorted(machines))
    return f"Machine: {text}.\n"


def failures(records: Sequence[Record]) -> str:
    """List of the runs that gave no answer."""
    failed = [record for record in records if "failed" in record]
    if not failed:
        return ""
    lines = [
        f"- {group_title((r['dataset'], r['rows']))}, seed {r['seed']}, "
        f"{PEER_TITLES.get(r['peer'], r['peer'])}: {r['failed']}"
        for r in failed
    ]
    return "## Runs without an answer\n\n" + "\n".join(lines) + "\n"


def comparison(records: Sequence[Record]) -> list[str]:
    """One section a metric, then the ratios of CPU time."""
    order = list(DATASETS)
    header = ["data", *PEER_TITLES.values()]
    sections = [
        f"## {metric.title}\n\n" + markdown(header, grid(records, metric, order))
        for metric in METRICS.values()
    ]
    ratios = markdown(header, cost_ratios(records, order))
    return [*sections, f"## CPU time as a multiple of ours\n\n{ratios}"]


def write(path: Path, fit: list[Record], gp: list[Record], scaling: list[Record]) -> None:
    """Write the page from the records of the three benchmarks."""
    parts = [INTRODUCTION, hardware(fit), versions(fit), facts(fit), *comparison(fit)]
    parts += [failures(fit), READING]
    for text, lines, records in ((GP, gp_lines, gp), (SCALING, scaling_lines, scaling)):
        if records:
            parts += [text, markdown(*lines(records)), versions(records)]
    path.write_text("\n".join(part for part in parts if part))
