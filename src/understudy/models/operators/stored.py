"""Read any operator from its file."""

from __future__ import annotations

from pathlib import Path

from understudy.core.errors import UserError
from understudy.models.operators.curriculum import CurriculumRollout
from understudy.models.operators.dgno import (
    DeepGenerativeNeuralOperator,
    PIDeepONet,
    PIMultiONet,
    WeakFormOperator,
)
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.one_step import LearnedStepper, OneStepModel
from understudy.models.operators.pde_refiner import PDERefiner
from understudy.models.operators.training import read_operator

_KINDS: tuple[type[LearnedStepper] | type[FieldMap] | type[WeakFormOperator], ...] = (
    OneStepModel,
    PDERefiner,
    CurriculumRollout,
    FieldMap,
    DeepGenerativeNeuralOperator,
    PIMultiONet,
    PIDeepONet,
)


def load_operator(path: str | Path) -> LearnedStepper | FieldMap | WeakFormOperator:
    """Read an operator of any kind from a ``.us`` file.

    Raises
    ------
    UserError
        If the file holds none, or one of a kind that is not known.
    """
    stored = read_operator(path)
    for kind in _KINDS:
        if kind.model == stored.model:
            return kind.restore(stored)
    raise UserError(f"{path} holds an operator of the unknown kind {stored.model!r}")
