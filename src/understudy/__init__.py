"""Understudy: something expensive turned into something cheap that can be trusted.

What a user meets first, imported when first used:

==================  ==================================================================
`fit`               from a table of runs to a calibrated surrogate
`load`              read a surrogate from a ``.us`` file
`load_operator`     read an operator of fields from a ``.us`` file
`load_solver`       read a solver of linear systems from a ``.us`` file
`connect`           a surrogate that `understudy serve` serves, from another process or machine
`connect_operator`  an operator of fields that it serves
`write_report`      one HTML page about a surrogate
`read_table`        read CSV, TSV, Parquet or NPZ into a DataFrame
`load_dataset`      a named public data set
`FittedSurrogate`   what `fit` returns
`Surrogate`         the contract of every surrogate
`Predictive`        marginal predictive distributions
`Space`             named inputs with kinds, bounds and units
`Continuous`, `Integer`, `Categorical`  the kinds of inputs
`Simulator`         the contract of every simulator
`UserError`         bad input, explained in one sentence
==================  ==================================================================
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "fit": "understudy.models.tabular.fit",
    "load": "understudy.models.tabular.fitted",
    "load_operator": "understudy.models.operators.stored",
    "load_solver": "understudy.models.inverse.dcdm",
    "connect": "understudy.serve.client",
    "connect_operator": "understudy.serve.remote_operator",
    "write_report": "understudy.report",
    "read_table": "understudy.data.readers",
    "load_dataset": "understudy.data.datasets",
    "FittedSurrogate": "understudy.models.tabular.fitted",
    "Surrogate": "understudy.core.surrogate",
    "Predictive": "understudy.core.predictive",
    "Space": "understudy.core.space",
    "Continuous": "understudy.core.space",
    "Integer": "understudy.core.space",
    "Categorical": "understudy.core.space",
    "Simulator": "understudy.core.simulator",
    "UserError": "understudy.core.errors",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from understudy.core.errors import UserError as UserError
    from understudy.core.predictive import Predictive as Predictive
    from understudy.core.simulator import Simulator as Simulator
    from understudy.core.space import Categorical as Categorical
    from understudy.core.space import Continuous as Continuous
    from understudy.core.space import Integer as Integer
    from understudy.core.space import Space as Space
    from understudy.core.surrogate import Surrogate as Surrogate
    from understudy.data.datasets import load_dataset as load_dataset
    from understudy.data.readers import read_table as read_table
    from understudy.models.inverse.dcdm import load_solver as load_solver
    from understudy.models.operators.stored import load_operator as load_operator
    from understudy.models.tabular.fit import fit as fit
    from understudy.models.tabular.fitted import FittedSurrogate as FittedSurrogate
    from understudy.models.tabular.fitted import load as load
    from understudy.report import write_report as write_report
    from understudy.serve.client import connect as connect
    from understudy.serve.remote_operator import connect_operator as connect_operator


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'understudy' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
