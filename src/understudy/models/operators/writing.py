r"""Equations written token by token: greedily, or by beam search.

A beam is the likeliest beginnings of an equation. Each is continued by all tokens, and the best k
of all continuations by :math:`\sum_i \log p_i` are kept; one that ends with ``<EOS>`` stays as it
is. Of those that are equations the one with the largest mean :math:`\log p_i` is the answer. All
beams of all trajectories are one batch, and keys and values of earlier tokens are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.expressions import ExpressionList
from understudy.models.operators.equation_tokens import ExpressionTokenizer
from understudy.models.operators.prose_network import Cache, Fused, PROSENetwork


@torch.no_grad()
def write_tokens(
    network: PROSENetwork, tokenizer: ExpressionTokenizer, fused: Fused, beams: int = 1
) -> tuple[Tensor, Tensor]:
    """Likeliest rows of tokens.

    Parameters
    ----------
    network : PROSENetwork
        With a symbol decoder.
    tokenizer : ExpressionTokenizer
    fused : Fused
        Of B trajectories.
    beams : int
        1 is greedy.

    Returns
    -------
    tokens : LongTensor (B, beams, L)
        With ``<EOS>`` where they end, padded after it.
    scores : Tensor (B, beams)
        Means of log-probabilities.
    """
    batch, k = len(fused.data), beams
    fused = fused.repeated(k)
    memories = network.remember(fused)
    assert fused.real is not None
    seen = fused.real[:, None, None, :]
    device = fused.data.device
    last = torch.full((batch * k,), tokenizer.bos, device=device)
    tokens = torch.zeros(batch * k, 0, dtype=torch.long, device=device)
    total = torch.full((batch, k), -torch.inf, device=device)
    total[:, 0] = 0.0  # all beams begin alike
    length = torch.zeros(batch, k, device=device)
    ended = torch.zeros(batch * k, dtype=torch.bool, device=device)
    cache: Cache = []
    for place in range(network.architecture.max_tokens + 1):
        logits, cache = network.next_logits(last, place, cache, memories, seen)
        logits[:, [tokenizer.pad, tokenizer.bos]] = -torch.inf
        step = logits.log_softmax(-1)
        # what has ended goes on with padding, at no cost
        step[ended] = -torch.inf
        step[ended, tokenizer.pad] = 0.0
        scores = (total.flatten()[:, None] + step).view(batch, -1)
        total, choice = scores.topk(k, dim=1)
        parent = choice // step.shape[1] + k * torch.arange(batch, device=device)[:, None]
        parent, last = parent.flatten(), (choice % step.shape[1]).flatten()
        tokens = torch.cat([tokens[parent], last[:, None]], dim=1)
        length = length.flatten()[parent].view(batch, k) + (~ended[parent]).view(batch, k)
        ended = ended[parent] | (last == tokenizer.eos)
        if k > 1:
            cache = [(key[parent], value[parent]) for key, value in cache]
        if bool(ended.all()):
            break
    return tokens.view(batch, k, -1), total / length


def write_equations(
    network: PROSENetwork, tokenizer: ExpressionTokenizer, fused: Fused, beams: int = 1
) -> list[ExpressionList | None]:
    """The best equation of each trajectory, None where no beam is one."""
    tokens, scores = write_tokens(network, tokenizer, fused, beams)
    order = scores.argsort(dim=1, descending=True)
    rows = tokens.gather(1, order[:, :, None].expand_as(tokens)).tolist()
    written = ((tokenizer.decode(row) for row in some) for some in rows)
    return [next((e for e in some if e is not None), None) for some in written]
