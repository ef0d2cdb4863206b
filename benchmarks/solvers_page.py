"""``docs/benchmarks-solvers.md`` from the records of `solvers.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tables import markdown

Record = dict[str, Any]
OURS = "understudy"
TITLES = {OURS: "understudy", "exponax": "exponax", "jax-cfd": "jax-cfd", "scipy": "scipy"}
TITLES |= {"py-pde": "py-pde", "stepping": "understudy, general steps"}
OWN = (OURS, "stepping")
ORDER = ("ks", "burgers", "fisher", "kolmogorov", "advection", "heat1d")
ORDER += tuple(f"{name}-512" for name in ORDER[:3])

_HEAD = """# Benchmarks of solvers

<!-- Written by `python benchmarks/solvers.py page`; change benchmarks/solvers_page.py, not this file. -->

How long our solvers of differential equations take for a batch of runs at **equal error**, against public Python solvers.
Every solver's step, tolerance, grid and precision is swept; what counts is the time at which a relative L2 error of all
runs together is reached, interpolated between the two neighbouring settings of the fastest family (linear in the logarithms).
Solvers that were found so are then timed in turns, round after round, each for as many calls as fit into 20 ms (1 to 20, of which the
least counts, as other work interrupts), and ratios are medians over rounds. Those more than ten times slower than the fastest were not timed again when ours changed.

Starts are given and a run is from start to end without outputs between. Making ready and compiling is not counted for anyone, and is given
beside it. What our simulators do at each call, checks of the parameters and the functions of the exponential that are not kept, is counted; what
exponax and jax-cfd compute before the first step is part of making them ready and is not.
"""  # noqa: E501

_NOTES = """
## What is compared

- **understudy**: `understudy.simulate.pde` through its public interface (`stream`), with the options that are the fastest: closed
  forms of heat, advection and Burgers (`scheme="exact"`, Cole and Hopf), extrapolated splitting of Fisher-KPP (`scheme="splitting"`), and else
  what a sweep of `scheme` (ETDRK4 or the Adams predictor-corrector) and `precision` found. Fields are given in float32.
- **understudy, general steps**: the same without what only one equation allows, that is, methods of the peers' kind. Kuramoto-Sivashinsky
  and flow have nothing else.
- **exponax**: ETDRK4 of its own, compiled by XLA, all runs by `vmap`, steps repeated in Fourier modes; float32 or float64.
- **jax-cfd**: its spectral equations with Crank-Nicolson and RK4, compiled by XLA, all runs by `vmap`; it has
  Kuramoto-Sivashinsky and flow of these.
- **scipy**: `solve_ivp` with RK45, DOP853, LSODA, BDF or Radau, over modes or differences written for it in this repository
  (`benchmarks/peers/solve_scipy.py`) with `scipy.fft`.
- **py-pde**: central differences and its adaptive Runge-Kutta method, compiled by Numba, one run after the other. Its walls
  are compiled in, so that the runs of heat would be compiled one by one; it was not measured there.
- No public package that we know has a closed form of Burgers' equation or a splitting of Fisher-KPP ready; users of any could write them.
- PhiFlow and Dedalus did not install within five minutes on the busy machine, and are not here. No peer that installs has shallow water or
  compressible flow, so ours are not compared.

Errors are those at the nodes of a coarse grid that all grids contain. The truth is a closed form for heat and advection, and else
exponax in float64 on a finer grid and with far shorter steps than any that is timed; the table says how far a fine run of ours is from it.
"""  # noqa: E501

_READING = """
## How to read these tables

- Other work ran on both cores while these were measured (a load of {load}), so that **processor time** is what to go by; wall times are
  the least of the rounds and an indication, no more. With two threads spinning threads count as well. They were measured with the settings that
  one thread found, and flow not at all. Ours computes batches of fewer than 32,768 numbers on one thread whatever it is allowed.
- **How many runs**: 32 runs of 100 points are what one starts with; training sets of operators are hundreds or thousands of runs, for which the
  first three problems were repeated with 512. Only solvers that take all runs at once took part. The start of Fisher-KPP is flatter
  there, since some of 512 would be negative and grow without bound.
- **Two kinds of gain**: Burgers and Fisher-KPP are ahead by what is particular to them, a closed form and parts in closed form, which
  cost one step where ETDRK4 takes 10 to 100; "general steps" shows what is left without. Kuramoto-Sivashinsky is ahead by a cheaper step:
  transforms as small real matrices instead of fast transforms of complex numbers, sums over stacks of arrays in NumPy, and two evaluations a
  step (Adams) in place of four. On 96 points and 32 runs in single precision an evaluation costs 12 microseconds so, and a pair of fast
  transforms alone, called through PyTorch, 19.
- **General steps of Burgers and Fisher-KPP stay behind** exponax; the last lines of the first table say how far. Our simulators refuse steps with which a mode that the fastest flow carries everywhere
  would grow (Burgers, flow). That is on the safe side: exponax takes 40 steps of Burgers where we take 56, and is right, as the flow is fastest
  in few places. Adams methods bear about half of the step of ETDRK4 and do not help there. Setting up steps (functions of the exponential,
  checks) takes us half a millisecond to a millisecond at each call, which for Fisher-KPP is most of it; exponax does it before, where it is not counted.
  What Fisher-KPP's splitting and advection prepare is kept for the next call with the same parameters.
- Flow, and Kuramoto-Sivashinsky with 512 runs, were measured before the changes of the others, each call of a turn by itself; the step of the second has
  become cheaper since.
- "Not reached" says that no setting which was swept reaches the error; runs of more than two seconds of processor time were not refined
  further, and jax-cfd had one grid in each precision. Grids are multiples of the coarse one, which is coarse for interpolation: on 64 points the
  error of flow is 9e-4 for ours and jax-cfd's and 1.2e-3 for exponax's, whose time at 1e-3 is therefore that of 96 points (on equal grids and
  with equal steps of ETDRK4 its step in float32 costs as much as ours in single precision, and in float64 two thirds of ours). No solver was given
  the grid that flow needs at 1e-6.
- py-pde and scipy's implicit methods take one run after the other; on one run instead of a batch the distances are smaller.
"""  # noqa: E501


def write(path: Path, records: Sequence[Record]) -> None:
    """Write the page of all records."""
    path.write_text("\n".join(parts(records)).rstrip() + "\n", encoding="utf-8")


def parts(records: Sequence[Record]) -> Iterator[str]:
    ordered = sorted(records, key=lambda r: (ORDER.index(r["problem"]), r["hardware"]["threads"]))
    yield _HEAD
    yield machine(ordered)
    yield "\n## Verdict\n"
    yield from verdicts(ordered)
    for name in dict.fromkeys(r["problem"] for r in ordered):
        own = [record for record in ordered if record["problem"] == name]
        first = own[0]
        yield f"\n## {first['title']}\n"
        yield f"{first['equation']}; {first['runs']} runs.{agreement(first)}"
        for record in own:
            threads = record["hardware"]["threads"]
            yield f"\n**{'One thread' if threads == 1 else f'{threads} threads'}**\n"
            yield results(record)
    yield _NOTES
    loads = sorted(r["load"] for r in ordered)
    yield _READING.format(load=f"{loads[0]:.0f} to {loads[-1]:.0f}")


def machine(records: Sequence[Record]) -> str:
    """Processor, versions, load and dates."""
    found = {f"{r['hardware']['processor']}, {r['hardware']['cores']} cores" for r in records}
    versions = {
        f"{p} {v}" for r in records for own in r["versions"].values() for p, v in own.items()
    }
    days = sorted({r["measured"] for r in records})
    loads = sorted(r["load"] for r in records)
    load = f"{loads[0]:.0f} to {loads[-1]:.0f}"
    return (
        f"Machine: {'; '.join(sorted(found))}, a load of {load} meanwhile. "
        f"{', '.join(sorted(versions))}. {' to '.join(dict.fromkeys((days[0], days[-1])))}."
    )


def agreement(record: Record) -> str:
    if record["agreement"] is None:
        return ""
    closed = record["problem"] in ("advection", "heat1d")
    what = "A fine run of ours is" if closed else "Ours on half the grid of the truth is"
    return f" {what} {record['agreement']:.0e} from the truth."


def ratio(own: Record, other: Record, key: str) -> float:
    """Theirs over ours, median over the rounds that both have."""
    return median(b / a for a, b in zip(own[key], other[key], strict=False))


def verdicts(records: Sequence[Record]) -> Iterator[str]:
    """One table of the fastest peer's time over ours, by problem, error and threads."""
    lines = [verdict(record, OURS) for record in records]
    lines += [verdict(r, "stepping") for r in records if "stepping" in r["solvers"]]
    targets = [f"error {float(t):.0e}" for t in records[0]["targets"]]
    yield ("Processor time of the fastest peer over ours; **above 1 we are ahead**.\n")
    yield markdown(["", "threads", *targets], lines)


def verdict(record: Record, name: str) -> list[str]:
    """Line of a problem: the fastest peer's processor time over that of ours of a name."""
    kind = "" if name == OURS else ", general steps"
    cells = [record["title"] + kind, str(record["hardware"]["threads"])]
    for found in record["targets"].values():
        own = found.get(name)
        factors = {p: ratio(own, f, "cpu_s") for p, f in found.items() if own and p not in OWN}
        best = min(factors, key=factors.__getitem__, default=None)
        only = "not reached by others" if own else "not reached"
        cells.append(only if best is None else f"{factors[best]:.2f} ({TITLES[best]})")
    return cells


def results(record: Record) -> str:
    """Table of one problem: times, ratios and settings at each error."""
    head = ["error", "solver", "CPU ms", "wall ms", "theirs / ours", "making ready, s", "settings"]
    key, lines = "cpu_s", []
    for target, found in record["targets"].items():
        for peer in record["versions"]:
            if peer not in found:
                if peer in record["solvers"]:
                    lines.append([target, TITLES[peer], "not reached", "", "", "", ""])
                continue
            times = found[peer]
            cells = [target, TITLES[peer]]
            cells += [f"{1e3 * median(times['cpu_s']):.2f}", f"{1e3 * min(times['wall_s']):.2f}"]
            own = found.get(OURS)
            cells.append(f"{ratio(own, times, key):.2f}" if own and peer != OURS else "–")
            cells += [f"{times['first_s']:.2f}", settings(times)]
            lines.append(cells)
    return markdown(head, lines)


def settings(times: Record) -> str:
    """The finer of the two settings, and its error."""
    words = {"points": "{} points", "steps": "{} steps", "rtol": "rtol {:g}"}
    last = times["settings"][-1]
    said = ", ".join(words.get(k, "{}").format(v) for k, v in last.items())
    return f"{said} ({times['errors'][-1]:.0e})"
