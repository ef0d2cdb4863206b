r"""Named inputs with bounds: what a simulator takes, what a surrogate was fitted on.

A :class:`Space` translates between four descriptions of the same points:

=============  ===================  ==========================================================
description    type                 an input is
=============  ===================  ==========================================================
table          DataFrame            its own value: a number or one of the choices
codes ``X``    array ``(n, d)``     the number itself, or the index of the choice
unit cube      Tensor ``(..., d)``  :math:`(g(x) - g(l)) / (g(h) - g(l))`, :math:`g` linear or log
features       Tensor ``(..., f)``  the unit cube, with one column a choice beyond two choices
=============  ===================  ==========================================================

Rows are counted from 1 in every message, without the header.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Choice: TypeAlias = str | bool | int | float
Design: TypeAlias = Literal["sobol", "lhs", "random"]

BOUND_TOLERANCE = 1e-9  # of the unit cube: rounding on the way through a logarithm
LOG_FLOOR = 1e-6  # of the lower bound: stands for what a logarithm cannot take
TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def nearest(name: object, known: Sequence[str]) -> str:
    """Say which known name is meant, or which there are, to end a sentence with."""
    there_are = f"; there are {_listed(known)}" if known else "; there are none"
    return _suggestion(name, known) or there_are


def _suggestion(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _listed(known: Sequence[str]) -> str:
    return ", ".join(repr(k) for k in known[:8]) + (", ..." if len(known) > 8 else "")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise UserError(f"the name of an input must be text that is not empty, found {name!r}")


def _check_bounds(name: str, lower: float, upper: float) -> None:
    if not (math.isfinite(lower) and math.isfinite(upper) and math.isfinite(upper - lower)):
        raise UserError(f"input {name!r}: bounds must be finite, found {lower} and {upper}")
    if not lower < upper:
        raise UserError(f"input {name!r}: lower bound {lower} must be below upper bound {upper}")


@dataclass(frozen=True)
class Continuous:
    """A real number between two bounds.

    Parameters
    ----------
    name : str
        Column of the table.
    lower, upper : float
        Finite bounds, ``lower < upper``.
    unit : str
        Physical unit, for labels.
    log : bool
        Whether the unit cube is uniform in the logarithm; needs ``lower > 0``.
    """

    name: str
    lower: float
    upper: float
    unit: str = ""
    log: bool = False
    kind: ClassVar[str] = "continuous"

    def __post_init__(self) -> None:
        _check_name(self.name)
        object.__setattr__(self, "log", bool(self.log))
        object.__setattr__(self, "lower", float(self.lower))
        object.__setattr__(self, "upper", float(self.upper))
        _check_bounds(self.name, self.lower, self.upper)
        if self.log and self.lower <= 0:
            raise UserError(
                f"input {self.name!r}: a logarithmic scale needs a positive lower bound, "
                f"found {self.lower}"
            )


@dataclass(frozen=True)
class Integer:
    """A whole number between two bounds, both included.

    Parameters
    ----------
    name : str
        Column of the table.
    lower, upper : int
        Bounds, ``lower < upper``.
    unit : str
        Physical unit, for labels.
    """

    name: str
    lower: int
    upper: int
    unit: str = ""
    kind: ClassVar[str] = "integer"

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_bounds(self.name, float(self.lower), float(self.upper))
        for value in (self.lower, self.upper):
            if int(value) != value:
                raise UserError(f"input {self.name!r}: bounds must be whole numbers, found {value}")
        object.__setattr__(self, "lower", int(self.lower))
        object.__setattr__(self, "upper", int(self.upper))


@dataclass(frozen=True)
class Categorical:
    """One of at least two distinct choices.

    Parameters
    ----------
    name : str
        Column of the table.
    choices : tuple of str, bool, int or float
        In the order of their codes 0, 1, ....
    """

    name: str
    choices: tuple[Choice, ...]
    kind: ClassVar[str] = "categorical"

    def __post_init__(self) -> None:
        _check_name(self.name)
        choices = tuple(c.item() if isinstance(c, np.generic) else c for c in self.choices)
        object.__setattr__(self, "choices", choices)
        for choice in choices:
            if not isinstance(choice, str | bool | int | float) or choice != choice:
                raise UserError(
                    f"input {self.name!r}: a choice must be text, a truth value or a number, "
                    f"found {choice!r}"
                )
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise UserError(
                f"input {self.name!r}: needs at least two distinct choices, found {choices}"
            )

    @cached_property
    def _codes(self) -> dict[Choice, int]:
        """Code of each choice, also under the text that a file would hold for it."""
        codes: dict[Choice, int] = {str(c): code for code, c in enumerate(self.choices)}
        return codes | {choice: code for code, choice in enumerate(self.choices)}

    @cached_property
    def _words(self) -> dict[str, int]:
        """Codes of true, yes, false and no, where truth values are among the choices."""
        truths = {c: code for code, c in enumerate(self.choices) if isinstance(c, bool)}
        return {word: truths[truth] for word, truth in TRUTH.items() if truth in truths}

    def code(self, value: object) -> int | None:
        """Index of a choice, ``None`` for what is none of the choices."""
        if isinstance(value, np.generic):
            value = value.item()
        if not isinstance(value, str | bool | int | float):
            return None
        if value in self._codes:
            return self._codes[value]
        word = str(value).strip()
        return self._codes.get(word, self._words.get(word.lower()))


Input: TypeAlias = Continuous | Integer | Categorical
KINDS: dict[str, type[Input]] = {kind.kind: kind for kind in (Continuous, Integer, Categorical)}


@dataclass(frozen=True)
class Space:
    """An ordered set of named inputs.

    Parameters
    ----------
    inputs : tuple of Continuous, Integer or Categorical
        With distinct names; at least one.
    """

    inputs: tuple[Input, ...]
    _position: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if not self.inputs:
            raise UserError("a space needs at least one input, found none")
        position = {item.name: i for i, item in enumerate(self.inputs)}
        if len(position) < len(self.inputs):
            twice = next(n for i, n in enumerate(self.names) if n in self.names[:i])
            raise UserError(f"input {twice!r} is named twice; names must be distinct")
        object.__setattr__(self, "_position", position)

    @property
    def names(self) -> list[str]:
        """Names of the inputs, in order."""
        return [item.name for item in self.inputs]

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[Input]:
        return iter(self.inputs)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def __getitem__(self, name: str) -> Input:
        if name not in self._position:
            raise UserError(f"no input {name!r}{nearest(name, self.names)}")
        return self.inputs[self._position[name]]

    @property
    def bounds(self) -> Tensor:
        """Lower and upper codes, float64 ``(2, d)``; those of k choices are 0 and k - 1."""
        pairs = [
            (0, len(item.choices) - 1)
            if isinstance(item, Categorical)
            else (item.lower, item.upper)
            for item in self.inputs
        ]
        return torch.tensor(pairs, dtype=torch.float64).T.contiguous()

    # table <-> codes

    def encode(self, df: pd.DataFrame) -> NDArray[np.float64]:
        """Codes of the rows of a table.

        Parameters
        ----------
        df : DataFrame
            With a column for each input; others are ignored. Numbers may lie beyond the bounds.

        Returns
        -------
        ndarray ``(n, d)``, float64

        Raises
        ------
        UserError
            A column is missing; a cell is empty, not a finite number, or none of the choices.
        """
        for name in self.names:
            if name not in df.columns:
                raise UserError(f"column {name!r} is missing{nearest(name, list(df.columns))}")
        codes = np.empty((len(df), len(self)))
        for j, item in enumerate(self.inputs):
            codes[:, j] = encode_column(item, df[item.name])
        return codes

    def decode(self, X: NDArray[np.float64] | Tensor) -> pd.DataFrame:
        """Table of coded rows ``(n, d)``; whole numbers and choices are rounded to the nearest."""
        codes = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
        if codes.ndim != 2 or codes.shape[1] != len(self):
            raise UserError(f"expected codes of shape (n, {len(self)}), found {codes.shape}")
        columns = {
            item.name: _decode_column(item, codes[:, j]) for j, item in enumerate(self.inputs)
        }
        return pd.DataFrame(columns)

    # codes <-> unit cube

    def to_unit(self, X: Tensor) -> Tensor:
        """Unit cube of codes ``(..., d)``; differentiable, also beyond the bounds.

        On a logarithmic scale what is below 1e-6 of the lower bound counts as that.
        """
        lower, upper, log = self._scale(X)
        return (self._warp(X, lower, log) - lower) / (upper - lower)

    def from_unit(self, U: Tensor) -> Tensor:
        """Codes of points of the unit cube ``(..., d)``; differentiable, nothing is rounded."""
        lower, upper, log = self._scale(U)
        warped = lower * (1 - U) + upper * U
        if not bool(log.any()):
            return warped
        return torch.where(log, torch.where(log, warped, 0.0).exp(), warped)

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Warped lower and upper bounds and the logarithmic columns, each ``(d,)``."""
        flags = [isinstance(item, Continuous) and item.log for item in self.inputs]
        log = torch.tensor(flags, device=like.device)
        bounds = self.bounds
        bounds = torch.where(log.cpu(), torch.where(log.cpu(), bounds, 1.0).log(), bounds)
        lower, upper = bounds.to(device=like.device, dtype=like.dtype)
        return lower, upper, log

    @staticmethod
    def _warp(X: Tensor, lower: Tensor, log: Tensor) -> Tensor:
        if not bool(log.any()):
            return X
        floor = torch.where(log, lower + math.log(LOG_FLOOR), 0.0).exp()
        safe = torch.where(log, torch.maximum(X, floor), 1.0)
        return torch.where(log, safe.log(), X)

    # codes -> features

    def features(self, X: Tensor) -> Tensor:
        """Inputs of a model, ``(..., f)``: the unit cube, one-hot beyond two choices."""
        unit = self.to_unit(X)
        columns = []
        for j, item in enumerate(self.inputs):
            if isinstance(item, Categorical) and len(item.choices) > 2:
                levels = torch.arange(len(item.choices), device=X.device)
                columns.append((X[..., j : j + 1].round() == levels).to(X.dtype))
            else:
                columns.append(unit[..., j : j + 1])
        return torch.cat(columns, dim=-1)

    @property
    def feature_names(self) -> list[str]:
        """Names of the features: ``"colour=red"`` for one choice of several."""
        names: list[str] = []
        for item in self.inputs:
            if isinstance(item, Categorical) and len(item.choices) > 2:
                names += [f"{item.name}={choice}" for choice in item.choices]
            else:
                names.append(item.name)
        return names

    # designs, extrapolation

    def sample(self, n: int, seed: int = 0, method: Design = "sobol") -> pd.DataFrame:
        """Table of n points that fill the space; each whole number and choice equally likely.

        Parameters
        ----------
        n : int
            Number of rows.
        seed : int
            Same seed, same rows.
        method : {"sobol", "lhs", "random"}
            Scrambled Sobol sequence, Latin hypercube or independent uniform draws.
        """
        U = _design(n, len(self), seed, method)
        X = self.from_unit(torch.from_numpy(U)).numpy()
        lower, upper = self.bounds.numpy()
        for j, item in enumerate(self.inputs):
            if not isinstance(item, Continuous):
                X[:, j] = lower[j] + np.floor(U[:, j] * (upper[j] - lower[j] + 1))
        return self.decode(np.clip(X, lower, upper))

    def outside(self, X: NDArray[np.float64] | Tensor) -> NDArray[np.bool_]:
        """Which codes ``(n, d)`` lie beyond the bounds (or are not numbers)."""
        codes = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
        lower, upper = self._reach
        return ~((codes >= lower) & (codes <= upper))

    @cached_property
    def _reach(self) -> NDArray[np.float64]:
        """Least and greatest codes that are not outside, ``(2, d)``."""
        ends = torch.tensor([[-BOUND_TOLERANCE], [1 + BOUND_TOLERANCE]], dtype=torch.float64)
        return self.from_unit(ends.expand(2, len(self))).numpy()

    # other descriptions

    @classmethod
    def from_dataframe(cls, df: pd.DataFrame) -> Space:
        """Space of the columns of a table: types inferred, bounds are minimum and maximum."""
        return cls(tuple(infer_input(df[name]) for name in df.columns))

    def to_json(self) -> str:
        """JSON text that :meth:`from_json` turns into an equal space."""
        return json.dumps({"inputs": [{"type": i.kind, **asdict(i)} for i in self.inputs]})

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Space of a JSON text; anything but a valid description is a ``UserError``."""
        try:
            items = json.loads(text)["inputs"]
            return cls(tuple(_input_from_dict(item) for item in items))
        except UserError:
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
            raise UserError(f"not a description of a space: {error!r}") from error

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna search space."""
        from optuna import distributions as optuna

        def distribution(item: Input) -> BaseDistribution:
            if isinstance(item, Categorical):
                return optuna.CategoricalDistribution(item.choices)
            if isinstance(item, Integer):
                return optuna.IntDistribution(item.lower, item.upper)
            return optuna.FloatDistribution(item.lower, item.upper, log=item.log)

        return {item.name: distribution(item) for item in self.inputs}


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """Cells of a column as float64 ``(n,)``, NaN where empty.

    Raises
    ------
    UserError
        A cell that is not empty is not a number; says which.
    """
    types = pd.api.types
    dtype = column.dtype
    if is_time(dtype):
        raise UserError(f"column {column.name!r} holds dates or times ({dtype}), not numbers")
    if types.is_complex_dtype(dtype):
        raise UserError(f"column {column.name!r} holds complex numbers; give two real columns")
    if types.is_bool_dtype(dtype) or types.is_numeric_dtype(dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    parsed = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.isnan(parsed) & ~is_missing(column)
    if bad.any():
        row = int(np.argmax(bad))
        raise UserError(
            f"column {column.name!r}, row {row + 1}: expected a number, "
            f"found {column.iloc[row]!r}{_more(bad)}"
        )
    return parsed


def is_time(dtype: Any) -> bool:
    """Whether a column of this dtype holds dates, durations or periods."""
    types = pd.api.types
    return (
        types.is_datetime64_any_dtype(dtype)
        or types.is_timedelta64_dtype(dtype)
        or isinstance(dtype, pd.PeriodDtype)
    )


def is_missing(column: pd.Series) -> NDArray[np.bool_]:
    """Which cells are empty: null, or text of blanks only."""
    missing = column.isna().to_numpy(dtype=bool, copy=True)
    if column.dtype == object or pd.api.types.is_string_dtype(column.dtype):
        missing |= np.fromiter(
            (isinstance(cell, str) and not cell.strip() for cell in column), bool, len(column)
        )
    return missing


def _more(bad: NDArray[np.bool_]) -> str:
    return f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""


def encode_column(item: Input, column: pd.Series) -> NDArray[np.float64]:
    """Codes ``(n,)`` of one input, see :meth:`Space.encode`."""
    if isinstance(item, Categorical):
        return _encode_choices(item, column)
    values = numbers(column)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        found = "an empty cell" if np.isnan(values[row]) else str(values[row])
        raise UserError(
            f"column {item.name!r}, row {row + 1}: expected a finite number, "
            f"found {found}{_more(bad)}"
        )
    return values


def _encode_choices(item: Categorical, column: pd.Series) -> NDArray[np.float64]:
    positions, levels = pd.factorize(column)
    codes = [item.code(level) for level in levels]
    known = np.array([np.nan if code is None else code for code in codes] + [np.nan])
    values = known[positions]
    if np.isnan(values).any():
        row = int(np.argmax(np.isnan(values)))
        cell = column.iloc[row]
        found = "an empty cell" if positions[row] < 0 else repr(cell)
        names = [str(choice) for choice in item.choices]
        raise UserError(
            f"column {item.name!r}, row {row + 1}: {found} is none of the choices "
            f"{_listed(names)}{_suggestion(cell, names)}"
        )
    return values


def _decode_column(item: Input, codes: NDArray[np.float64]) -> NDArray[Any] | pd.Series:
    if isinstance(item, Continuous):
        return codes.astype(np.float64)
    if not np.isfinite(codes).all():
        raise UserError(f"input {item.name!r}: cannot decode a code that is not a finite number")
    if isinstance(item, Integer):
        return np.rint(codes).astype(np.int64)
    index = np.clip(np.rint(codes), 0, len(item.choices) - 1).astype(np.int64)
    if len({type(choice) for choice in item.choices}) == 1:
        return pd.Series(list(item.choices)).iloc[index].reset_index(drop=True)
    return pd.Series([item.choices[i] for i in index], dtype=object)


def _design(n: int, d: int, seed: int, method: Design) -> NDArray[np.float64]:
    if n < 0:
        raise UserError(f"the number of rows must not be negative, found {n}")
    if method == "sobol":
        engine = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed)
        return engine.draw(n, dtype=torch.float64).numpy()
    if method == "lhs":
        rng = np.random.default_rng(seed)
        strata = rng.permuted(np.tile(np.arange(n), (d, 1)), axis=1).T
        return (strata + rng.random((n, d))) / max(n, 1)
    if method == "random":
        return np.random.default_rng(seed).random((n, d))
    raise UserError(f"unknown design {method!r}{nearest(method, ['sobol', 'lhs', 'random'])}")


def infer_input(column: pd.Series) -> Input:
    """Type and bounds of one column; empty cells are left out of account.

    Truth values, or texts true/false/yes/no, become a choice of False and True; whole numbers
    ``Integer``; other numbers, also as text, ``Continuous``; text a choice of its sorted values.
    """
    name = str(column.name)
    present = column[~is_missing(column)]
    if present.empty:
        raise UserError(f"column {name!r} is empty; a type cannot be inferred")
    if is_truth(present):
        return Categorical(name, (False, True))
    if not is_number_like(present):
        return Categorical(name, tuple(sorted({str(cell).strip() for cell in present})))
    values = numbers(present)
    lower, upper = float(values.min()), float(values.max())
    if lower == upper:
        raise UserError(f"column {name!r} is constant ({lower:g}); an input must vary")
    if is_whole(column, values):
        return Integer(name, int(lower), int(upper))
    return Continuous(name, lower, upper)


def is_number_like(present: pd.Series) -> bool:
    """Whether a column without empty cells is one of numbers: at least half of the cells are."""
    if isinstance(present.dtype, pd.CategoricalDtype):
        return False
    if not (present.dtype == object or pd.api.types.is_string_dtype(present.dtype)):
        return True
    return bool(pd.to_numeric(present, errors="coerce").notna().mean() >= 0.5)


def is_truth(present: pd.Series) -> bool:
    """Whether a column without empty cells holds truth values: True, False, or texts of them."""
    if pd.api.types.is_numeric_dtype(present.dtype):
        return pd.api.types.is_bool_dtype(present.dtype)
    levels = present.unique()
    return 1 <= len(levels) <= 8 and all(
        isinstance(level, bool | np.bool_) or str(level).strip().lower() in TRUTH
        for level in levels
    )


def is_whole(column: pd.Series, values: NDArray[np.float64]) -> bool:
    """Whether the numbers of a column are whole, and floats only because of empty cells if at all.

    Parameters
    ----------
    column : Series ``(n,)``
    values : ndarray ``(k,)``
        The k <= n numbers in the cells that are not empty.
    """
    floats = pd.api.types.is_float_dtype(column.dtype) and len(values) == len(column)
    if floats or not np.abs(values).max() < 2**53 or (values != np.rint(values)).any():
        return False
    text = column.dtype == object or pd.api.types.is_string_dtype(column.dtype)
    return not (text and any("." in str(cell) for cell in column))


def _input_from_dict(item: dict[str, Any]) -> Input:
    kind = KINDS[item["type"]]
    given = {key: value for key, value in item.items() if key != "type"}
    expected = {f.name for f in fields(kind)}
    if given.keys() != expected:
        raise UserError(f"an input has fields {sorted(expected)}, found {sorted(given)}")
    if "choices" in given:
        given["choices"] = tuple(given["choices"])
    return kind(**given)
