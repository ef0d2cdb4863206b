"""Where the truth comes from: simulators.

- :class:`Ishigami`, :class:`Borehole`, :class:`WingWeight`, :class:`OTLCircuit`, :class:`Piston`,
  :class:`Friedman`, :class:`Hartmann6`: closed forms with known facts.
- :class:`Projectile`: flight with drag, an ordinary differential equation with four outputs.
- :mod:`understudy.simulate.objectives`: what searches are compared on, with optima and reference
  points: :class:`Branin`, :class:`Ackley`, :class:`BraninCurrin`, :class:`DTLZ1`, :class:`DTLZ5`,
  :class:`NetworkDraw`, :class:`PolynomialDraw`, :class:`PestControl`, :class:`OilSorbent`.
- :mod:`understudy.simulate.brusselator`: patterns of a reaction with diffusion.
- :mod:`understudy.simulate.pde`: partial differential equations, many runs at a time.
- :mod:`understudy.simulate.battery`: lithium-ion cells, by a model of our own or by PyBaMM (extra
  ``battery``).
"""

from understudy.simulate.functions import (
    Borehole,
    Friedman,
    Hartmann6,
    Ishigami,
    OTLCircuit,
    Piston,
    Projectile,
    WingWeight,
)

__all__ = [
    "Borehole",
    "Friedman",
    "Hartmann6",
    "Ishigami",
    "OTLCircuit",
    "Piston",
    "Projectile",
    "WingWeight",
]
