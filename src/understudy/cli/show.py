"""``understudy show``."""

from __future__ import annotations

from pathlib import Path

from understudy.cli.options import Json, Model, readable

EXAMPLE = "[bold]Example[/]\n\nunderstudy show wing.us"


def show(model: Model, json: Json = False) -> None:
    """Say what is inside a .us file: inputs, models, scores."""
    model = readable(model)
    import understudy
    from understudy.cli import summary
    from understudy.cli.console import print_json, print_table, say

    kind = _kind(model)
    others = {
        "operator": _show_operator,
        "proximal-network": _show_prior,
        "linear solver": _show_solver,
    }
    if kind in others:
        others[kind](model, json)
        return
    surrogate = understudy.load(model)
    if json:
        print_json({"file": str(model), **summary.as_json(surrogate)})
        return
    summary.print_file(model)
    settings = surrogate.settings
    for key in ("source", "rows", "created", "metric", "budget", "seconds", "seed"):
        if key in settings:
            say(f"  {key}: {settings[key]}")
    rows = [{**row, "range": _range(row), "kind": row["kind"]} for row in summary.inputs(surrogate)]
    say()
    columns = {"name": "input", "kind": "kind", "range": "range"}
    print_table(rows, columns, left=("name", "kind", "range"))
    summary.print_leaderboard(surrogate)
    summary.print_scores(surrogate)
    summary.print_notes(surrogate)


def _kind(path: Path) -> str:
    from understudy.core import artifact

    return str(artifact.read(path).manifest["kind"])


def _show_operator(path: Path, json: bool) -> None:
    from understudy import load_operator
    from understudy.cli.console import print_json, say
    from understudy.cli.summary import print_file

    operator = load_operator(path)
    described = operator.network.describe()
    record: dict[str, object] = {
        "operator": operator.model,
        "network": described["kind"],
        "weights": sum(p.numel() for p in operator.network.parameters()),
        "inputs": list(operator.inputs),
        "outputs": list(operator.outputs),
        "parameters": list(operator.parameters),
        "grid": list(operator.grid.shape),
        "placement": operator.grid.placement,
        "time_step": getattr(operator, "dt", None),
    }
    if json:
        print_json({"file": str(path), **record, "network_settings": described["settings"]})
        return
    print_file(path)
    for name, value in record.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        if value is not None:
            say(f"  {name.replace('_', ' ')}: {value}")


def _show_prior(path: Path, json: bool) -> None:
    from understudy.cli.console import print_json, say
    from understudy.cli.summary import print_file
    from understudy.core import artifact
    from understudy.models.inverse.lpn import LearnedProximalNetwork

    lpn = LearnedProximalNetwork.load(path)
    record: dict[str, object] = {
        "network": lpn.network.kind,
        "weights": sum(p.numel() for p in lpn.parameters()),
        "shape": list(lpn.shape),
        "sigma": lpn.sigma,
        **artifact.read(path).manifest["facts"],
    }
    if json:
        print_json({"file": str(path), **record, "network_settings": lpn.network.settings})
        return
    print_file(path)
    for name, value in record.items():
        text = " x ".join(map(str, value)) if isinstance(value, list) else value
        say(f"  {name.replace('_', ' ')}: {text}")


def _show_solver(path: Path, json: bool) -> None:
    from understudy import load_solver
    from understudy.cli.console import print_json, say
    from understudy.cli.summary import print_file

    solver = load_solver(path)
    facts = {name: value for name, value in solver.facts.items() if name != "log"}
    weights = sum(p.numel() for p in solver.model.parameters())  # type: ignore[attr-defined]
    record = {"q": solver.q, "weights": weights, **facts, "grid": list(solver.grid_shape or ())}
    if json:
        print_json({"file": str(path), **record})
        return
    print_file(path)
    names = {"loss": "held-out loss", "reason": "ended by"}
    for name, value in record.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "any"
        say(f"  {names.get(name, name.replace('_', ' '))}: {value}")


def _range(row: dict[str, object]) -> str:
    if "choices" in row:
        return ", ".join(map(str, row["choices"]))  # type: ignore[call-overload]
    return f"{row['lower']:.6g} to {row['upper']:.6g}"
