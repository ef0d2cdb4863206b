r"""Right-hand sides of differential equations as trees that can be read, evaluated and printed.

An equation :math:`\dot u_i = f_i(u)` is one :class:`Expression` a component, together an
:class:`ExpressionList`. Trees are made of

===========  =====================================================================================
operators    ``add sub mul div`` of two, ``neg inv sin cos pow2`` of one
variables    ``u_0``, ``u_1``, ...
integers     -10 .. 10 without 0, a part of the structure
numbers      real coefficients; one without a value is masked, written ``?``
===========  =====================================================================================

and are written in prefix order, components apart by ``|``, or as people do,
``10.0*(u_1 - u_0) | u_0*(28.0 - u_2) - u_1 | u_0*u_1 - 2.67*u_2``. The same function has many
trees. Reading the second form, products nest to the right, a (b c), and sums to the left,
(a + b) - c, as in Liu, Zhang & Schaeffer (2023, arXiv 2309.16816).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from understudy.core.decimals import round_significant
from understudy.core.errors import UserError

if TYPE_CHECKING:
    import sympy

OPERATORS = {
    **{"add": 2, "sub": 2, "mul": 2, "div": 2},
    **{"neg": 1, "inv": 1, "sin": 1, "cos": 1, "pow2": 1},
}
"""Operators and how many operands each takes."""

INTEGERS = tuple(n for n in range(-10, 11) if n)
PLACEHOLDER = "<PLACEHOLDER>"
SEPARATOR = "|"

_NUMBER = "number"
_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_FUNCTIONS = ("sin", "cos", "neg", "inv", "pow2")
_TORCH: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "inv": torch.reciprocal,
    "sin": torch.sin,
    "cos": torch.cos,
    "pow2": torch.square,
}


@dataclass(frozen=True)
class Expression:
    """A node of a tree with all that is below it.

    Parameters
    ----------
    name : str
        An operator, ``"u_0"``, ``"-3"`` or ``"number"``; see the functions :func:`variable`,
        :func:`integer` and :func:`number`, which make leaves.
    children : tuple of Expression
        As many as the operator takes.
    value : float, optional
        Of a number; None where it is masked.
    """

    name: str
    children: tuple[Expression, ...] = ()
    value: float | None = None

    def __post_init__(self) -> None:
        if len(self.children) != OPERATORS.get(self.name, 0):
            wanted = OPERATORS.get(self.name, 0)
            raise UserError(f"{self.name!r} takes {wanted} operands, found {len(self.children)}")

    @property
    def is_number(self) -> bool:
        """Whether this is a real coefficient, known or masked."""
        return self.name == _NUMBER

    @property
    def is_variable(self) -> bool:
        """Whether this is a component of the state."""
        return self.name.startswith("u_")

    def nodes(self) -> Iterator[Expression]:
        """All nodes in prefix order."""
        yield self
        for child in self.children:
            yield from child.nodes()

    @property
    def numbers(self) -> tuple[float, ...]:
        """Real coefficients in prefix order, NaN where masked."""
        return tuple(
            float("nan") if node.value is None else node.value
            for node in self.nodes()
            if node.is_number
        )

    def evaluate(self, u: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Value of the expression.

        Parameters
        ----------
        u : Tensor (..., d)
            States.
        numbers : Tensor (..., K), optional
            In the place of its K coefficients, in prefix order; other dimensions broadcast
            against those of u. So trees that differ in numbers alone are evaluated at once.

        Returns
        -------
        Tensor (...)
            Infinite or NaN where a division is by zero.
        """
        if numbers is None:
            numbers = u.new_tensor(self.numbers)
        return self._value(u, iter(numbers.unbind(-1))).expand(
            torch.broadcast_shapes(u.shape[:-1], numbers.shape[:-1])
        )

    def _value(self, u: Tensor, numbers: Iterator[Tensor]) -> Tensor:
        if self.is_number:
            return next(numbers)
        if self.is_variable:
            return u[..., int(self.name[2:])]
        if self.name in OPERATORS:
            return _TORCH[self.name](*(child._value(u, numbers) for child in self.children))
        return u.new_tensor(float(self.name))

    def map_numbers(self, change: Callable[[float | None], float | None]) -> Expression:
        """Copy with other coefficients, called in prefix order."""
        if self.is_number:
            return Expression(_NUMBER, (), change(self.value))
        return Expression(self.name, tuple(child.map_numbers(change) for child in self.children))

    def to_sympy(self) -> sympy.Expr:
        """The expression in SymPy; masked numbers are symbols ``c_0``, ``c_1``, ..."""
        return self._sympy(iter(range(10**6)))

    def _sympy(self, masked: Iterator[int]) -> Any:
        import sympy

        if self.is_number:
            if self.value is None:
                return sympy.Symbol(f"c_{next(masked)}")
            return sympy.Float(repr(self.value))
        if self.is_variable:
            return sympy.Symbol(self.name, real=True)
        if self.name not in OPERATORS:
            return sympy.Integer(int(self.name))
        a, *rest = (child._sympy(masked) for child in self.children)
        make: dict[str, Callable[[], Any]] = {
            "add": lambda: a + rest[0],
            "sub": lambda: a - rest[0],
            "mul": lambda: a * rest[0],
            "div": lambda: a / rest[0],
            "neg": lambda: -a,
            "inv": lambda: 1 / a,
            "sin": lambda: sympy.sin(a),
            "cos": lambda: sympy.cos(a),
            "pow2": lambda: a**2,
        }
        return make[self.name]()

    def __str__(self) -> str:
        return self._text(0)

    def _text(self, tightness: int) -> str:
        """Infix text, in parentheses if what is around it binds tighter; it reads back the same."""
        if self.is_number:
            text = "?" if self.value is None else repr(float(self.value))
            return f"({text})" if text.startswith("-") and tightness else text
        if not self.children:
            return f"({self.name})" if self.name.startswith("-") and tightness else self.name
        if self.name in _FUNCTIONS:
            return f"{self.name}({self.children[0]._text(0)})"
        level = 1 if self.name in ("add", "sub") else 2
        inside = (level, level + 1)  # sums and quotients nest to the left, products to the right
        if self.name == "mul":
            inside = (level + 1, level)
            if self.children[1].name == "div":
                inside = (level + 1, level + 1)
        if self.name == "div" and self.children[0].name == "mul":
            inside = (level, level + 1)
        left, right = (c._text(t) for c, t in zip(self.children, inside, strict=True))
        text = f"{left} {_SIGNS[self.name]} {right}"
        return f"({text})" if tightness > level else text


def variable(index: int) -> Expression:
    """Component ``u_index`` of the state."""
    return Expression(f"u_{index}")


def integer(value: int) -> Expression:
    """A whole number of the structure, -10 .. 10 without 0."""
    if value not in INTEGERS:
        raise UserError(f"integers of a tree are -10 .. 10 without 0, found {value}")
    return Expression(str(value))


def number(value: float | None) -> Expression:
    """A real coefficient, masked if None."""
    return Expression(_NUMBER, (), None if value is None else float(value))


@dataclass(frozen=True)
class ExpressionList:
    """Right-hand sides of all components of a system.

    Parameters
    ----------
    components : tuple of Expression
        That of component i at place i.

    Raises
    ------
    UserError
        If there is none, or a variable is not one of its components.
    """

    components: tuple[Expression, ...]

    def __post_init__(self) -> None:
        if not self.components:
            raise UserError("a system of equations has at least one component")
        for component in self.components:
            for node in component.nodes():
                if node.is_variable and int(node.name[2:]) >= len(self.components):
                    raise UserError(
                        f"{node.name} is no component of a system of {len(self.components)}: "
                        f"known are u_0 .. u_{len(self.components) - 1}"
                    )

    @property
    def dim(self) -> int:
        """Components d of the state."""
        return len(self.components)

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """Real coefficients in prefix order, NaN where masked."""
        return tuple(x for component in self.components for x in component.numbers)

    @cached_property
    def skeleton(self) -> ExpressionList:
        """The same trees with all numbers masked."""
        return self._mapped(lambda value: None)

    @property
    def is_complete(self) -> bool:
        """Whether no number is masked."""
        return all(x == x for x in self.numbers)

    def with_numbers(self, numbers: Sequence[float]) -> ExpressionList:
        """The same trees with other coefficients, in prefix order; NaN masks one."""
        if len(numbers) != len(self.numbers):
            raise UserError(f"the equation has {len(self.numbers)} numbers, found {len(numbers)}")
        values = (None if x != x else float(x) for x in numbers)
        return self._mapped(lambda value: next(values))

    def rounded(self, digits: int = 3) -> ExpressionList:
        """The same trees with coefficients of so many significant digits."""
        values = torch.tensor(self.numbers, dtype=torch.float64)
        known = ~values.isnan()
        values[known] = round_significant(values[known], digits)
        return self.with_numbers(values.tolist())

    def _mapped(self, change: Callable[[float | None], float | None]) -> ExpressionList:
        return ExpressionList(tuple(c.map_numbers(change) for c in self.components))

    def evaluate(self, u: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Right-hand side ``(..., d)`` at states ``(..., d)``; numbers as in an expression's."""
        if u.shape[-1] < self.dim:
            raise UserError(f"the system has {self.dim} components, states have {u.shape[-1]}")
        if numbers is None:
            numbers = u.new_tensor(self.numbers)
        shape = torch.broadcast_shapes(u.shape[:-1], numbers.shape[:-1])
        values = iter(numbers.unbind(-1))
        return torch.stack([c._value(u, values).expand(shape) for c in self.components], dim=-1)

    def to_sympy(self) -> tuple[sympy.Expr, ...]:
        """Right-hand sides in SymPy."""
        masked = iter(range(10**6))
        return tuple(component._sympy(masked) for component in self.components)

    def latex(self) -> str:
        r"""One line a component, ``\dot{u}_{0} = ...``."""
        import sympy

        sides = (sympy.latex(side) for side in self.to_sympy())
        return "\n".join(rf"\dot{{u}}_{{{i}}} = {side}" for i, side in enumerate(sides))

    def __str__(self) -> str:
        return f" {SEPARATOR} ".join(map(str, self.components))

    # -- reading ------------------------------------------------------------------------------

    def prefix(self) -> list[str]:
        """Words in prefix order: names, ``|``, numbers as text, masked ones as a placeholder."""
        words: list[str] = []
        for i, component in enumerate(self.components):
            words += [SEPARATOR] * (i > 0)
            words += [
                (PLACEHOLDER if node.value is None else repr(node.value))
                if node.is_number
                else node.name
                for node in component.nodes()
            ]
        return words

    @classmethod
    def from_prefix(cls, words: Sequence[str]) -> Self:
        """Read what :meth:`prefix` wrote.

        Raises
        ------
        UserError
            If it does not parse: the place, from 0, and the word are named.
        """
        return cls(tuple(_read_prefix(list(words))))

    @classmethod
    def parse(cls, text: str, names: Mapping[str, float] | None = None) -> Self:
        """Read equations as people write them.

        Whole numbers from 1 to 10 without a point are integers of the structure, everything else
        is a coefficient: write ``10.0`` for one that could be another. ``?`` is a masked number,
        ``u_0**2`` (or ``^``) a power up to 4.

        Parameters
        ----------
        text : str
            Components apart by ``|``.
        names : mapping of str to float, optional
            Coefficients that may be called by name.

        Raises
        ------
        UserError
            If it does not parse: the position, from 1, and the token are named.
        """
        return cls(tuple(_Reader(text, names or {}).components()))


def evaluate_each(equations: Sequence[ExpressionList], u: Tensor) -> Tensor:
    """Right-hand sides of many equations at the same states, one tree at a time.

    Parameters
    ----------
    equations : sequence of N ExpressionList
    u : Tensor (P, d)

    Returns
    -------
    Tensor (N, P, d)
        Zero in the components that an equation does not have.
    """
    rows: dict[ExpressionList, list[int]] = {}
    for i, equation in enumerate(equations):
        rows.setdefault(equation.skeleton, []).append(i)
    out = u.new_zeros(len(equations), *u.shape)
    for tree, some in rows.items():
        numbers = u.new_tensor([equations[i].numbers for i in some])
        out[some, :, : tree.dim] = tree.evaluate(u, numbers[:, None])
    return out


def _read_prefix(words: list[str]) -> list[Expression]:
    components: list[Expression] = []
    place = 0

    def tree() -> Expression:
        nonlocal place
        if place >= len(words):
            raise UserError(f"the equation ends at token {place} where an operand is missing")
        word, at = words[place], place
        place += 1
        if word in OPERATORS:
            return Expression(word, tuple(tree() for _ in range(OPERATORS[word])))
        return _leaf(word, at)

    while True:
        components.append(tree())
        if place == len(words):
            return components
        if words[place] != SEPARATOR:
            raise UserError(
                f"token {place} ({words[place]!r}) is left over: a component ends before it, "
                f"and the next one begins with {SEPARATOR!r}"
            )
        place += 1


def _leaf(word: str, at: int) -> Expression:
    if word == PLACEHOLDER:
        return number(None)
    if re.fullmatch(r"u_\d{1,3}", word):
        return Expression(f"u_{int(word[2:])}")
    if re.fullmatch(r"-?\d+", word) and int(word) in INTEGERS:
        return integer(int(word))
    try:
        return number(float(word))
    except ValueError:
        raise UserError(
            f"token {at} ({word!r}) is no operator, variable or number; operators are "
            f"{', '.join(OPERATORS)}"
        ) from None


_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\*\*|[-+*/^()|?]))"
)


class _Reader:
    """Recursive descent over sums, products, signs and powers."""

    def __init__(self, text: str, names: Mapping[str, float]) -> None:
        self.names = names
        self.tokens: list[tuple[str, int]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                where = at + len(text[at:]) - len(text[at:].lstrip())
                raise UserError(
                    f"position {where + 1} of the equation ({text[where]!r}) is no part of one"
                )
            self.tokens.append((found.group().strip(), found.end() - len(found.group().strip())))
            at = found.end()
        self.tokens.append(("", end))
        self.place = 0

    @property
    def token(self) -> str:
        return self.tokens[self.place][0]

    def take(self, *accepted: str) -> str | None:
        if self.token in accepted:
            self.place += 1
            return self.tokens[self.place - 1][0]
        return None

    def refuse(self, wanted: str) -> UserError:
        token, at = self.tokens[self.place]
        found = repr(token) if token else "the end"
        return UserError(f"position {at + 1} of the equation ({found}): {wanted} is expected")

    def components(self) -> list[Expression]:
        found = [self.sum()]
        while self.take(SEPARATOR):
            found.append(self.sum())
        if self.token:
            raise self.refuse("an operator, '|' or the end")
        return found

    def sum(self) -> Expression:
        left = self.product()
        while sign := self.take("+", "-"):
            left = Expression("add" if sign == "+" else "sub", (left, self.product()))
        return left

    def product(self) -> Expression:
        left = self._chain([self.signed()])
        while self.take("/"):
            left = Expression("div", (left, self.signed()))
            if self.token == "*":
                left = self._chain([left])
        return left

    def _chain(self, factors: list[Expression]) -> Expression:
        while self.take("*"):
            factors.append(self.signed())
        *rest, right = factors
        for factor in reversed(rest):
            right = Expression("mul", (factor, right))
        return right

    def signed(self) -> Expression:
        if not self.take("-"):
            return self.power()
        literal = self.token[:1].isdigit() or self.token[:1] == "."
        operand = self.power()
        if literal and operand.is_number and operand.value is not None:
            return number(-operand.value)
        if literal and not operand.children:
            return integer(-int(operand.name))
        return Expression("neg", (operand,))

    def power(self) -> Expression:
        base = self.atom()
        if not self.take("**", "^"):
            return base
        if self.token not in ("2", "3", "4"):
            raise self.refuse("an exponent of 2, 3 or 4")
        exponent = self.take("2", "3", "4")
        square = Expression("pow2", (base,))
        if exponent == "3":
            return Expression("mul", (base, square))
        return square if exponent == "2" else Expression("pow2", (square,))

    def atom(self) -> Expression:
        token, _ = self.tokens[self.place]
        if self.take("("):
            return self._closed(self.sum())
        if self.take("?"):
            return number(None)
        if token[:1].isdigit() or token[:1] == ".":
            self.place += 1
            whole = token.isdigit() and int(token) in INTEGERS
            return integer(int(token)) if whole else number(float(token))
        if token in _FUNCTIONS and self.tokens[self.place + 1][0] == "(":
            self.place += 2
            return Expression(token, (self._closed(self.sum()),))
        if token in self.names:
            self.place += 1
            return number(self.names[token])
        if re.fullmatch(r"u_\d{1,3}", token):
            self.place += 1
            return Expression(f"u_{int(token[2:])}")
        raise self.refuse("a variable such as u_0, a number, a function or '('")

    def _closed(self, inside: Expression) -> Expression:
        if not self.take(")"):
            raise self.refuse("')'")
        return inside
