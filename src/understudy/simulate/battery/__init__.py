"""Lithium-ion cells: a single-particle model of our own, and PyBaMM's models (extra ``battery``).

`SingleParticleModel`  voltages of many cells at once, differentiable; `Drive`, `Solution`, `Moment`
`Cell`, `Electrode`    what it knows of a cell; `hassanaly2024`, and `read_cell` for PyBaMM's sets
`PyBaMMCell`           the same discharges by PyBaMM's SPM, SPMe or DFN
`DischargeSimulator`   constant-current discharges to the voltage cut-off, by PyBaMM's DFN
`discharge_runs`       a table of discharges, kept between calls
"""

from __future__ import annotations

from understudy.data.cells import Cell, Electrode, hassanaly2024
from understudy.simulate.battery.cell import read_cell
from understudy.simulate.battery.discharge import DischargeSimulator, discharge_runs
from understudy.simulate.battery.peer import PyBaMMCell
from understudy.simulate.battery.spm import Drive, Moment, SingleParticleModel, Solution

__all__ = [
    "Cell",
    "DischargeSimulator",
    "Drive",
    "Electrode",
    "Moment",
    "PyBaMMCell",
    "SingleParticleModel",
    "Solution",
    "discharge_runs",
    "hassanaly2024",
    "read_cell",
]
