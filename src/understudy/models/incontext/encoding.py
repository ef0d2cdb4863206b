"""How rows reach an in-context network, alike in pre-training and in use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_ROOT_12 = math.sqrt(12.0)  # 1 / sd of a uniform number


@dataclass(frozen=True)
class Encoding:
    """Scales of inputs and outcomes.

    Parameters
    ----------
    features : int
        Inputs of the network; rows with fewer are padded with zeros and scaled by
        ``features / used``.
    inputs : {"unit", "standard"}
        Whether inputs lie in [0, 1], and are standardised as uniform numbers, or have mean 0 and
        variance 1 already.
    outcomes : {"context", "unit", "raw"}
        Standardised by the rows with outcomes; taken as uniform in [0, 1]; or left alone.
    """

    features: int
    inputs: Literal["unit", "standard"] = "unit"
    outcomes: Literal["context", "unit", "raw"] = "context"

    def rows(self, x: Tensor, used: Tensor | int | None = None) -> Tensor:
        r"""Inputs (\*B, N, d) as the network reads them, (\*B, N, features)."""
        d = x.shape[-1]
        count = torch.as_tensor(d if used is None else used, device=x.device)
        if self.inputs == "unit":
            x = _ROOT_12 * (x - 0.5)
        mask = torch.arange(d, device=x.device) < count.unsqueeze(-1)
        scaled = x * (mask * (self.features / count.unsqueeze(-1).to(x.dtype))).unsqueeze(-2)
        return torch.nn.functional.pad(scaled, (0, self.features - d))

    def outcome_scale(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Shift and scale (\*B, 1) by which the network reads outcomes (\*B, n) of a context.

        A context of one row has no spread, and a constant one none to speak of: their scale is 1.
        """
        shift = torch.zeros(*y.shape[:-1], 1, dtype=y.dtype, device=y.device)
        scale = torch.ones_like(shift)
        if self.outcomes == "unit":
            return shift + 0.5, scale / _ROOT_12
        if self.outcomes == "raw" or y.shape[-1] == 0:
            return shift, scale
        shift = y.mean(-1, keepdim=True)
        if y.shape[-1] == 1:
            return shift, scale
        spread = y.std(-1, keepdim=True)
        flat = spread <= 1e-6 * shift.abs().clamp_min(1e-30)
        return shift, torch.where(flat, scale, spread)
