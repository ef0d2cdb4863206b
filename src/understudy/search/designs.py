"""Searchers that do not learn: independent draws and scrambled Sobol sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from understudy.core.search import Config, Searcher
from understudy.core.space import Space

_LOOK_AHEAD = 512  # points passed over, at most, to find one that was not run


def configs_of(table: pd.DataFrame) -> list[Config]:
    """Rows of a table as configurations of plain Python values."""
    columns: dict[str, list[Any]] = {str(name): table[name].tolist() for name in table.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def key_of(config: Config) -> tuple[Any, ...]:
    """What two equal configurations share, whatever the order of their names."""
    return tuple(config[name] for name in sorted(config))


def sobol(space: Space, first: int, n: int, seed: int) -> list[Config]:
    """Points ``first`` to ``first + n - 1`` of a scrambled Sobol sequence over a space."""
    return configs_of(space.sample(first + n, seed, "sobol").iloc[first:])


def unseen(candidates: list[Config], n: int, seen: set[tuple[Any, ...]]) -> list[Config]:
    """The first n candidates that are new, then the first of the others where these run out."""
    new: list[Config] = []
    old: list[Config] = []
    taken = set(seen)
    for config in candidates:
        (old if key_of(config) in taken else new).append(config)
        taken.add(key_of(config))
    return (new + old)[:n]


def design(searcher: Searcher, first: int, n: int) -> list[Config]:
    """Points of a searcher's Sobol sequence from one on, passing over those that it knows.

    Parameters
    ----------
    searcher : Searcher
    first : int
        Place in the sequence, from 0.
    n : int
    """
    space, seed = searcher.problem.space, searcher.seed
    seen = {key_of(o.config) for o in searcher.observations} | set(map(key_of, searcher.pending))
    candidates = sobol(space, first, n, seed)
    if len(seen.union(map(key_of, candidates))) < len(seen) + n:
        candidates += sobol(space, first + n, _LOOK_AHEAD, seed)
    return unseen(candidates, n, seen)


class RandomSearcher(Searcher):
    """Independent uniform draws: the baseline of every search.

    Draws may repeat one another where all inputs are discrete.
    """

    def propose(self, n: int) -> list[Config]:
        """Return n independent draws."""
        at = len(self.observations) + len(self.pending)
        stream = np.random.SeedSequence([self.seed, at]).generate_state(1)[0]
        return configs_of(self.problem.space.sample(n, int(stream), "random"))


class SobolSearcher(Searcher):
    """The next points of one scrambled Sobol sequence, without those that were run.

    A point is passed over only where all inputs are discrete and it came up before; once every
    point was run, points repeat.
    """

    def propose(self, n: int) -> list[Config]:
        """Return the next n points of the sequence."""
        return design(self, len(self.observations) + len(self.pending), n)
