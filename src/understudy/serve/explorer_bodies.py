"""Bodies of the requests that the Explorer makes, as pydantic checks them and OpenAPI describes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from understudy.serve.search_body import ConstraintBody, Value

_Name = Annotated[str, Field(max_length=1000)]
Level = Annotated[float, Field(gt=0.0, lt=1.0, description="Coverage of the intervals.")]
Point = Annotated[dict[_Name, Value], Field(description="A value of every input.")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SlicesBody(_Strict):
    """A point, and lines through it along inputs."""

    at: Point
    inputs: list[_Name] | None = Field(None, description="To slice along; all by default.")
    outputs: list[_Name] | None = Field(None, description="Of the slices; all by default.")
    points: int = Field(41, ge=2, le=201, description="Of each slice.")
    level: Level = 0.9


class MapBody(_Strict):
    """A plane through a point along two inputs."""

    at: Point
    x: _Name
    y: _Name
    output: _Name
    points: int = Field(41, ge=2, le=81, description="Of each input.")
    level: Level = 0.9


class RegionBody(_Strict):
    """Part of the inputs' ranges."""

    bounds: dict[_Name, list[Value]] = Field(
        default_factory=dict,
        description="[lower, upper] of an input within its range, or some of its choices.",
    )
    fixed: dict[_Name, Value] = Field(default_factory=dict, description="Values of inputs.")
    seed: int = Field(0, ge=0, lt=2**31)


class DoubtBody(RegionBody):
    """Where intervals are widest."""

    points: int = Field(5, ge=1, le=20, description="Widest points of each output.")
    level: Level = 0.9


class InvertBody(RegionBody):
    """Which inputs give a value of an output."""

    output: _Name
    target: FiniteFloat
    tolerance: Annotated[FiniteFloat, Field(gt=0.0)] | None = Field(
        None, description="How far from the target still counts; by default 2 % of the runs' range."
    )
    constraints: list[ConstraintBody] = Field(default_factory=list, max_length=16)
    points: int = Field(5, ge=1, le=20, description="Different answers at most.")
    level: Level = 0.9
