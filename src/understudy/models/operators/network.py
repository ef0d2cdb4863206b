"""What operators are made of: a network from fields to fields that can be described in JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar, Self, TypeAlias

from torch import Tensor, nn

from understudy.core.errors import UserError

NETWORKS = {
    "fno": "understudy.models.operators.fno:FNO",
    "unet": "understudy.models.operators.unet:UNet",
    "plain-unet": "understudy.models.operators.unet:PlainUNet",
    "dilated": "understudy.models.operators.dilated:DilatedResNet",
    "mp-pde": "understudy.models.operators.mp_pde:MPPDE",
    "deeponet": "understudy.models.operators.deeponet:DeepONet",
    "multionet": "understudy.models.operators.multionet:FieldMultiONet",
    "dgno": "understudy.models.operators.generative_fields:GenerativeFields",
    "sensor-fields": "understudy.models.operators.generative_fields:SensorFields",
    "pointwise-fields": "understudy.models.operators.generative_fields:PointwiseFields",
    "wave-fields": "understudy.models.operators.burgers_dgno:WaveFields",
    "mgno": "understudy.models.operators.mgno:MgNO",
    "mgno-helmholtz": "understudy.models.operators.mgno:HelmholtzMgNO",
    "wave-cnn": "understudy.models.operators.wave_cnn:WaveCNN",
    "parametric-decoder": "understudy.models.operators.parametric_decoder:ParametricDecoder",
    "one-way": "understudy.models.operators.one_way:OneWayNetwork",
    "cape": "understudy.models.operators.cape:ParameterConditioned",
    "concat-parameters": "understudy.models.operators.cape:ConcatParameters",
}
"""Where the network of each kind is; files name kinds only."""


Records: TypeAlias = Mapping[str, Callable[..., Any]]


class FieldNetwork(nn.Module, ABC):
    """A network from fields, and parameters of the equation, to fields.

    Attributes
    ----------
    kind : str
        Its key in :data:`NETWORKS`.
    settings : dict
        JSON from which :meth:`from_settings` makes an untrained twin.
    """

    kind: ClassVar[str]
    records: ClassVar[Records] = {}
    """What makes a setting that is a record of its own, by the setting's name."""
    settings: dict[str, Any]

    @abstractmethod
    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Fields ``(B, C_out, *space)`` of fields ``(B, C_in, *space)``, parameters ``(B, P)``."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Untrained network, with what it wraps: networks of fields, and its :attr:`records`."""
        return cls(**{name: cls._made(name, value) for name, value in settings.items()})

    @classmethod
    def _made(cls, name: str, value: Any) -> Any:
        if name in cls.records:
            return cls.records[name](**value)
        is_network = isinstance(value, Mapping) and set(value) == {"kind", "settings"}
        return build(value) if is_network else value

    def describe(self) -> dict[str, Any]:
        """JSON that :func:`build` reads."""
        return {"kind": self.kind, "settings": self.settings}


def build(description: Mapping[str, Any]) -> FieldNetwork:
    """Untrained network of a description.

    Raises
    ------
    UserError
        If its kind is unknown or its settings are not those of the kind.
    """
    kind, settings = description.get("kind"), description.get("settings")
    if kind not in NETWORKS or not isinstance(settings, Mapping):
        raise UserError(f"no network is called {kind!r}; known are {', '.join(NETWORKS)}")
    module, _, name = NETWORKS[kind].partition(":")
    try:
        network = getattr(import_module(module), name).from_settings(settings)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"a network {kind!r} cannot have these settings: {error}") from error
    assert isinstance(network, FieldNetwork)
    return network
