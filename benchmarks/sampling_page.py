"""``docs/benchmarks-sampling.md`` from the records of `sampling.py` and `ensemble.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median
from typing import Any

Record = dict[str, Any]
OURS, ALL_WEIGHTS, TARGET = "understudy", "understudy-all-weights", 3.0
LEAST_SAMPLES = 50  # of a chain, from which an effective number is worth showing

_HEAD = """# Benchmarks of samplers

<!-- Written by `python benchmarks/sampling.py --table`; change benchmarks/sampling_page.py, not this file. -->

How many effective draws a second our Hamiltonian Monte Carlo gives on posteriors of Bayesian neural networks, against
NumPyro's and Pyro's samplers on the same posteriors. The networks are tanh multilayer perceptrons with N(0, 1) priors on
all weights and biases and a known noise variance of 0.01 of the standardised output, as in
[arXiv 2305.20028](https://arxiv.org/abs/2305.20028), in sizes that two cores can sample: {posteriors}.

Every sampler gets the same data and the same four starts near modes, and makes as many iterations: {steps}. Its
potential energies at the starts are compared with ours before its draws are. What is estimated is the function at 20
points that the data do not have, and the log density of all weights. The **effective number** is the least over these 21
quantities of the bulk and the tail effective sample sizes ([arXiv 1903.08008](https://arxiv.org/abs/1903.08008), by
ArviZ), and R-hat is the largest. **Costs include the burn-in**; importing and compiling are not counted, for anyone.
"""  # noqa: E501

_METHODS = """
## What is compared

- **understudy** integrates the output layer out of the posterior (`understudy.nn.collapsed_mlp`): given the hidden
  layers it is a linear regression, so the sampler moves in the hidden weights only, over a density that is far less
  stiff, and each kept draw is completed by an exact draw of the output layer. The posterior of all weights is the same.
  Gradients are written out by hand. All four chains are one batch in one process with one thread, so it uses one of the
  two cores; with **two processes**, of two chains each, it uses both, at the price of smaller batches.
- **understudy, all weights** is the same sampler without that: leapfrog steps are an eighth as long there, paths of the same
  length would take more than the 1,000 steps allowed while it adapts and are halved, and what it has drawn by then is
  worth little. NUTS copes better with such a density, and XLA's gradients of networks this small cost a fraction of ours,
  most of whose time goes into dispatching small operations. Integrating the output layer out is what puts us ahead.
- **NumPyro NUTS** and **HMC** have their own adaptation with its defaults (acceptance 0.8, diagonal mass, trees of depth
  up to 10), compiled by XLA, four chains in parallel. HMC has our path length of 1 in place of its default of 2π, to its
  advantage.
- **NumPyro NUTS, output layer integrated out** samples the density that ours does, written for NumPyro by hand; it tells
  how much is due to the density and how much to the sampler.
- **Pyro NUTS** has its own adaptation with its defaults, its potential traced by TorchScript, one process a chain. It is
  the algorithm of NumPyro's NUTS, so its cost a gradient tells where it would stand; its chains were cut short, as full
  ones take more than ten CPU minutes each time.
- hamiltorch is not on the package index, so it is not here.

Our sampler has the same settings everywhere: path length 1 (in units of the prior's deviation), each path longer or
shorter by up to a half, identity mass, acceptance 0.8.
"""  # noqa: E501

_READING = """
## How to read these tables

- The machine's two cores had 5 to 15 other processes while these runs were made, so only one of the three planned seeds of
  the larger posterior was measured. Wall times then tell more of how many
  threads a sampler has than of its speed, and CPU times, of all processes and threads of a run, are stretched by shared
  caches; both are given. Chains differ from run to run even with one seed where threads add in another order.
- R-hat above 1.05 says that the chains had not agreed after so few iterations, and then an effective number is a guess, mostly
  a flattering one. A sampler that has not converged in as many iterations needs more of them, not fewer.
- On the larger posterior our run and NumPyro's were not made one after the other: NumPyro's and both of "all weights" are of
  half an hour before; "all weights" ran in two processes of two chains, on Branin too, before gradients took 13 % less time.
  The larger posterior's ratios are an indication, no more.
- NumPyro's cost is that of a second run in the same process, less what tracing and loading compiled programs takes.
- These are small networks on few rows. The factor that integrating the output layer out brings depends on the noise, the
  widths and the number of rows; it needs a Gaussian likelihood with known noise and a Gaussian prior.
"""  # noqa: E501


def page(
    records: Sequence[Record],
    ensembles: Sequence[Record],
    posteriors: Mapping[str, Any],
    methods: Mapping[str, Any],
) -> str:
    """Markdown of everything."""
    done = [record for record in records if "failed" not in record]
    long = [record for record in done if record["settings"]["samples"] >= LEAST_SAMPLES]
    titles = ", ".join(
        f"{p.title.split(', ')[1]} on {p.rows} rows of {p.title.split(', ')[0]}"
        for p in posteriors.values()
    )
    counts = {(r["settings"]["burn_in"], r["settings"]["samples"]) for r in long}
    steps = " or ".join(f"{a} of burn-in and {b} kept" for a, b in sorted(counts))
    parts = [_HEAD.format(posteriors=titles, steps=steps), *machine(done, methods)]
    parts += ["\n## Verdict\n", *verdicts(long, posteriors, methods)]
    for name, posterior in posteriors.items():
        own = [record for record in done if record["posterior"] == name]
        if own:
            parts += [
                f"\n## {posterior.title[0].upper()}{posterior.title[1:]}\n",
                *results(own, methods),
            ]
    parts += failures(records, methods)
    parts += [_METHODS, _READING]
    if ensembles:
        parts += ensemble_section(ensembles)
    return "\n".join(parts).rstrip() + "\n"


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def machine(records: Sequence[Record], methods: Mapping[str, Any]) -> list[str]:
    """Processor, versions and dates."""
    versions = {f"{k} {v}" for record in records for k, v in record["versions"].items()}
    processors = {f"{r['hardware']['processor']}, {r['hardware']['cores']} cores" for r in records}
    days = sorted({record["measured"] for record in records})
    span = " to ".join(dict.fromkeys((days[0], days[-1])))
    return [f"Machine: {'; '.join(sorted(processors))}. {', '.join(sorted(versions))}. {span}."]


def of(records: Iterable[Record], sampler: str) -> dict[int, Record]:
    """Records of one sampler by seed."""
    return {record["seed"]: record for record in records if record["sampler"] == sampler}


def results(records: Sequence[Record], methods: Mapping[str, Any]) -> list[str]:
    """Table of one posterior: means over the seeds."""
    head = ["sampler", "seeds", "R-hat", "effective number", "a CPU second", "a wall second"]
    head += ["ours / it, CPU", "a 1,000 gradients", "CPU ms a gradient"]
    ours, rows = of(records, OURS), []
    for name, method in methods.items():
        own = list(of(records, name).values())
        if not own:
            continue
        if own[0]["settings"]["samples"] < LEAST_SAMPLES:
            few = f"{method.title} ({own[0]['settings']['samples']} draws only)"
            cost = spread(own, "cpu_ms_per_gradient", 3)
            rows.append([few, str(len(own)), *["–"] * (len(head) - 3), cost])
            continue
        cells = [method.title, str(len(own)), spread(own, "r_hat", 3), spread(own, "least_ess", 0)]
        cells += [spread(own, key, 2) for key in ("ess_per_cpu_s", "ess_per_wall_s")]
        ratio = ratios(ours, of(records, name), "ess_per_cpu_s")
        cells += [f"{median(ratio):.1f}" if ratio and name != OURS else "–"]
        cells += [spread(own, key, 3) for key in ("ess_per_1000_gradients", "cpu_ms_per_gradient")]
        rows.append(cells)
    return [
        "Mean over the seeds, with the least and the largest in brackets; the ratio is the median"
        " over the seeds that both have.\n",
        *table(head, rows),
    ]


def spread(records: Sequence[Record], key: str, digits: int) -> str:
    values = [record[key] for record in records]
    text = f"{mean(values):.{digits}f}"
    if len(values) < 2:
        return text
    return f"{text} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def ratios(ours: dict[int, Record], theirs: dict[int, Record], key: str) -> list[float]:
    """Ours over theirs, seed by seed."""
    return [ours[seed][key] / theirs[seed][key] for seed in sorted(ours.keys() & theirs.keys())]


def verdicts(
    records: Sequence[Record], posteriors: Mapping[str, Any], methods: Mapping[str, Any]
) -> list[str]:
    """One line a posterior: how far ahead of the best peer on the posterior of all weights."""
    lines = []
    for name, posterior in posteriors.items():
        own = [record for record in records if record["posterior"] == name]
        ours = of(own, OURS)
        peers = [m for m in methods if not m.startswith(OURS)]
        for unit, kind in (("ess_per_cpu_s", "CPU"), ("ess_per_wall_s", "wall")):
            factors = {
                peer: median(found)
                for peer in peers
                if methods[peer].dtype == "float64" and (found := ratios(ours, of(own, peer), unit))
            }
            plain = {p: f for p, f in factors.items() if not methods[p].collapsed}
            if not plain:
                continue
            best = min(plain, key=plain.__getitem__)
            word = "met" if plain[best] >= TARGET else "not met"
            count = _seeds(ours, of(own, best))
            line = (
                f"- {posterior.title}, a {kind} second: {plain[best]:.1f} times the effective draws"
                f" of the best peer, {methods[best].title} ({count});"
                f" the target of {TARGET:g} times is {word}."
            )
            same = [p for p in factors if methods[p].collapsed]
            line += "".join(
                f" Against {methods[p].title[0].upper()}{methods[p].title[1:]}: {factors[p]:.1f}."
                for p in same
            )
            plain_ours = ratios(of(own, ALL_WEIGHTS), of(own, best), unit)
            if plain_ours:
                line += f" Our sampler on all weights has {median(plain_ours):.2f} times as many."
            lines.append(line)
    return lines


def _seeds(ours: dict[int, Record], theirs: dict[int, Record]) -> str:
    count = len(ours.keys() & theirs.keys())
    return "one seed" if count == 1 else f"median of {count} seeds"


def failures(records: Sequence[Record], methods: Mapping[str, Any]) -> list[str]:
    failed = [record for record in records if "failed" in record]
    if not failed:
        return []
    lines = [
        f"- {r['posterior']}, seed {r['seed']}, {methods[r['sampler']].title}: {r['failed']}"
        for r in failed
    ]
    return ["\n## Runs without an answer\n", *lines]


def ensemble_section(records: Sequence[Record]) -> list[str]:
    """Ten networks against one."""
    head = ["what", "rows", "threads", "one, CPU s", "ten, CPU s", "ratio, CPU", "ratio, wall"]
    rows = [
        [r["kind"], str(r["rows"]), str(r["threads"])]
        + [f"{r[key]:.3f}" for key in ("one_cpu_s", "many_cpu_s")]
        + [f"{r[key]:.2f}" for key in ("ratio_cpu_s", "ratio_wall_s")]
        for r in sorted(records, key=lambda r: (r["kind"], r["rows"], r["threads"]))
    ]
    steps = {(r["steps"], r["repeats"]) for r in records}
    said = "; ".join(f"{s} steps, median of {k} alternating pairs" for s, k in sorted(steps))
    above = [r for r in records if r["ratio_cpu_s"] > 2.0]
    verdict = (
        f"The ratio of CPU times is above 2 in {len(above)} of {len(records)} cases: ten"
        " networks do not come at twice the time of one."
        if above
        else "The ratio of CPU times is at most 2 in all cases."
    )
    return [
        "\n## Ten networks against one\n",
        "`benchmarks/ensemble.py` trains 1 and 10 networks of a `DeepEnsemble` (width 64, two"
        f" hidden layers, SOAP) for the same number of steps: {said}."
        ' "Networks" is the stack alone;'
        ' "whole fit" is a `DeepEnsemble` of 1 or 10 members with its cross-validation, whose'
        " networks on folds both have.\n",
        *table(head, rows),
        "",
        f"{verdict} {_ENSEMBLE}",
    ]


_ENSEMBLE = """Stacking saves what a step costs whatever the size of its tensors: Python, dispatch
and small kernels. The arithmetic itself is ten times that of one network, and the eigenvectors of
SOAP's preconditioners are found matrix by matrix. The arithmetic shows already at 150 rows, so the
ratio grows with the rows in a batch towards ten."""
