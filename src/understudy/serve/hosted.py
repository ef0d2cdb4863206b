"""A surrogate that is served: what it is, and its answers."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from understudy.core import warp
from understudy.core.errors import UserError
from understudy.core.space import Categorical, Space
from understudy.models.tabular.fitted import FittedSurrogate, load
from understudy.serve.batching import Arrays, Batcher
from understudy.serve.limits import Limits

if TYPE_CHECKING:
    from understudy.serve.graphs.faster import FasterGraph

MIXTURE = "mixture"
"""Key of predictions that are whole distributions; others are tuples of interval levels."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCORES = ("split", "rows", "r2", "rmse", "nlpd", "crps", "coverage_90")


class HostedModel:
    """A surrogate with the thread that predicts for it.

    Parameters
    ----------
    name : str
        In addresses.
    surrogate : FittedSurrogate
    limits : Limits
    observe : callable
        Told of the rows of each batch.
    path : Path, optional
        Its file.

    Attributes
    ----------
    graph : FasterGraph or None
        Predicts in place of the surrogate where it is faster.
    """

    def __init__(
        self,
        name: str,
        surrogate: FittedSurrogate,
        limits: Limits,
        observe: Callable[[int], None] = lambda rows: None,
        path: Path | None = None,
    ) -> None:
        self.name, self.surrogate, self._limits = name, surrogate, limits
        self._observe = observe
        self.path, self.graph = path, cast("FasterGraph | None", None)
        self.batcher = Batcher(self._compute, limits.batch_rows, limits.batch_seconds, observe)
        self._sensitivities: dict[tuple[int, int], list[dict[str, Any]]] = {}
        self._analysing = threading.Lock()

    @property
    def space(self) -> Space:
        """Inputs."""
        return self.surrogate.space

    def _compute(self, key: Hashable, X: NDArray[np.float64]) -> Arrays:
        if key == MIXTURE:
            return self._mixture(X)
        levels, graph = cast("tuple[float, ...]", key), self.graph
        if graph is not None and graph.suits(len(X), levels):
            return graph.columns(X, levels)
        return self.surrogate.columns(X, levels)

    def at_once(self, levels: tuple[float, ...], X: NDArray[np.float64]) -> Arrays | None:
        """Predictions that take less time than to hand them over to the batcher; else None."""
        graph = self.graph
        if graph is None or len(X) > graph.quick or not graph.suits(len(X), levels):
            return None
        self._observe(len(X))
        return graph.columns(X, levels)

    def _mixture(self, X: NDArray[np.float64]) -> Arrays:
        """Components of the distribution of (transformed) outputs, (n, K, m) each."""
        base = self.surrogate.predictive(X).base
        weight = base.weight.expand(base.loc.shape)
        parts = {"loc": base.loc, "scale": base.scale, "weight": weight}
        return {name: part.transpose(0, 1).numpy() for name, part in parts.items()}

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the service says of it: inputs, outputs, scores on rows it has not learnt from."""
        surrogate = self.surrogate
        evaluation = surrogate.evaluation
        split = "test" if (evaluation["split"] == "test").any() else "cross-validation"
        scores = evaluation[evaluation["split"] == split]
        outputs = []
        for target, each in zip(surrogate.targets, surrogate.warps, strict=True):
            rows = scores[scores["target"] == target].to_dict("records")
            chosen = {key: plain(row[key]) for row in rows[:1] for key in _SCORES if key in row}
            outputs.append({"name": target, "transform": warp.to_json(each), "scores": chosen})
        return {
            "name": self.name,
            "inputs": [_input(item) for item in self.space],
            "outputs": outputs,
            "members": [name for name, _ in surrogate.members_],
            "one_dimensional": surrogate.one_dimensional,
            "rows": plain(surrogate.settings.get("rows")),
            "created": plain(surrogate.settings.get("created")),
        }

    @property
    def example(self) -> dict[str, Any]:
        """A row at the middle of the inputs' ranges."""
        centre = self.space.from_unit(_middle(len(self.space))).numpy()
        return {str(k): plain(v) for k, v in self.space.decode(centre).iloc[0].items()}

    def sensitivity(self, samples: int, seed: int) -> list[dict[str, Any]]:
        """Sobol indices of each output and input, computed once for each number and seed."""
        with self._analysing:
            found = self._sensitivities.get((samples, seed))
            if found is None:
                table = self.surrogate.sensitivity(n=samples, seed=seed)
                rows = table.to_dict("records")
                found = [{str(k): plain(v) for k, v in row.items()} for row in rows]
                if len(self._sensitivities) < 64:
                    self._sensitivities[samples, seed] = found
            return found

    def close(self) -> None:
        """End its thread."""
        self.batcher.close()


def load_models(
    paths: Sequence[Path], limits: Limits, observe: Callable[[str, int], None]
) -> dict[str, HostedModel]:
    """Read surrogates from ``.us`` files, to be served under the files' names.

    Raises
    ------
    UserError
        A file that is damaged, hostile or holds no surrogate of a table; a name that cannot be
        part of an address, or that two files share.
    """
    models: dict[str, HostedModel] = {}
    files = served_names(paths)
    surrogates = {name: load(path) for name, path in files.items()}
    for name, surrogate in surrogates.items():
        models[name] = HostedModel(name, surrogate, limits, partial(observe, name), files[name])
    return models


def served_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by the names under which they are served; those that cannot be are refused."""
    return {_name(path, paths): path for path in paths}


def plain(value: Any) -> Any:
    """A cell of a table as JSON takes it; numbers that are not finite become None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _name(path: Path, paths: Sequence[Path]) -> str:
    name = path.stem
    if _NAME.fullmatch(name) is None:
        raise UserError(
            f"{path} cannot be served as {name!r}: a name has up to 64 letters, digits, "
            "dots, - and _; rename the file"
        )
    if sum(other.stem == name for other in paths) > 1:
        raise UserError(f"two files would be served as {name!r}; rename one of them")
    return name


def _input(item: Any) -> dict[str, Any]:
    head = {"name": item.name, "kind": item.kind}
    if isinstance(item, Categorical):
        return {**head, "choices": list(item.choices)}
    log = {"log": item.log} if item.kind == "continuous" else {}
    return {**head, "lower": item.lower, "upper": item.upper, "unit": item.unit, **log}


def _middle(d: int) -> Any:
    import torch

    return torch.full((1, d), 0.5, dtype=torch.float64)
