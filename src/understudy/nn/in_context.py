r"""A transformer over the rows of a data set that answers for rows it is asked about.

A row with an outcome is the token :math:`W_x x + W_y y`, a row to be predicted :math:`W_x x`; there
are no positions, so the answer does not depend on the order of the rows. Every token attends to the
rows with outcomes, and a row to be predicted also to itself, so that questions do not see one
another (Müller et al. 2022, arXiv 2112.10510). Layers are post-norm with GELU; attention outputs
and second feed-forward maps start at zero, and all layers start alike.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Architecture:
    """Sizes of a `PFNTransformer`.

    Parameters
    ----------
    features : int
        Inputs of a row; data with fewer are padded with zeros.
    outputs : int
        Numbers answered for a row: bars, logits of classes, or 1.
    width : int
        Of a token; a multiple of heads.
    depth, heads : int
        Layers, and attention heads in each.
    hidden : int, optional
        Of the feed-forward maps and of the head; twice the width.
    """

    features: int
    outputs: int
    width: int = 512
    depth: int = 6
    heads: int = 4
    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide among {self.heads} heads")


Memory = list[tuple[Tensor, Tensor]]
"""Keys and values of the rows with outcomes, one pair (B, heads, n, width / heads) a layer."""


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)
        self.attended = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.fed = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.inward.weight)
        for zero in (self.outward, self.down):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)
        nn.init.zeros_(self.inward.bias)

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, N, width / heads)."""
        parts = self.inward(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        return query, key, value

    def finish(self, tokens: Tensor, attention: Tensor) -> Tensor:
        tokens = self.attended(tokens + self.outward(attention.transpose(1, 2).flatten(2)))
        return self.fed(tokens + self.down(F.gelu(self.up(tokens))))


class PFNTransformer(nn.Module):
    """Answers for rows to be predicted, from rows with outcomes, in one pass.

    Parameters
    ----------
    architecture : Architecture
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        sizes = self.architecture = architecture
        hidden = sizes.hidden or 2 * sizes.width
        self.row = nn.Linear(sizes.features, sizes.width)
        self.outcome = nn.Linear(1, sizes.width)
        first = _Layer(sizes.width, sizes.heads, hidden)
        self.layers = nn.ModuleList([deepcopy(first) for _ in range(sizes.depth)])
        self.head = nn.Sequential(
            nn.Linear(sizes.width, hidden), nn.GELU(), nn.Linear(hidden, sizes.outputs)
        )

    def forward(self, x: Tensor, y: Tensor, context: int) -> Tensor:
        """Answers for the rows after the first ``context``: the pass of training.

        Parameters
        ----------
        x : Tensor (B, N, features)
        y : Tensor (B, N)
            Only the first ``context`` columns are looked at.
        context : int in 0 .. N - 1

        Returns
        -------
        Tensor (B, N - context, outputs)
        """
        read = self.outcome(y[:, :context].unsqueeze(-1))
        tokens = self.row(x) + F.pad(read, (0, 0, 0, x.shape[1] - context))
        answers: Tensor = self.head(self._through(tokens, context)[:, context:])
        return answers

    @property
    def _blocks(self) -> list[_Layer]:
        return cast("list[_Layer]", self.layers)

    def _through(self, tokens: Tensor, context: int) -> Tensor:
        for layer in self._blocks:
            query, key, value = layer.project(tokens)
            known, said = key[:, :, :context], value[:, :, :context]
            among = _among(query[:, :, :context], known, said)
            query, key, value = (part[:, :, context:] for part in (query, key, value))
            asked = _asked(query, key, value, known, said)
            tokens = layer.finish(tokens, torch.cat([among, asked], 2))
        return tokens

    def remember(self, x: Tensor, y: Tensor) -> Memory:
        """Read rows x (B, n, features) with outcomes y (B, n) once, for any number of questions."""
        tokens = self.row(x) + self.outcome(y.unsqueeze(-1))
        memory: Memory = []
        for i, layer in enumerate(self._blocks):
            query, key, value = layer.project(tokens)
            memory.append((key, value))
            if i + 1 < len(self.layers):
                tokens = layer.finish(tokens, F.scaled_dot_product_attention(query, key, value))
        return memory

    def answer(self, memory: Memory, x: Tensor) -> Tensor:
        """Answers (B, q, outputs) for rows x (B, q, features), from what `remember` returned.

        A memory of one data set serves a batch of questions.
        """
        tokens = self.row(x)
        for layer, (known, said) in zip(self._blocks, memory, strict=True):
            tokens = layer.finish(tokens, _asked(*layer.project(tokens), known, said))
        answers: Tensor = self.head(tokens)
        return answers


def _among(query: Tensor, known: Tensor, said: Tensor) -> Tensor:
    """Attention among rows with outcomes; on a CPU it trains faster than the fused one."""
    return (query / query.shape[-1] ** 0.5 @ known.mT).softmax(-1) @ said


def _asked(query: Tensor, key: Tensor, value: Tensor, known: Tensor, said: Tensor) -> Tensor:
    """Attention of rows to be predicted, to the keys and values of the others and to their own."""
    query = query / query.shape[-1] ** 0.5
    own = (query * key).sum(-1, keepdim=True)
    weights = torch.cat([query @ known.mT, own], -1).softmax(-1)
    return weights[..., :-1] @ said + weights[..., -1:] * value
