"""An equation and its settings, as they are given on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.core.simulator import FieldSimulator


def simulator_of(
    equation: str, settings: list[str]
) -> tuple[FieldSimulator, dict[str, tuple[float, float]]]:
    """Simulator of an equation, and ranges of its inputs, from settings ``name=value``."""
    from understudy.simulate.pde.named import named

    pairs = [_pair(text) for text in settings]
    dimensions = named(equation).space
    options = {name: _value(text) for name, text in pairs if name not in dimensions}
    ranges = {name: _range(name, text) for name, text in pairs if name in dimensions}
    return named(equation, **options), ranges


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise UserError(f"--set is NAME=VALUE or NAME=LOW:HIGH, found {text!r}")
    return name.strip(), value.strip()


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _range(name: str, text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        return float(low), float(high if colon else low)
    except ValueError:
        raise UserError(f"--set {name}: expected a number or LOW:HIGH, found {text!r}") from None
