"""A network of fields whose convolutions are one-way filters (arXiv 2304.04964)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from understudy.core.convert import Swap
from understudy.models.operators.network import FieldNetwork, Records
from understudy.nn.one_way_network import OneWayPlan, Start, one_way


class OneWayNetwork(FieldNetwork):
    """Any network of fields with the convolutions that a plan chooses rewritten.

    Parameters
    ----------
    network : FieldNetwork
        It stays as it is.
    plan : OneWayPlan
    start : {"fresh", "truncated"}
        Filters to be trained, or those that approximate what the network has learnt.

    Attributes
    ----------
    network : FieldNetwork
        The rewritten copy.
    swaps : list of Swap
    """

    kind: ClassVar[str] = "one-way"
    records: ClassVar[Records] = {"plan": OneWayPlan}

    def __init__(
        self, network: FieldNetwork, plan: OneWayPlan | None = None, start: Start = "fresh"
    ) -> None:
        super().__init__()
        plan = plan or OneWayPlan()
        rewritten, swaps = one_way(network, plan, start)
        assert isinstance(rewritten, FieldNetwork)
        self.network = rewritten
        self.swaps: list[Swap] = swaps
        self.settings = {"network": network.describe(), "plan": plan.describe()}

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """What the rewritten network gives."""
        out: Tensor = self.network(u, p)
        return out
