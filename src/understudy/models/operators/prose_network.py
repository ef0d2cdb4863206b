r"""The transformer of PROSE: two encoders, a fusion, two decoders (Liu et al. 2023, 2309.16816).

With LN the layer normalisation, every layer is post-norm,

.. math:: x \leftarrow \mathrm{LN}(x + \mathrm{attention}(x)), \qquad
    x \leftarrow \mathrm{LN}(x + \mathrm{ffn}(x)),

and the network is

.. math::

    D = \mathrm{encoder}_D\big(\mathrm{LN}(\mathrm{embed}(t_i, u(t_i)))\big), \qquad
    S = \mathrm{encoder}_S\big(\mathrm{LN}(\mathrm{token} + \mathrm{position})\big), \\
    [F_D, F_S] = \mathrm{fusion}\big(\mathrm{LN}[D + \tau_0, S + \tau_1]\big), \\
    \hat u(t) = \mathrm{linear}\big(\mathrm{decoder}_D(\mathrm{LN}(\mathrm{linear}(t)); F_D)\big),
    \qquad \mathrm{logits} = \mathrm{decoder}_S(\mathrm{tokens}; F_S) .

Times of the input are features, not positions. Layers of :math:`\mathrm{decoder}_D` have cross
attention only, so that what is said of one time does not depend on which other times are asked
for: it is an operator without a mesh. :math:`\mathrm{decoder}_S` is causal and its output shares
the embedding of its input. Each decoder sees its own half of the fused features only; information
crosses in the fusion.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.core.errors import UserError

Variant = Literal["multimodal", "data-only", "text-only", "no-text"]
VARIANTS = ("multimodal", "data-only", "text-only", "no-text")

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values (B, heads, n, width / heads) of a layer, one pair a layer."""


@dataclass(frozen=True)
class PROSEArchitecture:
    """Sizes of a :class:`PROSENetwork`; unless given those of the paper, 105 million weights.

    Parameters
    ----------
    num_tokens : int
        Of the vocabulary; token 0 is the padding.
    max_dim : int
        Components of the largest system.
    width, heads : int
        Of all layers; the feed-forward maps have four times the width.
    data_layers, symbol_layers, fusion_layers : int
        Of both encoders and of the fusion.
    data_decoder_layers, symbol_decoder_layers : int
    variant : {"multimodal", "data-only", "text-only", "no-text"}
        ``"data-only"`` has no symbol decoder, ``"text-only"`` no data decoder, ``"no-text"``
        neither reads nor writes symbols.
    max_tokens : int
        Longest row of tokens; 150 in the paper.
    """

    num_tokens: int
    max_dim: int
    width: int = 512
    heads: int = 8
    data_layers: int = 2
    symbol_layers: int = 4
    fusion_layers: int = 8
    data_decoder_layers: int = 8
    symbol_decoder_layers: int = 8
    variant: Variant = "multimodal"
    max_tokens: int = 150

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise UserError(f"a width of {self.width} does not divide among {self.heads} heads")
        if self.variant not in VARIANTS:
            raise UserError(f"variant must be one of {', '.join(VARIANTS)}, found {self.variant!r}")
        sizes = {k: v for k, v in asdict(self).items() if k != "variant"}
        small = [name for name, value in sizes.items() if value < 1]
        if small:
            raise UserError(f"{small[0]} must be at least 1, found {sizes[small[0]]}")

    @property
    def reads_symbols(self) -> bool:
        """Whether a guess of the equation is an input."""
        return self.variant != "no-text"

    @property
    def writes_symbols(self) -> bool:
        """Whether the equation is an output."""
        return self.variant in ("multimodal", "text-only")

    @property
    def writes_data(self) -> bool:
        """Whether the solution is an output."""
        return self.variant != "text-only"


@dataclass(frozen=True)
class Fused:
    """Fused features of a batch.

    Parameters
    ----------
    data : Tensor (B, T, width)
    symbols : Tensor (B, L, width), optional
    real : Tensor (B, L), optional
        Which symbols are no padding.
    """

    data: Tensor
    symbols: Tensor | None = None
    real: Tensor | None = None

    def repeated(self, times: int) -> Fused:
        """Every row so many times, one after the other."""
        rows = (
            None if x is None else x.repeat_interleave(times, 0)
            for x in (self.data, self.symbols, self.real)
        )
        return Fused(*rows)  # type: ignore[arg-type]


class _Attention(nn.Module):
    """Attention of x to itself, or to a memory."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.memory = nn.Linear(width, 2 * width)
        self.outward = nn.Linear(width, width)
        # of projections that are one matrix, as is usual
        bound = math.sqrt(6.0 / (4 * width))
        for layer in (self.query, self.memory):
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.outward.bias)

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (B, heads, n, width / heads)."""
        key, value = self._split(self.memory(memory), 2)
        return key, value

    def forward(
        self,
        x: Tensor,
        remembered: tuple[Tensor, Tensor],
        seen: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        (query,) = self._split(self.query(x), 1)
        key, value = remembered
        mixed = F.scaled_dot_product_attention(query, key, value, seen, is_causal=causal)
        return cast(Tensor, self.outward(mixed.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class _FeedForward(nn.Module):
    """Two maps with GELU between them, added to x and normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x + self.down(F.gelu(self.up(x)))))


class _EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.feed = _FeedForward(width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        x = self.norm(x + self.attention(x, self.attention.remember(x), seen))
        return cast(Tensor, self.feed(x))


class _CrossLayer(nn.Module):
    """Attention to a memory without any among the queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.feed = _FeedForward(width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.norm(x + self.attention(x, self.attention.remember(memory)))
        return cast(Tensor, self.feed(x))


class _SymbolLayer(nn.Module):
    """Causal attention among tokens, then attention to a memory."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.own, self.cross = _Attention(width, heads), _Attention(width, heads)
        self.own_norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = _FeedForward(width)

    def forward(
        self,
        x: Tensor,
        own: tuple[Tensor, Tensor],
        memory: tuple[Tensor, Tensor],
        seen: Tensor | None,
        causal: bool,
    ) -> Tensor:
        x = self.own_norm(x + self.own(x, own, causal=causal))
        x = self.cross_norm(x + self.cross(x, memory, seen))
        return cast(Tensor, self.feed(x))


class _Tokens(nn.Module):
    """Embedding of tokens with sinusoidal positions, normalised."""

    positions: Tensor

    def __init__(self, sizes: PROSEArchitecture) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.num_tokens, sizes.width, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=sizes.width**-0.5)
        with torch.no_grad():
            self.embedding.weight[0].zero_()
        rows = sinusoids(sizes.max_tokens + 2, sizes.width)
        self.register_buffer("positions", rows, persistent=False)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        places = self.positions[start : start + tokens.shape[1]]
        return cast(Tensor, self.norm(self.embedding(tokens) + places))


def sinusoids(count: int, width: int) -> Tensor:
    r"""Positions ``(count, width)``: :math:`\sin`, :math:`\cos` of :math:`k\,10^{-8j/w}`."""
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    phase = torch.arange(count)[:, None] * frequency
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)


class PROSENetwork(nn.Module):
    """From samples of a trajectory and tokens of a guess to values at any times and tokens.

    Parameters
    ----------
    architecture : PROSEArchitecture
    """

    def __init__(self, architecture: PROSEArchitecture) -> None:
        super().__init__()
        sizes = self.architecture = architecture
        width, heads = sizes.width, sizes.heads

        def stack(kind: type[nn.Module], count: int) -> nn.ModuleList:
            return nn.ModuleList(kind(width, heads) for _ in range(count))

        self.embed = nn.Sequential(
            nn.Linear(1 + sizes.max_dim, width), nn.GELU(), nn.Linear(width, width)
        )
        self.data_norm = nn.LayerNorm(width)
        self.data_encoder = stack(_EncoderLayer, sizes.data_layers)
        self.fusion_norm = nn.LayerNorm(width)
        self.fusion = stack(_EncoderLayer, sizes.fusion_layers)
        if sizes.reads_symbols:
            self.types = nn.Parameter(torch.randn(2, width) * width**-0.5)
            self.symbols = _Tokens(sizes)
            self.symbol_encoder = stack(_EncoderLayer, sizes.symbol_layers)
        if sizes.writes_data:
            self.query = nn.Linear(1, width)
            self.query_norm = nn.LayerNorm(width)
            self.data_decoder = stack(_CrossLayer, sizes.data_decoder_layers)
            self.values = nn.Linear(width, sizes.max_dim)
            nn.init.zeros_(self.values.weight)  # relative errors start at one in every family
        if sizes.writes_symbols:
            self.written = _Tokens(sizes)
            self.symbol_decoder = stack(_SymbolLayer, sizes.symbol_decoder_layers)
            self.output_bias = nn.Parameter(torch.zeros(sizes.num_tokens))

    def describe(self) -> dict[str, Any]:
        """JSON from which ``PROSEArchitecture`` is made again."""
        return asdict(self.architecture)

    def encode(self, t: Tensor, u: Tensor, guess: Tensor | None = None) -> Fused:
        """Fused features.

        Parameters
        ----------
        t : Tensor (T,)
        u : Tensor (B, T, max_dim)
        guess : LongTensor (B, L), optional
            Padded with 0; without ``<BOS>`` and ``<EOS>``.
        """
        clock = t.to(u)[None, :, None].expand(len(u), -1, 1)
        data = self.data_norm(self.embed(torch.cat([clock, u], dim=-1)))
        for layer in self.data_encoder:
            data = layer(data)
        if not self.architecture.reads_symbols or guess is None:
            return Fused(self._fuse(data, None))
        real = guess != 0
        seen = real[:, None, None, :]
        symbols = self.symbols(guess)
        for layer in self.symbol_encoder:
            symbols = layer(symbols, seen)
        both = torch.cat([data + self.types[0], symbols + self.types[1]], dim=1)
        points = data.shape[1]
        everything = torch.cat([real.new_ones(len(u), points), real], dim=1)
        both = self._fuse(both, everything[:, None, None, :])
        return Fused(both[:, :points], both[:, points:], real)

    def _fuse(self, x: Tensor, seen: Tensor | None) -> Tensor:
        x = self.fusion_norm(x)
        for layer in self.fusion:
            x = layer(x, seen)
        return x

    def solution(self, fused: Fused, t_query: Tensor) -> Tensor:
        """Values ``(B, q, max_dim)`` at times ``(q,)``, each independent of the other times."""
        x = self.query_norm(self.query(t_query.to(fused.data)[:, None]))
        x = x.expand(len(fused.data), -1, -1)
        for layer in self.data_decoder:
            x = layer(x, fused.data)
        return cast(Tensor, self.values(x))

    @torch.no_grad()
    def centre_queries(self, first: float, last: float, reach: float = 2.0) -> None:
        r"""Begin with :math:`\mathrm{linear}((t - c)\, r / h)` of requests at t.

        c is the middle of `first` and `last`, h half of their distance and r the reach. After the
        normalisation times are then spread over more of a half-circle.
        """
        weight = self.query.weight
        weight.mul_(2.0 * reach / (last - first))
        self.query.bias.sub_(0.5 * (first + last) * weight[:, 0])

    def logits(self, fused: Fused, tokens: Tensor, where: Tensor | None = None) -> Tensor:
        """Logits ``(B, L, num_tokens)`` of the token after each of ``<BOS>, ...`` ``(B, L)``.

        With places `where` (B, L) only those, ``(places, num_tokens)``.
        """
        x = self.written(tokens)
        memories = self.remember(fused)
        seen = None if fused.real is None else fused.real[:, None, None, :]
        for layer, memory in zip(self._symbol_layers, memories, strict=True):
            x = layer(x, layer.own.remember(x), memory, seen, causal=True)
        return self._tied(x if where is None else x[where])

    def remember(self, fused: Fused) -> Cache:
        """Keys and values of the fused symbols, which serve every token that is written."""
        assert fused.symbols is not None
        return [layer.cross.remember(fused.symbols) for layer in self._symbol_layers]

    def next_logits(
        self, tokens: Tensor, place: int, cache: Cache, memories: Cache, seen: Tensor
    ) -> tuple[Tensor, Cache]:
        """Logits ``(B, num_tokens)`` after one more token, with what earlier ones left behind.

        Parameters
        ----------
        tokens : LongTensor (B,)
            The token at `place`.
        place : int
            0 for ``<BOS>``.
        cache : list
            Empty at first, then what the last call returned.
        memories : list
            Of :meth:`remember`.
        seen : Tensor (B, 1, 1, L)
        """
        x = self.written(tokens[:, None], place)
        kept: Cache = []
        for i, layer in enumerate(self._symbol_layers):
            key, value = layer.own.remember(x)
            if cache:
                key = torch.cat([cache[i][0], key], dim=2)
                value = torch.cat([cache[i][1], value], dim=2)
            kept.append((key, value))
            x = layer(x, (key, value), memories[i], seen, causal=False)
        return self._tied(x)[:, 0], kept

    @property
    def _symbol_layers(self) -> list[_SymbolLayer]:
        return cast("list[_SymbolLayer]", list(self.symbol_decoder))

    def _tied(self, x: Tensor) -> Tensor:
        return F.linear(x, self.written.embedding.weight, self.output_bias)
