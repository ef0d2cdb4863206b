"""Partial differential equations, solved for many parameters and first fields at once.

- :class:`KuramotoSivashinsky`, :class:`Advection`, :class:`Burgers`, :class:`CombinedEquation`
  (the family E1 to E3), :class:`FisherKPP`: one dimension, periodic.
- :class:`NavierStokes`, :class:`KolmogorovFlow`: flow on a periodic square.
- :class:`FitzHughNagumo`: patterns on a square without flux.
- :class:`Heat`: between walls of constant temperature, in one or two dimensions.
- :class:`CompressibleFlow`, :class:`ShallowWater`: gas in one dimension, water in two, with shocks.
- :class:`Darcy`, :class:`Helmholtz`: one field for a random medium.
- :class:`Wave`, :class:`ElasticWave`: a pulse in a square; :class:`DrivenWave`: a source in one; by
  finite elements.
- :data:`EQUATIONS` and :func:`named`: these by their names, for data sets.
"""

from understudy.simulate.pde.advection import Advection
from understudy.simulate.pde.compressible import CompressibleFlow
from understudy.simulate.pde.conservation import Burgers, CombinedEquation
from understudy.simulate.pde.darcy import Darcy
from understudy.simulate.pde.driven_wave import DrivenWave
from understudy.simulate.pde.elastic_wave import ElasticWave
from understudy.simulate.pde.heat import Heat
from understudy.simulate.pde.helmholtz import Helmholtz
from understudy.simulate.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from understudy.simulate.pde.named import EQUATIONS, named
from understudy.simulate.pde.navier_stokes import KolmogorovFlow, NavierStokes
from understudy.simulate.pde.reaction_diffusion import FisherKPP, FitzHughNagumo
from understudy.simulate.pde.shallow_water import ShallowWater
from understudy.simulate.pde.wave import Wave

__all__ = [
    "EQUATIONS",
    "Advection",
    "Burgers",
    "CombinedEquation",
    "CompressibleFlow",
    "Darcy",
    "DrivenWave",
    "ElasticWave",
    "FisherKPP",
    "FitzHughNagumo",
    "Heat",
    "Helmholtz",
    "KolmogorovFlow",
    "KuramotoSivashinsky",
    "NavierStokes",
    "ShallowWater",
    "Wave",
    "named",
]
