"""Samplers of probability densities, many chains at once, and how far to trust what they give.

- :class:`HMC`: Hamiltonian Monte Carlo with dual averaging.
- :class:`SGHMC`: adaptive stochastic-gradient Hamiltonian Monte Carlo.
- :class:`Gibbs`: SGHMC by turns with exact draws of auxiliary variables.
- :class:`EnsembleSampler`: stretch moves of an ensemble, without gradients.
- :class:`SGLD` with :class:`ConstantSteps` or :class:`CyclicalSteps`: Langevin dynamics.
- :func:`sample`, :func:`resume`, :class:`Plan`, :class:`Chains`: run one, go on with it, keep it.
- :func:`maximise`: a warm start. :class:`Minibatch`: a density seen through a few rows at a time.
- :func:`diagnose`: R-hat, effective sample sizes and E-BFMI.
"""

from understudy.sample.chains import Chains, CyclicalPlan, Plan, resume, sample
from understudy.sample.density import Minibatch, value_and_gradient
from understudy.sample.diagnostics import Diagnostics, diagnose, e_bfmi
from understudy.sample.ensemble import EnsembleSampler
from understudy.sample.gibbs import Gibbs
from understudy.sample.hmc import HMC
from understudy.sample.sghmc import SGHMC
from understudy.sample.sgld import SGLD, ConstantSteps, CyclicalSteps
from understudy.sample.warm_start import maximise

__all__ = [
    "HMC",
    "SGHMC",
    "SGLD",
    "Chains",
    "ConstantSteps",
    "CyclicalPlan",
    "CyclicalSteps",
    "Diagnostics",
    "EnsembleSampler",
    "Gibbs",
    "Minibatch",
    "Plan",
    "diagnose",
    "e_bfmi",
    "maximise",
    "resume",
    "sample",
    "value_and_gradient",
]
