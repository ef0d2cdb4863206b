"""Read any operator from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.models.operators.burgers_dgno import BurgersNeuralOperator
from understudy.models.operators.curriculum import CurriculumRollout
from understudy.models.operators.dgno import DeepGenerativeNeuralOperator
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.one_step import LearnedStepper, OneStepModel
from understudy.models.operators.pde_refiner import PDERefiner
from understudy.models.operators.prose import KIND as PROSE_KIND
from understudy.models.operators.prose import PROSE
from understudy.models.operators.residual_operator import (
    DifferenceDeepONet,
    PIDeepONet,
    PIMultiONet,
    ResidualOperator,
)
from understudy.models.operators.sound import KIND as SOUND
from understudy.models.operators.sound import SoundOperator
from understudy.models.operators.training import read_operator

StoredOperator = (
    LearnedStepper
    | FieldMap
    | ResidualOperator[Any]
    | BurgersNeuralOperator
    | SoundOperator
    | PROSE
)

_KINDS: tuple[
    type[LearnedStepper]
    | type[FieldMap]
    | type[ResidualOperator[Any]]
    | type[BurgersNeuralOperator],
    ...,
] = (
    OneStepModel,
    PDERefiner,
    CurriculumRollout,
    FieldMap,
    DeepGenerativeNeuralOperator,
    PIMultiONet,
    PIDeepONet,
    DifferenceDeepONet,
    BurgersNeuralOperator,
)


def load_operator(path: str | Path) -> StoredOperator:
    """Read an operator of any kind from a ``.us`` file.

    Raises
    ------
    UserError
        If the file holds none, or one of a kind that is not known.
    """
    found = artifact.read(path).manifest.get("kind")
    if found == SOUND:
        return SoundOperator.load(path)
    if found == PROSE_KIND:
        return PROSE.load(path)
    stored = read_operator(path)
    for kind in _KINDS:
        if kind.model == stored.model:
            return kind.restore(stored)
    raise UserError(f"{path} holds an operator of the unknown kind {stored.model!r}")
