"""An untrained operator by its name, sized for a set of fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.operator import Operator
from understudy.core.space import nearest
from understudy.emulate.fields import FieldSet
from understudy.models.operators.cape import CAPE, ConcatParameters, ParameterConditioned
from understudy.models.operators.curriculum import CurriculumRollout
from understudy.models.operators.dilated import DilatedResNet
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.fno import FNO
from understudy.models.operators.mgno import MgNO
from understudy.models.operators.mp_pde import MPPDE
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.one_way import OneWayNetwork
from understudy.models.operators.pde_refiner import PDERefiner
from understudy.models.operators.sobolev import SobolevLoss
from understudy.models.operators.unet import UNet
from understudy.models.operators.wave_cnn import WaveCNN
from understudy.nn.one_way_network import OneWayPlan

_FINEST_NOISE = 1e-5  # of a refinement: what networks of these sizes can reach in minutes
_WARMUP = 0.03  # of the budget, the paper's 3 of 100 passes


@dataclass(frozen=True)
class Sizes:
    """What a network is made for: channels in and out, parameters, and the grid."""

    inward: int
    outward: int
    numbers: int
    grid: Grid

    @property
    def dims(self) -> int:
        """Dimensions of space."""
        return len(self.grid.shape)

    @property
    def periodic(self) -> bool:
        """Whether the ends of the box meet."""
        return self.grid.placement == "periodic"


def chosen(model: str, data: FieldSet) -> str:
    """Name of the model, where ``"auto"`` is the first that suits.

    Raises
    ------
    UserError
        If there is no such model for such a problem.
    """
    known = MAPS if data.steady else STEPPERS
    other = STEPPERS if data.steady else MAPS
    name = next(iter(known)) if model == "auto" else model
    if name in known:
        return name
    if name in other:
        kind = "one field a run" if data.steady else "fields over time"
        raise UserError(f"{name} is not for {kind}; choose from {', '.join(known)}")
    raise UserError(f"no model {name!r}{nearest(name, [*known, 'auto'])}")


def recipe(model: str, data: FieldSet) -> Operator:
    """Untrained operator.

    Parameters
    ----------
    model : str
        A key of :data:`STEPPERS` or, for steady problems, of :data:`MAPS`; ``"auto"`` is the first.
    data : FieldSet
    """
    return (MAPS if data.steady else STEPPERS)[chosen(model, data)](data)


def _step_sizes(data: FieldSet, extra_in: int = 0) -> Sizes:
    count = data.fields.shape[2]
    return Sizes(count + extra_in, count, data.parameters.shape[1], data.grid)


def fno(s: Sizes) -> FieldNetwork:
    """Fourier neural operator; fields that are not periodic are padded by a tenth."""
    most = {1: 24, 2: 12, 3: 6}[s.dims]
    modes = [min(most, n // 2) for n in s.grid.shape]
    width = {1: 64, 2: 32, 3: 20}[s.dims]
    padding = 0 if s.periodic else 0.1
    return FNO(s.inward, s.outward, modes, width, padding=padding, num_params=s.numbers)


def unet(s: Sizes) -> FieldNetwork:
    """U-Net with as many halvings as the grid allows, up to three."""
    halvings = 0
    while halvings < 3 and all(n % 2 ** (halvings + 1) == 0 for n in s.grid.shape):
        halvings += 1
    multipliers = (1, 2, 2, 2)[: halvings + 1]
    padding = "circular" if s.periodic else "zeros"
    return UNet(s.inward, s.outward, s.dims, s.numbers, 32, multipliers, 1, padding)  # type: ignore[arg-type]


def dilated(s: Sizes) -> FieldNetwork:
    """Residual network of dilated convolutions."""
    padding = "circular" if s.periodic else "zeros"
    return DilatedResNet(s.inward, s.outward, s.dims, s.numbers, padding=padding)  # type: ignore[arg-type]


def wave_cnn(s: Sizes) -> FieldNetwork:
    """Residual network of kernels of five points."""
    padding = "circular" if s.periodic else "zeros"
    return WaveCNN(s.inward, s.outward, s.dims, s.numbers, padding=padding)  # type: ignore[arg-type]


def one_way_cnn(s: Sizes) -> FieldNetwork:
    """That network with kernels of two products of one-way filters."""
    return OneWayNetwork(wave_cnn(s), OneWayPlan(rank=2))


def message_passing(s: Sizes) -> FieldNetwork:
    """Message-passing solver of one field to the next."""
    return MPPDE(
        s.inward,
        s.outward,
        s.dims,
        fields=s.outward,
        width=64,
        periodic=s.periodic,
        num_params=s.numbers,
    )


def mgno(s: Sizes) -> FieldNetwork:
    """Multigrid neural operator with as many levels as the grid allows, up to five."""
    count, size = 1, min(s.grid.shape)
    while count < 5 and size >= 8:
        count, size = count + 1, size // 2
    levels = (*[(1, 0)] * (count - 1), (2, 0))
    padding = "circular" if s.periodic else "zeros"
    net = MgNO(
        s.inward + s.numbers,
        s.outward,
        width=16,
        depth=4,
        levels=levels,
        size=list(s.grid.shape),
        padding_mode=padding,  # type: ignore[arg-type]
        dims=s.dims,
    )
    return ConcatParameters(net, s.numbers) if s.numbers else net


def _one_step(network: Callable[[Sizes], FieldNetwork]) -> Callable[[FieldSet], Operator]:
    return lambda data: OneStepModel(network(_step_sizes(data)))


def _refined(data: FieldSet) -> Operator:
    s = _step_sizes(data, extra_in=data.fields.shape[2])
    told = Sizes(s.inward, s.outward, s.numbers + 1, s.grid)
    return PDERefiner(dilated(told), min_noise_variance=_FINEST_NOISE)


def _guided(data: FieldSet) -> Operator:
    s = _step_sizes(data)
    if not s.numbers:
        raise UserError("cape needs parameters that differ between runs; there are none here")
    if s.dims > 2:
        raise UserError("cape is for one and two dimensions")
    wide = Sizes(2 * s.inward, 2 * s.outward, 0, s.grid)
    padding = "circular" if s.periodic else "zeros"
    block = CAPE(
        s.inward,
        s.numbers,
        s.grid.shape,
        padding=padding,  # type: ignore[arg-type]
        parameter_scale="identity",
    )
    unroll = min(data.fields.shape[1] - 1, 20)
    return CurriculumRollout(
        ParameterConditioned(fno(wide), block),
        unroll=unroll,
        warmup_share=_WARMUP,
        parameter_scaling="standard",
        scale_fields=True,
    )


def _map(network: Callable[[Sizes], FieldNetwork]) -> Callable[[FieldSet], Operator]:
    def make(data: FieldSet) -> Operator:
        assert data.given is not None
        s = Sizes(data.given.shape[1], data.fields.shape[2], data.parameters.shape[1], data.grid)
        return FieldMap(network(s), loss=SobolevLoss())

    return make


STEPPERS: dict[str, Callable[[FieldSet], Operator]] = {
    "fno": _one_step(fno),
    "unet": _one_step(unet),
    "dilated": _one_step(dilated),
    "wave-cnn": _one_step(wave_cnn),
    "one-way-cnn": _one_step(one_way_cnn),
    "mp-pde": _one_step(message_passing),
    "mgno": _one_step(mgno),
    "cape": _guided,
    "pde-refiner": _refined,
}
"""Operators that go on in time."""

MAPS: dict[str, Callable[[FieldSet], Operator]] = {
    "mgno": _map(mgno),
    "fno": _map(fno),
    "unet": _map(unet),
}
"""Operators of steady problems."""
