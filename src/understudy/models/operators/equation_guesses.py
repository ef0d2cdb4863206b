"""Guesses that a network is trained to correct: terms added and deleted, numbers masked or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.expressions import ExpressionList
from understudy.models.operators.equation_tokens import ExpressionTokenizer
from understudy.models.operators.term_noise import add_term, delete_term

_NEW = -1
"""Source of a number that the equation does not have."""


class GuessSampler:
    """Draws guesses of many equations at once, from trees that are corrupted once.

    Parameters
    ----------
    tokenizer : ExpressionTokenizer
    skeletons : sequence of ExpressionList
        Trees of the equations.
    placeholders : bool
        Mask the numbers.
    variants : int
        Corrupted trees of each kind that are drawn for each skeleton; doubles are left out.
    seed : int
    largest : float
        Coefficients of new terms are uniform in [-largest, largest].
    """

    def __init__(
        self,
        tokenizer: ExpressionTokenizer,
        skeletons: Sequence[ExpressionList],
        placeholders: bool,
        variants: int = 200,
        seed: int = 0,
        largest: float = 2.0,
    ) -> None:
        self.tokenizer, self.placeholders, self.largest = tokenizer, placeholders, largest
        generator = torch.Generator().manual_seed(seed)
        trees: list[ExpressionList] = []
        self._first = torch.zeros(len(skeletons), 3, dtype=torch.long)
        self._count = torch.zeros(len(skeletons), 3, dtype=torch.long)
        for k, skeleton in enumerate(skeletons):
            # whole numbers tell which number of the equation each is; those of new terms are masked
            tagged = skeleton.with_numbers(range(len(skeleton.numbers)))
            added = {_new_masked(add_term(tagged, generator, 0.5)) for _ in range(variants)}
            deleted = {delete_term(tagged, generator) for _ in range(variants)}
            kinds = ([tagged], sorted(added, key=str), sorted(deleted, key=str))
            for kind, some in enumerate(kinds):
                self._first[k, kind], self._count[k, kind] = len(trees), len(some)
                trees += some
        self._tabulate(trees)

    def _tabulate(self, trees: Sequence[ExpressionList]) -> None:
        rows = [
            self.tokenizer.template(tree.skeleton, (not self.placeholders,) * len(tree.numbers))
            for tree in trees
        ]
        length = max(len(row) for row, _ in rows)
        slots = max((len(tree.numbers) for tree in trees), default=0)
        self._tokens = torch.full((len(trees), length), self.tokenizer.pad)
        self._places = torch.full((len(trees), 3 * slots), length)  # one column to be cut off
        self._sources = torch.full((len(trees), slots), _NEW)
        for m, (tree, (row, places)) in enumerate(zip(trees, rows, strict=True)):
            self._tokens[m, : len(row)] = row
            self._places[m, : len(places)] = places
            tags = [_NEW if x != x else int(x) for x in tree.numbers]
            self._sources[m, : len(tags)] = torch.tensor(tags, dtype=torch.long)

    def draw(
        self,
        which: Tensor,
        numbers: Tensor,
        generator: torch.Generator,
        add: float = 0.15,
        delete: float = 0.15,
    ) -> Tensor:
        """Tokens of one guess an equation.

        Parameters
        ----------
        which : LongTensor (B,)
            Tree of each equation.
        numbers : Tensor (B, K)
            Its numbers, in prefix order.
        generator : torch.Generator
        add, delete : float in [0, 1]
            Shares with a term too many and a term too few; their sum at most 1.

        Returns
        -------
        LongTensor (B, L)
            Padded.
        """
        if add < 0 or delete < 0 or add + delete > 1:
            raise UserError(f"shares of guesses must lie in [0, 1], found {add} and {delete}")
        chance, place = torch.rand(2, len(which), generator=generator)
        kind = torch.where(chance < add, 1, torch.where(chance < add + delete, 2, 0))
        first, count = self._first[which, kind], self._count[which, kind]
        m = first + (place * count).long().clamp_max(count - 1)
        tokens = self._tokens[m]
        if not self.placeholders and self._sources.shape[1]:
            tokens = self._filled(tokens, m, numbers, generator)
        longest = int((tokens != self.tokenizer.pad).sum(1).max())
        return tokens[:, :longest]

    def _filled(
        self, tokens: Tensor, m: Tensor, numbers: Tensor, generator: torch.Generator
    ) -> Tensor:
        sources = self._sources[m]
        new = self.largest * (2.0 * torch.rand(sources.shape, generator=generator) - 1.0)
        known = numbers.nan_to_num().gather(1, sources.clamp_min(0))
        values = torch.where(sources == _NEW, new.double(), known)
        wide = torch.nn.functional.pad(tokens, (0, 1), value=self.tokenizer.pad)
        wide.scatter_(1, self._places[m], self.tokenizer.number_tokens(values))
        return wide[:, :-1]


def _new_masked(tree: ExpressionList) -> ExpressionList:
    """Copy of a tagged tree whose new number, which is no tag, is masked."""
    return tree.with_numbers([x if x.is_integer() else float("nan") for x in tree.numbers])
