r"""Equations as rows of token numbers, for transformers (Liu et al. 2023, arXiv 2309.16816).

A tree is written in prefix order, components apart by ``|``. A real number is three tokens, its
sign, a mantissa of three digits and an exponent, so that
:math:`3.14159 \to` ``+ N314 E-2``, :math:`28 \to` ``+ N280 E-1`` and
:math:`-0.00271 \to` ``- N271 E-5``; a masked one is the single token ``<PLACEHOLDER>``. Equations
rounded to three digits survive the way there and back unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from understudy.core.decimals import LARGEST_EXPONENT, decimal_parts, from_decimal_parts
from understudy.core.errors import UserError
from understudy.core.expressions import (
    INTEGERS,
    OPERATORS,
    PLACEHOLDER,
    SEPARATOR,
    ExpressionList,
)
from understudy.data.trajectories import TrajectorySet

PAD, BOS, EOS = "<PAD>", "<BOS>", "<EOS>"


class ExpressionTokenizer:
    """Translates equations to token numbers and back.

    Parameters
    ----------
    num_variables : int
        ``u_0`` .. ``u_{num_variables - 1}`` are known.
    operators : sequence of str
        Of :data:`core.expressions.OPERATORS`, all unless given.
    float_digits : int in 1 .. 4
        Digits of a mantissa; 3 in the paper.

    Attributes
    ----------
    words : list of str
        The vocabulary; each word's place is its number. ``<PAD>`` is 0.
    """

    def __init__(
        self,
        num_variables: int,
        operators: Sequence[str] = tuple(OPERATORS),
        float_digits: int = 3,
    ) -> None:
        unknown = [name for name in operators if name not in OPERATORS]
        if unknown:
            raise UserError(f"no operator is called {unknown[0]!r}; known are {_all(OPERATORS)}")
        if num_variables < 1 or not 1 <= float_digits <= 4:
            raise UserError(
                "a tokeniser has at least one variable and 1 to 4 digits, "
                f"found {num_variables} and {float_digits}"
            )
        self.num_variables, self.float_digits = num_variables, float_digits
        self.operators = tuple(operators)
        mantissas = [f"N{m:0{float_digits}d}" for m in range(10**float_digits)]
        exponents = [f"E{e}" for e in range(-LARGEST_EXPONENT, LARGEST_EXPONENT + 1)]
        self.words = [
            *(PAD, BOS, EOS, PLACEHOLDER, SEPARATOR),
            *self.operators,
            *map(str, INTEGERS),
            *(f"u_{i}" for i in range(num_variables)),
            *("+", "-"),
            *mantissas,
            *exponents,
        ]
        self.ids = {word: i for i, word in enumerate(self.words)}
        self.pad, self.bos, self.eos = (self.ids[word] for word in (PAD, BOS, EOS))
        self._plus, self._minus = self.ids["+"], self.ids["-"]
        self._mantissa, self._exponent = self.ids[mantissas[0]], self.ids["E0"]
        # trees recur by the thousand, with other numbers; what is kept is not to be written into
        self.template = lru_cache(maxsize=4096)(self._template)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def mantissas(self) -> tuple[Tensor, Tensor]:
        """Token numbers of the mantissas without leading zeros, and these as whole numbers."""
        low, high = 10 ** (self.float_digits - 1), 10**self.float_digits
        values = torch.arange(low, high)
        return self._mantissa + values, values

    def describe(self) -> dict[str, Any]:
        """JSON from which an equal tokeniser is made."""
        return {
            "num_variables": self.num_variables,
            "operators": list(self.operators),
            "float_digits": self.float_digits,
        }

    def encode(self, equation: ExpressionList, placeholders: bool = False) -> list[int]:
        """Token numbers of one equation, without ``<BOS>`` and ``<EOS>``.

        Parameters
        ----------
        equation : ExpressionList
            Numbers are rounded; masked ones are placeholders.
        placeholders : bool
            Mask all numbers.

        Raises
        ------
        UserError
            If a word of it is not in the vocabulary (place and word are named), or a number is
            too large.
        """
        if placeholders:
            equation = equation.skeleton
        values = torch.tensor(equation.numbers, dtype=torch.float64)
        known = ~values.isnan()
        row, places = self.template(equation.skeleton, tuple(known.tolist()))
        row = row.clone()
        row[places] = self.number_tokens(values[known])
        return list(map(int, row))

    def encode_all(self, equations: Sequence[ExpressionList], placeholders: bool = False) -> Tensor:
        """Token numbers ``(N, L)`` of equations, padded."""
        rows = [self.encode(equation, placeholders) for equation in equations]
        table = torch.full((len(rows), max(map(len, rows))), self.pad)
        for i, row in enumerate(rows):
            table[i, : len(row)] = torch.tensor(row)
        return table

    def encode_set(self, data: TrajectorySet, placeholders: bool = False) -> Tensor:
        """Token numbers ``(N, L)`` of the equations of trajectories, padded; tree by tree."""
        blocks: list[tuple[Tensor, Tensor]] = []
        for k, skeleton in enumerate(data.skeletons):
            rows = (data.which == k).nonzero().squeeze(1)
            count = len(skeleton.numbers)
            row, places = self.template(skeleton, (not placeholders,) * count)
            block = row.repeat(len(rows), 1)
            if not placeholders:
                tokens = self.number_tokens(data.numbers[rows, :count])
                block[:, places] = tokens.reshape(len(rows), -1)
            blocks.append((rows, block))
        table = torch.full((len(data), max(b.shape[1] for _, b in blocks)), self.pad)
        for rows, block in blocks:
            table[rows, : block.shape[1]] = block
        return table

    def _template(self, skeleton: ExpressionList, known: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
        """Tokens with room for the numbers that are known, and the places of their tokens."""
        row: list[int] = []
        places: list[int] = []
        shown = iter(known)
        for at, word in enumerate(skeleton.prefix()):
            if word == PLACEHOLDER and next(shown):
                places += range(len(row), len(row) + 3)
                row += [self.pad] * 3
            elif word in self.ids:
                row.append(self.ids[word])
            else:
                raise UserError(
                    f"token {at} ({word!r}) of the equation is not in the vocabulary; it has the "
                    f"operators {_all(self.operators)} and u_0 .. u_{self.num_variables - 1}"
                )
        return torch.tensor(row), torch.tensor(places, dtype=torch.long)

    def number_tokens(self, values: Tensor) -> Tensor:
        """Tokens ``(..., 3 K)`` of numbers ``(..., K)``, three each."""
        sign, mantissa, exponent = decimal_parts(values, self.float_digits)
        parts = (
            torch.where(sign < 0, self._minus, self._plus),
            self._mantissa + mantissa,
            self._exponent + exponent,
        )
        return torch.stack(parts, dim=-1).flatten(-2)

    def decode(self, ids: Sequence[int] | Tensor) -> ExpressionList | None:
        """Equation of token numbers, up to the first ``<EOS>`` or ``<PAD>``.

        Returns
        -------
        ExpressionList or None
            None where they are no equation.
        """
        words = self._words([int(i) for i in ids])
        if words is None:
            return None
        try:
            return ExpressionList.from_prefix(words)
        except UserError:
            return None

    def _words(self, ids: list[int]) -> list[str] | None:
        words: list[str] = []
        ids = ids[: next((k for k, i in enumerate(ids) if i in (self.eos, self.pad)), len(ids))]
        at = 0
        while at < len(ids):
            i = ids[at]
            if i not in (self._plus, self._minus):
                words.append(self.words[i])
                at += 1
                continue
            value = self._number(ids[at : at + 3])
            if value is None:
                return None
            words.append(repr(value))
            at += 3
        # a mantissa or an exponent that does not follow a sign is no word of an equation
        return None if any(word[:1] in "NE" or word == BOS for word in words) else words

    def _number(self, ids: list[int]) -> float | None:
        if len(ids) < 3:
            return None
        sign, mantissa = ids[0], ids[1] - self._mantissa
        exponent = ids[2] - self._exponent
        if not 0 <= mantissa < 10**self.float_digits or abs(exponent) > LARGEST_EXPONENT:
            return None
        parts = (1 if sign == self._plus else -1, mantissa, exponent)
        return float(from_decimal_parts(*(torch.tensor(part) for part in parts)))


def _all(names: Sequence[str] | dict[str, int]) -> str:
    return ", ".join(names)
