"""Guesses of an equation with one term too many or too few."""

from __future__ import annotations

import torch

from understudy.core.expressions import (
    Expression,
    ExpressionList,
    number,
    variable,
)


def add_term(
    equation: ExpressionList, generator: torch.Generator, largest: float = 2.0
) -> ExpressionList:
    """Copy with a further term: a constant, c u_i or c u_i u_j, at a random place of a sum.

    Parameters
    ----------
    equation : ExpressionList
    generator : torch.Generator
    largest : float
        c is uniform in [-largest, largest]; with three digits, never zero.
    """
    k = _integer(equation.dim, generator)
    terms = _terms(equation.components[k])
    value = (2.0 * float(torch.rand((), generator=generator)) - 1.0) * largest
    factors = [variable(_integer(equation.dim, generator)) for _ in range(_integer(3, generator))]
    new = number(float(f"{value or largest:.2e}"))
    for factor in factors:
        new = _product(new, factor)
    sign = "add" if _integer(2, generator) else "sub"
    place = _integer(len(terms) + 1, generator)
    return _replaced(equation, k, [*terms[:place], (sign, new), *terms[place:]])


def delete_term(equation: ExpressionList, generator: torch.Generator) -> ExpressionList:
    """Copy without a random one of its terms.

    Components of one term keep it; where all are such, the equation is returned as it is.
    """
    split = [_terms(component) for component in equation.components]
    choices = [(k, j) for k, terms in enumerate(split) if len(terms) > 1 for j in range(len(terms))]
    if not choices:
        return equation
    k, j = choices[_integer(len(choices), generator)]
    return _replaced(equation, k, [*split[k][:j], *split[k][j + 1 :]])


def _integer(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))


def _terms(expression: Expression) -> list[tuple[str, Expression]]:
    """Summands from left to right, each with ``add`` or ``sub`` before it."""
    terms: list[tuple[str, Expression]] = []
    while expression.name in ("add", "sub"):
        left, right = expression.children
        terms.insert(0, (expression.name, right))
        expression = left
    first = ("add", expression)
    if expression.name == "neg":
        first = ("sub", expression.children[0])
    return [first, *terms]


def _replaced(
    equation: ExpressionList, k: int, terms: list[tuple[str, Expression]]
) -> ExpressionList:
    (sign, total), *rest = terms
    if sign == "sub":
        total = Expression("neg", (total,))
    for sign, term in rest:
        total = Expression(sign, (total, term))
    components = (*equation.components[:k], total, *equation.components[k + 1 :])
    return ExpressionList(components)


def _product(left: Expression, factor: Expression) -> Expression:
    """Times a factor at the end of a chain of products, which nests to the right."""
    if left.name == "mul":
        head, tail = left.children
        return Expression("mul", (head, _product(tail, factor)))
    return Expression("mul", (left, factor))
