"""A claim of a paper, what was measured of it, and whether it holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any, Literal, Self


class Scale(StrEnum):
    """How much is spent on a reproduction, in rising order."""

    SMOKE = "smoke"
    """Seconds: shows that the path runs, says nothing of the claim."""
    CPU = "cpu"
    """At most ten minutes on two cores: reduced, but the claim is meaningful."""
    PAPER = "paper"
    """The paper's full configuration, on a GPU or a cluster."""

    @property
    def rank(self) -> int:
        """0 for smoke, 1 for cpu, 2 for paper."""
        return list(type(self)).index(self)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of a paper beside the measurement that bears it out or does not.

    A claim holds when ``measured`` is finite and, with its ``direction``, at least or at most
    ``bar``. This is computed; it cannot be passed in. For a claim of a range, measure the
    distance from its middle.

    Parameters
    ----------
    statement : str
        What the paper says, in one sentence.
    paper_figure : str
        Where it says so, with the paper's number, such as ``"Fig. 4a: gap below 0.05 nat"``.
    metric : str
        What was measured, with its unit.
    bar : float
        The value to reach at this scale.
    direction : {"at least", "at most"}
        On which side of the bar the claim holds.
    measured : float
        The value reached, averaged over ``seeds``.
    seeds : tuple of int
        Seeds that were run.
    spread : float
        Sample standard deviation over the seeds; NaN where there is one only.
    reason : str
        Why it falls short, or what limits it where it holds. A claim that does not hold always
        has one: the shortfall in numbers, followed by what is given here.
    """

    statement: str
    paper_figure: str
    metric: str
    bar: float
    direction: Literal["at least", "at most"]
    measured: float
    seeds: tuple[int, ...]
    spread: float = math.nan
    reason: str = ""
    holds: bool = field(init=False)

    def __post_init__(self) -> None:
        for name in ("bar", "measured", "spread"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))
        self._check()
        shortfall = self._shortfall()
        object.__setattr__(self, "holds", not shortfall)
        if not self.reason.startswith(shortfall):
            object.__setattr__(self, "reason", "; ".join(filter(None, (shortfall, self.reason))))

    def _check(self) -> None:
        if self.direction not in ("at least", "at most"):
            raise ValueError(f"direction is 'at least' or 'at most', not {self.direction!r}")
        if not math.isfinite(self.bar):
            raise ValueError(f"the bar of {self.metric!r} must be finite, not {self.bar}")
        if not self.seeds:
            raise ValueError(f"the claim on {self.metric!r} names no seed")
        if self.spread < 0:
            raise ValueError(f"the spread of {self.metric!r} is negative: {self.spread}")

    def _shortfall(self) -> str:
        if not math.isfinite(self.measured):
            return f"the measurement is not finite ({self.measured})"
        if self.direction == "at least" and self.measured < self.bar:
            return f"measured {self.measured:.4g}, below the bar of {self.bar:.4g}"
        if self.direction == "at most" and self.measured > self.bar:
            return f"measured {self.measured:.4g}, above the bar of {self.bar:.4g}"
        return ""

    @classmethod
    def over_seeds(cls, values: Mapping[int, float], **claim: Any) -> Self:
        """Claim on the mean of one value a seed, with their sample standard deviation.

        Parameters
        ----------
        values : mapping of seed to float
            What each seed measured.
        **claim
            The other parameters of `Claim`.
        """
        measured = [float(value) for value in values.values()]
        finite = all(map(math.isfinite, measured))
        return cls(
            measured=fmean(measured) if finite else math.nan,
            spread=stdev(measured) if finite and len(measured) > 1 else math.nan,
            seeds=tuple(values),
            **claim,
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a reproduction measured, and with what.

    Parameters
    ----------
    slug : str
        The system.
    scale : Scale
        How much was spent.
    seed : int
        The seed that the reproduction was started with.
    claims : tuple of Claim
        In the order in which it states them.
    versions : mapping of str to str
        Python and the packages that the numbers depend on.
    hardware : mapping of str to str, int, float or None
        Processor, cores, threads, memory and accelerator.
    seconds : float
        Wall time of the whole run.
    """

    slug: str
    scale: Scale
    seed: int
    claims: tuple[Claim, ...]
    versions: Mapping[str, str]
    hardware: Mapping[str, str | int | float | None]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that any claim was measured over, sorted."""
        return tuple(sorted({seed for claim in self.claims for seed in claim.seeds}))

    def to_json(self) -> str:
        """Strict JSON text, the same for the same report; non-finite numbers become strings."""
        record = {
            "slug": self.slug,
            "scale": self.scale.value,
            "seed": self.seed,
            "seeds": self.seeds,
            "claims": [_finite_or_text(asdict(claim)) for claim in self.claims],
            "holds": self.holds,
            "versions": dict(self.versions),
            "hardware": dict(self.hardware),
            "seconds": self.seconds,
        }
        return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is not such a record, or says of a claim that it holds where its own numbers say
            otherwise.
        """
        record = json.loads(text)
        try:
            return cls(
                slug=record["slug"],
                scale=Scale(record["scale"]),
                seed=int(record["seed"]),
                claims=tuple(_claim(entry) for entry in record["claims"]),
                versions=record["versions"],
                hardware=record["hardware"],
                seconds=float(record["seconds"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the record of a reproduction ({error})") from error


def _claim(entry: Mapping[str, Any]) -> Claim:
    stated = entry["holds"]
    claim = Claim(**{name: value for name, value in entry.items() if name != "holds"})
    if claim.holds is not stated:
        raise ValueError(
            f"the claim {claim.statement!r} says holds: {stated}, but measured {claim.measured:.4g}"
            f" against {claim.direction} {claim.bar:.4g} says {claim.holds}"
        )
    return claim


def _finite_or_text(record: dict[str, Any]) -> dict[str, Any]:
    def text(value: Any) -> Any:
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return {name: text(value) for name, value in record.items()}
