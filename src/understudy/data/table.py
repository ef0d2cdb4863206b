r"""From a table of runs to what a surrogate is fitted on, and what there is to say about it.

:func:`prepare` infers the types of the inputs, drops what cannot be learnt from, fills what is
missing and looks for what a careful reader of the table would: noise, outliers, columns that
repeat each other, ranges that span orders of magnitude. What it changed or found is a
:class:`Note`; what it cannot mend is a ``UserError``.

Robust distance of an output from its median, by which outliers are told:

.. math:: z = 0.6745 \, |y - \mathrm{med}(y)| \,/\, \mathrm{med}(|y - \mathrm{med}(y)|)

Standard deviation of the noise, from groups :math:`g` of runs with identical inputs:

.. math:: s^2 = \sum_g \sum_{i \in g} (y_i - \bar y_g)^2 \,/\, \sum_g (n_g - 1)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from understudy.core.errors import UserError
from understudy.core.space import (
    TRUTH,
    Categorical,
    Choice,
    Continuous,
    Input,
    Integer,
    Space,
    encode_column,
    is_missing,
    is_number_like,
    is_time,
    is_truth,
    is_whole,
    nearest,
    numbers,
)

UNNAMED = "Unnamed: "  # how a reader calls a column without a name
MISSING = "missing"  # the level that stands for an empty cell of a categorical input
MAX_LEVELS = 50  # of text; beyond, and beyond half the rows, a column identifies the run
WIDE_RATIO = 1e3  # maximum over minimum of a positive input
SMALLEST = 1e-100  # magnitude of a column
OUTLIER_DISTANCE = 8.0
MAX_OUTLIERS = 0.03  # of the rows; beyond, they are the tail of the distribution
SAME_OUTPUT = 0.999  # correlation
SAME_INPUT = 0.9999
SCREEN_ROWS = 10_000  # for a first look at the correlations of many inputs

_ALMOST_NUMBER = re.compile(r"[+-]?[\d.,'\s]*\d[\d.,'\s]*[%€$]?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?|\d{1,2}[./]\d{1,2}[./]\d{4}( .*)?")


@dataclass(frozen=True)
class Note:
    """What was found in a table, or done to it.

    Parameters
    ----------
    kind : str
        One word, for programs: ``"constant"``, ``"duplicates"``, ....
    columns : tuple of str
        Columns it is about; empty if about whole rows.
    message : str
        One sentence, for people.
    count : int
        Of rows, cells, columns or pairs, as the sentence says.
    severity : {"info", "warning"}
        A warning may change what can be concluded.
    """

    kind: str
    columns: tuple[str, ...]
    message: str
    count: int
    severity: Literal["info", "warning"] = "info"


@dataclass(frozen=True, eq=False)
class Table:
    """Runs that a surrogate can be fitted on.

    Attributes
    ----------
    space : Space
        Inputs; bounds are minimum and maximum of the rows.
    X : ndarray ``(n, d)``, float64
        Codes of the inputs, see :meth:`Space.encode`.
    Y : ndarray ``(n, m)``, float64
        Outputs.
    targets : tuple of str
        Names of the m outputs.
    rows : ndarray ``(n,)``, int
        Position in the original table, from 0.
    fill : dict
        What stands for an empty cell of each input: the median, or a choice.
    warnings : tuple of Note
        What was found and done.
    """

    space: Space
    X: NDArray[np.float64]
    Y: NDArray[np.float64]
    targets: tuple[str, ...]
    rows: NDArray[np.int64]
    fill: dict[str, Choice]
    warnings: tuple[Note, ...]


@dataclass(frozen=True, eq=False)
class NewRows:
    """Rows to predict.

    Attributes
    ----------
    space : Space
        Of the surrogate.
    X : ndarray ``(n, d)``, float64
        Codes of the inputs.
    imputed : ndarray ``(n, d)``, bool
        Cells that were empty.
    outside : ndarray ``(n, d)``, bool
        Cells beyond the range of the rows that the surrogate was fitted on.
    """

    space: Space
    X: NDArray[np.float64]
    imputed: NDArray[np.bool_]
    outside: NDArray[np.bool_]

    @property
    def notes(self) -> list[str]:
        """One text a row: which inputs lie outside or were filled in; empty if none."""
        notes = [""] * len(self.X)
        for i in np.flatnonzero((self.imputed | self.outside).any(axis=1)).tolist():
            said = [self._outside_note(i, j) for j in np.flatnonzero(self.outside[i]).tolist()]
            said += [f"{self.space.names[j]} filled in" for j in np.flatnonzero(self.imputed[i])]
            notes[i] = "; ".join(said)
        return notes

    def _outside_note(self, i: int, j: int) -> str:
        item = self.space.inputs[j]
        assert not isinstance(item, Categorical)
        value = self.X[i, j]
        if value < item.lower:
            return f"{item.name} = {value:g} below {item.lower:g}"
        return f"{item.name} = {value:g} above {item.upper:g}"


def prepare(
    df: pd.DataFrame,
    targets: str | Sequence[str],
    inputs: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    drop_invalid: bool = False,
    min_rows: int = 10,
) -> Table:
    """Check a table of runs and bring it into the form that a surrogate is fitted on.

    Parameters
    ----------
    df : DataFrame
        One run a row.
    targets : str or sequence of str
        Outputs; numeric columns.
    inputs : sequence of str, optional
        Columns to predict from; all others but the targets by default.
    drop : sequence of str
        Columns to leave out.
    drop_invalid : bool
        Whether rows with an infinite value are dropped rather than refused.
    min_rows : int
        Fewer rows are refused.

    Returns
    -------
    Table

    Raises
    ------
    UserError
        An unknown column, a target that is not numeric or does not vary, an infinite value, text
        that identifies the run, dates, too few rows, no input that varies.
    """
    df = df.set_axis([str(name) for name in df.columns], axis=1)
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    names = _choose_inputs(list(df.columns), targets, inputs, drop)
    Y = np.column_stack([_read_target(df[name]) for name in targets])
    columns = [_read_input(df[name]) for name in names]

    rows, notes = _usable_rows(columns, Y, targets, drop_invalid)
    _require_rows(len(rows), len(df), min_rows)
    columns, Y = [column.take(rows) for column in columns], Y[rows]
    _refuse_constant_targets(Y, targets)
    columns, more = _varying(columns, rows)
    notes += more
    _refuse_extremes([*zip(targets, Y.T, strict=True), *((c.name, c.values) for c in columns)])

    first, more = _without_duplicates(columns, Y)
    notes += more
    _require_rows(len(first), len(df), min_rows)
    columns, Y, rows = [column.take(first) for column in columns], Y[first], rows[first]
    notes += _replicates(columns, Y, targets)
    columns, more = _scaled(columns)
    notes += more
    columns, more = _filled(columns)
    notes += more

    space = Space(tuple(column.input() for column in columns))
    X = np.array([column.values for column in columns]).T
    notes += _about_inputs(space, X, rows) + _about_outputs(Y, targets, rows)
    fill = {column.name: column.fill for column in columns}
    return Table(space, np.ascontiguousarray(X), Y, targets, rows, fill, tuple(notes))


def encode_new(space: Space, fill: Mapping[str, Choice], df: pd.DataFrame) -> NewRows:
    """Rows to predict, coded as the rows that a surrogate was fitted on.

    Parameters
    ----------
    space : Space
        Of the :class:`Table`.
    fill : mapping
        Of the :class:`Table`; stands for empty cells.
    df : DataFrame
        With a column for each input; other columns are ignored.

    Raises
    ------
    UserError
        A column is missing, a cell is not a number, infinite, or none of the known choices.
    """
    df = df.set_axis([str(name) for name in df.columns], axis=1)
    for name in space.names:
        if name not in df.columns:
            raise UserError(f"column {name!r} is missing{nearest(name, list(df.columns))}")
    X = np.empty((len(df), len(space)))
    imputed = np.zeros(X.shape, dtype=bool)
    for j, item in enumerate(space):
        column = df[item.name]
        imputed[:, j] = is_missing(column)
        if imputed[:, j].any():
            column = column.astype(object).mask(imputed[:, j], fill[item.name])
        X[:, j] = encode_column(item, column)
    return NewRows(space, X, imputed, space.outside(X))


# Choosing and reading columns


def _choose_inputs(
    columns: list[str], targets: tuple[str, ...], inputs: Sequence[str] | None, drop: Sequence[str]
) -> list[str]:
    for role, names in (("table", columns), ("targets", targets), ("inputs", inputs or ())):
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise UserError(f"column {twice!r} is in the {role} twice; names must be distinct")
    if not targets:
        raise UserError("no targets; name at least one column to predict")
    for role, names in (("target", targets), ("input", inputs or ()), ("--drop", drop)):
        for name in names:
            if name not in columns:
                raise UserError(f"{role} {name!r} is no column{nearest(name, columns)}")
    for name in targets:
        if name in (inputs or ()):
            raise UserError(f"column {name!r} is both a target and an input; it can be only one")
        if name in drop:
            raise UserError(f"column {name!r} is both a target and dropped; it can be only one")
    chosen = columns if inputs is None else inputs
    names = [name for name in chosen if name not in targets and name not in drop]
    if not names:
        raise UserError("no inputs are left; every column is a target or dropped")
    return names


def _read_target(column: pd.Series) -> NDArray[np.float64]:
    present = column[~is_missing(column)]
    if present.empty:
        raise UserError(f"target {column.name!r} is empty in every row")
    if not is_number_like(present):
        raise UserError(
            f"target {column.name!r} must hold numbers, found text such as {str(present.iloc[0])!r}"
        )
    return numbers(column)


@dataclass(frozen=True, eq=False)
class _Column:
    """One input on its way into a table: codes with NaN where empty."""

    name: str
    values: NDArray[np.float64]
    levels: tuple[Choice, ...] = ()
    whole: bool = False
    log: bool = False
    fill: Choice = 0.0

    def take(self, rows: NDArray[np.int64]) -> _Column:
        if len(rows) == len(self.values):  # rows are distinct and ascending
            return self
        return replace(self, values=self.values[rows])

    def input(self) -> Input:
        if self.levels:
            return Categorical(self.name, self.levels)
        lower, upper = float(self.values.min()), float(self.values.max())
        if self.whole and not self.log:
            return Integer(self.name, int(lower), int(upper))
        return Continuous(self.name, lower, upper, log=self.log)


def _read_input(column: pd.Series) -> _Column:
    name = str(column.name)
    if is_time(column.dtype):
        raise _date_error(name, str(column.dtype))
    missing = is_missing(column)
    present = column[~missing] if missing.any() else column
    if present.empty:
        return _Column(name, np.full(len(column), np.nan))
    try:
        if is_truth(present) or not is_number_like(present):
            return _read_levels(name, present, missing)
        values = numbers(column)
    except TypeError as error:  # unhashable
        raise _single_values_error(name, present.iloc[0]) from error
    return _Column(name, values, whole=is_whole(column, values[~missing]))


def _single_values_error(name: str, cell: object) -> UserError:
    return UserError(f"column {name!r} must hold numbers, texts or truth values, found {cell!r}")


def _date_error(name: str, found: str) -> UserError:
    return UserError(
        f"column {name!r} holds dates or times ({found}), which cannot be an input; "
        f"leave it out with --drop {name}, or give a number such as hours since the start"
    )


def _read_levels(name: str, present: pd.Series, missing: NDArray[np.bool_]) -> _Column:
    positions, cells = pd.factorize(present)
    for cell in cells:
        if not isinstance(cell, str | bool | int | float | np.bool_ | np.number):
            raise _single_values_error(name, cell)
    texts = [str(cell).strip() for cell in cells]
    choices: tuple[Choice, ...] = tuple(sorted(set(texts)))
    codes = {text: code for code, text in enumerate(choices)}
    if is_truth(present):
        choices, codes = (False, True), {text: TRUTH[text.lower()] for text in texts}
    elif all(map(_DATE.fullmatch, texts)):
        raise _date_error(name, texts[0])
    elif not isinstance(present.dtype, pd.CategoricalDtype):
        _refuse_almost_numbers(name, texts)
    _refuse_identifier(name, texts, len(missing))
    values = np.full(len(missing), np.nan)
    values[~missing] = np.array([codes[text] for text in texts])[positions]
    return _Column(name, values, levels=choices)


def _refuse_almost_numbers(name: str, texts: list[str]) -> None:
    if sum(_ALMOST_NUMBER.fullmatch(text) is not None for text in texts) > len(texts) / 2:
        raise UserError(
            f"column {name!r} holds text that looks like numbers, such as {texts[0]!r}; write "
            "numbers with a decimal point, without thousands separators and signs of a unit"
        )


def _refuse_identifier(name: str, texts: list[str], n: int) -> None:
    if len(texts) > MAX_LEVELS and len(texts) > n / 2:
        raise UserError(
            f"column {name!r} has {len(texts)} different texts in {n} rows ({texts[0]!r}, ...), "
            f"which looks like an identifier; leave it out with --drop {name}"
        )


# Rows


def _usable_rows(
    columns: list[_Column], Y: NDArray[np.float64], targets: tuple[str, ...], drop_invalid: bool
) -> tuple[NDArray[np.int64], list[Note]]:
    """Rows with every target and without an infinite value."""
    notes = []
    named = [*zip(targets, Y.T, strict=True), *((c.name, c.values) for c in columns)]
    infinite = {name: bad for name, values in named if (bad := np.isinf(values)).any()}
    if infinite and not drop_invalid:
        raise _infinite_error(infinite)
    unusable = np.logical_or.reduce(list(infinite.values()) or [np.zeros(len(Y), dtype=bool)])
    if infinite:
        count = int(unusable.sum())
        message = f"{_rows(count)} with an infinite value dropped"
        notes.append(Note("infinite", tuple(infinite), message, count, "warning"))
    missing = np.isnan(Y) & ~unusable[:, None]
    if missing.any():
        names = tuple(t for t, any_ in zip(targets, missing.any(axis=0), strict=True) if any_)
        count = int(missing.any(axis=1).sum())
        message = f"{_rows(count)} with an empty target dropped"
        notes.append(Note("missing-target", names, message, count, "warning"))
    return np.flatnonzero(~unusable & ~missing.any(axis=1)), notes


def _infinite_error(infinite: dict[str, NDArray[np.bool_]]) -> UserError:
    name, bad = next(iter(infinite.items()))
    count, others = int(bad.sum()), len(infinite) - 1
    also = f", and so do {others} more columns" if others else ""
    return UserError(
        f"column {name!r} holds {count} infinite value{'s' * (count > 1)}, the first in row "
        f"{int(np.argmax(bad)) + 1}{also}; give --drop-invalid to leave such rows out"
    )


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _require_rows(left: int, found: int, needed: int) -> None:
    if left < needed:
        of = f" (of {found})" if left < found else ""
        raise UserError(f"{_rows(left)}{of} to learn from; at least {needed} are needed")


def _refuse_constant_targets(Y: NDArray[np.float64], targets: tuple[str, ...]) -> None:
    constant = [name for name, y in zip(targets, Y.T, strict=True) if y.min() == y.max()]
    if len(constant) == len(targets):
        raise UserError(f"nothing to learn: target {_listed(constant)} is the same in every row")
    if constant:
        raise UserError(
            f"target {_listed(constant)} is the same in every row; leave it out of the targets"
        )


def _refuse_extremes(named: list[tuple[str, NDArray[np.float64]]]) -> None:
    """Values whose squares are beyond floating point."""
    for name, values in named:
        greatest = max(np.nanmax(values), -np.nanmin(values))
        if not SMALLEST < greatest < 1 / SMALLEST:
            raise UserError(
                f"column {name!r} holds values up to {greatest:g}; rescale it so that they lie "
                f"between {SMALLEST:g} and {1 / SMALLEST:g}"
            )


def _row_hashes(columns: list[NDArray[np.float64]]) -> NDArray[np.uint64]:
    """A number that is equal for equal rows, ``(n,)``; empty cells are equal to each other."""
    hashes = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        canonical = np.where(np.isnan(column), np.nan, column + 0.0)
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + pd.util.hash_array(canonical)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _without_duplicates(
    columns: list[_Column], Y: NDArray[np.float64]
) -> tuple[NDArray[np.int64], list[Note]]:
    hashes = _row_hashes([column.values for column in columns] + list(Y.T))
    first = np.flatnonzero(~pd.Series(hashes).duplicated().to_numpy())
    count = len(hashes) - len(first)
    if not count:
        return first, []
    message = f"{_rows(count)} that repeat{'s' * (count == 1)} an earlier row dropped"
    return first, [Note("duplicates", (), message, count)]


def _replicates(
    columns: list[_Column], Y: NDArray[np.float64], targets: tuple[str, ...]
) -> list[Note]:
    """Noise as runs with identical inputs show it."""
    hashes = _row_hashes([column.values for column in columns])
    _, group, size = np.unique(hashes, return_inverse=True, return_counts=True)
    several = size[group] > 1
    if not several.any():
        return []
    freedom = int((size[size > 1] - 1).sum())
    total = np.stack([np.bincount(group, y) for y in Y.T], axis=1)
    deviation = Y - (total / size[:, None])[group]
    sd = np.sqrt((deviation[several] ** 2).sum(axis=0) / freedom)
    said = [
        f"{name} {s:.3g} ({s / spread:.0%} of its spread)"
        for name, s, spread in zip(targets, sd, Y.std(axis=0), strict=True)
    ]
    message = (
        f"{int(several.sum())} rows in {int((size > 1).sum())} groups have identical inputs but "
        f"different outputs; standard deviation of this noise: {_shortened(said)}"
    )
    return [Note("replicates", targets, message, int(several.sum()), "warning")]


# Inputs


def _varying(columns: list[_Column], rows: NDArray[np.int64]) -> tuple[list[_Column], list[Note]]:
    """Columns that vary, with the levels that occur."""
    empty, constant, index, kept = [], [], [], []
    for column in columns:
        present = column.values[~np.isnan(column.values)]
        if len(present) == 0:
            empty.append(column.name)
        elif present.min() == present.max() and not (column.levels and len(present) < len(rows)):
            constant.append(column.name)
        elif column.name.startswith(UNNAMED) and _numbers_rows(column.values, rows):
            index.append(column.name)
        else:
            kept.append(_with_occurring_levels(column, present))
    notes = [
        *_dropped("empty", empty, "without a value", "warning"),
        *_dropped("constant", constant, "with the same value in every row", "info"),
        *_dropped("index", index, "without a name that only counts the rows", "info"),
    ]
    if not kept:
        said = "; ".join(note.message.removesuffix("; dropped") for note in notes)
        raise UserError(f"no input is left that varies: {said}")
    return kept, notes


def _dropped(
    kind: str, names: list[str], what: str, severity: Literal["info", "warning"]
) -> list[Note]:
    message = f"{_columns(names)} {what}; dropped"
    return [Note(kind, tuple(names), message, len(names), severity)] if names else []


def _with_occurring_levels(column: _Column, present: NDArray[np.float64]) -> _Column:
    if not column.levels or column.levels == (False, True):
        return column
    codes = np.unique(present).astype(int)
    recoded = np.searchsorted(codes, np.nan_to_num(column.values)).astype(float)
    values = np.where(np.isnan(column.values), np.nan, recoded)
    return replace(column, values=values, levels=tuple(column.levels[i] for i in codes))


def _numbers_rows(values: NDArray[np.float64], rows: NDArray[np.int64]) -> bool:
    """Whether the values count the rows of the table, up or down."""
    up, down = values - rows, values + rows
    return bool((up == up[0]).all() or (down == down[0]).all())


def _scaled(columns: list[_Column]) -> tuple[list[_Column], list[Note]]:
    """Positive inputs that span orders of magnitude, and less skewed in the logarithm, get it."""
    scaled = [replace(column, log=_is_wide(column)) for column in columns]
    names = [column.name for column in scaled if column.log]
    if not names:
        return scaled, []
    message = f"{_columns(names)} over orders of magnitude; taken on a logarithmic scale"
    return scaled, [Note("wide", tuple(names), message, len(names))]


def _is_wide(column: _Column) -> bool:
    if column.levels:
        return False
    lower, upper = np.nanmin(column.values), np.nanmax(column.values)
    if not (lower > 0 and upper > WIDE_RATIO * lower):
        return False
    present = column.values[~np.isnan(column.values)]
    return abs(_skewness(np.log(present))) < abs(_skewness(present))


def _skewness(values: NDArray[np.float64]) -> float:
    z = (values - values.mean()) / values.std()
    return float((z**3).mean())


def _filled(columns: list[_Column]) -> tuple[list[_Column], list[Note]]:
    """Empty cells become the median, or a level of their own."""
    counts = {c.name: n for c in columns if (n := int(np.isnan(c.values).sum()))}
    filled = [_fill_levels(c) if c.levels else _fill_median(c) for c in columns]
    if not counts:
        return filled, []
    said = [f"{name} {n}" for name, n in counts.items()]
    message = (
        f"{sum(counts.values())} empty cells filled in with the median, or as a level "
        f"{MISSING!r} of their own: {_shortened(said)}"
    )
    return filled, [Note("imputed", tuple(counts), message, sum(counts.values()), "warning")]


def _fill_median(column: _Column) -> _Column:
    missing = np.isnan(column.values)
    median = float(np.median(column.values[~missing] if missing.any() else column.values))
    fill = round(median) if column.whole else median
    return replace(column, values=np.where(missing, fill, column.values), fill=fill)


def _fill_levels(column: _Column) -> _Column:
    missing = np.isnan(column.values)
    if not missing.any():
        usual = int(np.bincount(column.values.astype(int)).argmax())
        return replace(column, fill=column.levels[usual])
    levels = column.levels if MISSING in column.levels else (*column.levels, MISSING)
    values = np.where(missing, levels.index(MISSING), column.values)
    return replace(column, values=values, levels=levels, fill=MISSING)


def _about_inputs(space: Space, X: NDArray[np.float64], rows: NDArray[np.int64]) -> list[Note]:
    notes = []
    for item, values in zip(space, X.T, strict=True):
        if isinstance(item, Integer) and _numbers_rows(values, rows):
            message = (
                f"column {item.name!r} counts the rows; if it only identifies the run, leave it "
                f"out with --drop {item.name}"
            )
            notes.append(Note("identifier", (item.name,), message, 1, "warning"))
        if isinstance(item, Categorical) and len(item.choices) > MAX_LEVELS:
            message = f"column {item.name!r} has {len(item.choices)} levels; each is rarely seen"
            notes.append(Note("levels", (item.name,), message, len(item.choices), "warning"))
    ordered = [not isinstance(i, Categorical) or len(i.choices) == 2 for i in space]
    names = [name for name, keep in zip(space.names, ordered, strict=True) if keep]
    pairs = _correlated(_thinned(X)[:, ordered], names, SAME_INPUT)
    return notes + _pairs_note("same-inputs", pairs, "inputs", SAME_INPUT, "warning")


# Outputs


def _about_outputs(
    Y: NDArray[np.float64], targets: tuple[str, ...], rows: NDArray[np.int64]
) -> list[Note]:
    notes = [
        note for name, y in zip(targets, Y.T, strict=True) for note in _outliers(name, y, rows)
    ]
    pairs = _correlated(_thinned(Y), list(targets), SAME_OUTPUT)
    return notes + _pairs_note("same-outputs", pairs, "outputs", SAME_OUTPUT, "info")


def _outliers(name: str, y: NDArray[np.float64], rows: NDArray[np.int64]) -> list[Note]:
    deviation = np.abs(y - np.median(y))
    scale = np.median(deviation)
    far = rows[0.6745 * deviation > OUTLIER_DISTANCE * scale] if scale > 0 else rows[:0]
    if not len(far):
        return []
    message = (
        f"output {name!r} lies more than {OUTLIER_DISTANCE:g} robust standard deviations from its "
        f"median in {_rows(len(far))}: {_shortened([str(row + 1) for row in far])}"
    )
    if len(far) > MAX_OUTLIERS * len(y):
        return [Note("heavy-tail", (name,), f"heavy tail: {message}", len(far))]
    return [Note("outliers", (name,), message, len(far), "warning")]


def _thinned(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """About 10,000 rows, evenly spread."""
    return X[:: max(1, len(X) // SCREEN_ROWS)]


def _correlated(
    X: NDArray[np.float64], names: list[str], threshold: float
) -> list[tuple[str, str]]:
    """Pairs of columns whose correlation exceeds a threshold."""
    if X.shape[1] < 2:
        return []
    Z = X - X.mean(axis=0)
    norm = np.sqrt((Z**2).sum(axis=0))
    Z /= np.where(norm > 0, norm, 1.0)
    pairs = np.argwhere(np.triu(np.abs(Z.T @ Z) > threshold, k=1))
    return [(names[i], names[j]) for i, j in pairs]


def _pairs_note(
    kind: str,
    pairs: list[tuple[str, str]],
    what: str,
    threshold: float,
    severity: Literal["info", "warning"],
) -> list[Note]:
    if not pairs:
        return []
    columns = tuple(dict.fromkeys(name for pair in pairs for name in pair))
    said = _shortened([f"{a!r} and {b!r}" for a, b in pairs])
    pair = "pair" if len(pairs) == 1 else "pairs"
    message = f"{len(pairs)} {pair} of {what} nearly repeat each other (|r| > {threshold}): {said}"
    return [Note(kind, columns, message, len(pairs), severity)]


# Words


def _listed(names: Sequence[str]) -> str:
    return _shortened([repr(name) for name in names])


def _shortened(said: Sequence[str], most: int = 6) -> str:
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return ", ".join(said[:most]) + more


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' * (len(names) > 1)} {_listed(names)}"
