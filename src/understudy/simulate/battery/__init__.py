"""Lithium-ion cells, solved by PyBaMM (extra ``battery``).

`DischargeSimulator`  constant-current discharges to the voltage cut-off
`discharge_runs`      a table of discharges, kept between calls
"""

from __future__ import annotations

from understudy.simulate.battery.discharge import DischargeSimulator, discharge_runs

__all__ = ["DischargeSimulator", "discharge_runs"]
