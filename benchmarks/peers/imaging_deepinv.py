"""DeepInverse: plug-and-play ADMM with its denoisers that need no weights.

Prints a JSON object: records of the methods on one task.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# torchvision of PyPI is built for another PyTorch than that without CUDA; these two are not used
_MISSING = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _MISSING.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from deepinv.models import TVDenoiser, WaveletDenoiser  # noqa: E402
from deepinv.optim import ADMM, L2, PnP  # noqa: E402
from deepinv.physics import LinearPhysics  # noqa: E402

from imaging import SIGMA, TASKS, WEIGHTS, result  # noqa: E402
from understudy.models.inverse.imaging_operators import LinearOperator  # noqa: E402

ITERATIONS = 30
DENOISERS = {
    "deepinv TV": (lambda: TVDenoiser(n_it_max=50), WEIGHTS),
    "deepinv wavelets": (
        lambda: WaveletDenoiser(level=3, wv="db4", non_linearity="soft"),
        tuple(10 * w for w in WEIGHTS),
    ),
}
"""Ways to make them, and the settings to choose among."""


def restore(name: str, task: str, operator: LinearOperator, setting: float, y: Tensor) -> Tensor:
    physics = LinearPhysics(
        A=lambda x, **_: operator.apply(x),
        A_adjoint=lambda v, **_: operator.adjoint(v),
        img_size=operator.image_shape,
        **{"solver": "CG", "max_iter": 30, "tol": 1e-5},
    )
    model = ADMM(
        data_fidelity=L2(),
        prior=PnP(denoiser=DENOISERS[name][0]()),
        stepsize=(SIGMA / TASKS[task].noise) ** 2,
        g_param=setting,
        max_iter=ITERATIONS,
        custom_init=lambda y, physics: {"est": (operator.start(y), operator.start(y))},
    )
    with torch.no_grad():
        return model(y, physics)


if __name__ == "__main__":
    torch.set_num_threads(1)
    task = sys.argv[1]
    operator = TASKS[task].operator()
    records = {}
    for name, (_, settings) in DENOISERS.items():
        found = result(
            task, operator, settings, lambda s, y, n=name: restore(n, task, operator, s, y)
        )
        records[name] = found | {"iterations": ITERATIONS, "deepinv": version("deepinv")}
    print(json.dumps(records))
