"""``understudy show``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        "sound-operator": _show_sound,
        "prose": _show_prose,
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

    operator: Any = load_operator(path)
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
    errors = getattr(operator, "test_errors", None)
    if errors is not None:
        record["error_of_first_step"], record["error_of_last_step"] = errors[0], errors[-1]
    if json:
        more = {"test_errors": errors, "network_settings": described["settings"]}
        print_json({"file": str(path), **record, **more})
        return
    print_file(path)
    for name, value in record.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        if value is not None:
            said = f"{value:.4g}" if isinstance(value, float) else value
            say(f"  {name.replace('_', ' ')}: {said}")


def _show_sound(path: Path, json: bool) -> None:
    from dataclasses import asdict

    from understudy.cli.console import print_json, say
    from understudy.cli.summary import print_file
    from understudy.models.operators.sound import SoundOperator

    operator = SoundOperator.load(path)
    settings = operator.settings
    (x0, y0), (x1, y1) = operator.room.bounds
    record: dict[str, object] = {
        "operator": operator.model,
        "weights": operator.weights,
        "room": f"{len(operator.room.sides)} walls, {operator.room.area:.4g} m2 of air, "
        f"from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) m",
        "highest_frequency": f"{operator.pulse.f_max:g} Hz",
        "duration": f"{float(operator.times[-1]):.4g} s",
        "sources": f"at least {operator.clearance:.3g} m from walls",
        "parts": settings.parts[0] * settings.parts[1],
    }
    if json:
        facts = {
            **{"operator": operator.model, "weights": operator.weights},
            **{"room": operator.room.describe(), "f_max": operator.pulse.f_max},
            **{"duration": float(operator.times[-1]), "clearance": operator.clearance},
        }
        print_json({"file": str(path), **facts, "network_settings": asdict(settings)})
        return
    print_file(path)
    for name, value in record.items():
        say(f"  {name.replace('_', ' ')}: {value}")


def _show_prose(path: Path, json: bool) -> None:
    from understudy.cli.console import print_json, say
    from understudy.cli.summary import print_file
    from understudy.models.operators.prose import PROSE

    model = PROSE.load(path)
    sizes = model.network.architecture
    layers = {
        **{
            "data": sizes.data_layers,
            "symbols": sizes.symbol_layers,
            "fusion": sizes.fusion_layers,
        },
        "solution": sizes.data_decoder_layers,
        "equation": sizes.symbol_decoder_layers,
    }
    record: dict[str, object] = {
        "operator": model.model,
        "variant": sizes.variant,
        "weights": sum(p.numel() for p in model.network.parameters()),
        "width": sizes.width,
        "layers": ", ".join(f"{count} {name}" for name, count in layers.items()),
        "components": f"at most {sizes.max_dim}",
        "guesses": "with numbers" if model.guess == "numbers" else "without numbers",
        "samples": " or ".join(map(str, dict.fromkeys(model.given))) or "not trained",
        "times": f"{model.span[0]:g} to {model.span[1]:g}",
    }
    if json:
        described = model.network.describe()
        facts = {"given": list(model.given), "span": list(model.span), "trees": list(model.trees)}
        head = {name: record[name] for name in ("operator", "variant", "weights")}
        print_json({"file": str(path), **head, **facts, "network_settings": described})
        return
    print_file(path)
    for name, value in record.items():
        say(f"  {name}: {value}")
    for tree in model.trees:
        say(f"  trained on: {tree}")


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
