"""Networks that obey equations: blocks of which one writes one's own, and two for batteries.

`PINN`, `Training`          the base: name coordinates, return residuals; how it is fitted
`Jet`, `coordinates`        values with first and second derivatives, carried forward
`cat`, `stack`, `unit`      jets joined, and scaled to [-1, 1]
`JetMLP`, `GatedHeads`, `Affine`   layers of jets, many networks at once
`gate`, `vanishing`         hard conditions at the start and at boundaries
`Box`, `Collocation`        where residuals are asked for
`Term`, `FixedWeights`, `AnnealedWeights`, `SelfAdaptiveWeights`   residuals and their weights
`lbfgs`                     L-BFGS for many networks, each with its own step
`frozen`                    a parent that others correct
`gauss_legendre`            nodes and weights of integrals
`BatteryPINN`, `P2DPINN`, `HierarchicalPINN`, `load_network`   lithium-ion cells
"""

from __future__ import annotations

from understudy.models.physics.battery import CellData
from understudy.models.physics.battery_p2d import (
    P2DPINN,
    ChargeBalance,
    LithiumInventory,
    SaltBalance,
)
from understudy.models.physics.battery_spm import BatteryPINN, HierarchicalPINN
from understudy.models.physics.jet import Jet, cat, coordinates, stack, unit
from understudy.models.physics.lbfgs import lbfgs
from understudy.models.physics.networks import Affine, GatedHeads, JetMLP
from understudy.models.physics.pinn import (
    PINN,
    History,
    Training,
    frozen,
    gate,
    gauss_legendre,
    vanishing,
)
from understudy.models.physics.residuals import (
    AnnealedWeights,
    Batch,
    Box,
    Collocation,
    FixedWeights,
    SelfAdaptiveWeights,
    Term,
)
from understudy.models.physics.stored import load_network

__all__ = [
    "P2DPINN",
    "PINN",
    "Affine",
    "AnnealedWeights",
    "Batch",
    "BatteryPINN",
    "Box",
    "CellData",
    "ChargeBalance",
    "Collocation",
    "FixedWeights",
    "GatedHeads",
    "HierarchicalPINN",
    "History",
    "Jet",
    "JetMLP",
    "LithiumInventory",
    "SaltBalance",
    "SelfAdaptiveWeights",
    "Term",
    "Training",
    "cat",
    "coordinates",
    "frozen",
    "gate",
    "gauss_legendre",
    "lbfgs",
    "load_network",
    "stack",
    "unit",
    "vanishing",
]
