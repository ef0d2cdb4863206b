"""Read any network of a cell from its file."""

from __future__ import annotations

from pathlib import Path

from understudy.core import artifact
from understudy.core.artifact import ArtifactError
from understudy.models.physics.battery import KIND, CellPINN
from understudy.models.physics.battery_p2d import P2DPINN
from understudy.models.physics.battery_spm import BatteryPINN


def load_network(path: str | Path) -> CellPINN:
    """Read a network that `CellPINN.save` wrote; it predicts, but cannot be trained on.

    Raises
    ------
    ArtifactError
        If the file is another thing, or its parts do not fit together.
    """
    stored = artifact.read(path)
    if stored.manifest["kind"] != KIND:
        raise ArtifactError(f"{path} holds a {stored.manifest['kind']!r}, not a network of a cell")
    kinds: dict[str, type[CellPINN]] = {"BatteryPINN": BatteryPINN, "P2DPINN": P2DPINN}
    try:
        settings = stored.manifest["network"]
        model = kinds[settings["class"]].from_settings(settings)
        model.load_state_dict(stored.tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} holds a network whose parts do not fit together "
            f"({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        ) from error
    return model
