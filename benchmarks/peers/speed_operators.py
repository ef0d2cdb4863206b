"""Our Fourier neural operator beside another package's: same numbers, in turns, in one process.

    PYTHONPATH=src python benchmarks/peers/speed_operators.py neuraloperator 2d times 30
    PYTHONPATH=src python benchmarks/peers/speed_operators.py neuraloperator 2d memory ours

Run by ``benchmarks/operators.py`` in the environment of the package; prints one line of JSON.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from understudy.models.operators.fno import FNO

CASES: dict[str, dict[str, Any]] = {
    "1d": {"space": (128,), "modes": (16,), "width": 64, "batch": 32},
    "2d": {"space": (64, 64), "modes": (12, 12), "width": 32, "batch": 16},
}
PROJECTION = 128
STEPS = {"1d": 10, "2d": 2}
"""Steps between two changes of network."""


def ours(case: dict[str, Any], grid_channels: bool) -> FNO:
    return FNO(1, 1, case["modes"], case["width"], 4, PROJECTION, grid_channels)


# -- the same network of another package ----------------------------------------------------------


def neuraloperator(case: dict[str, Any]) -> tuple[FNO, nn.Module]:
    """Network of neuraloperator whose weights are those of ours."""
    from neuralop.models import FNO as Theirs  # noqa: N811

    mine, width = ours(case, grid_channels=True), case["width"]
    net = Theirs(
        n_modes=(*(2 * m for m in case["modes"][:-1]), 2 * (case["modes"][-1] - 1)),
        in_channels=1,
        out_channels=1,
        hidden_channels=width,
        lifting_channel_ratio=0,
        projection_channel_ratio=PROJECTION / width,
        use_channel_mlp=False,
        fno_skip="linear",
    )
    net.fno_blocks.non_linearity = _once_of_twice()
    with torch.no_grad():
        _copy(net.lifting.fcs[0], mine.lift)
        for i, (spectral, pointwise) in enumerate(zip(mine.spectral, mine.pointwise, strict=True)):
            weight = torch.view_as_complex(spectral.weight).permute(1, 2, 0)
            weight = weight.unflatten(2, spectral.kept)
            axes = tuple(range(2, 1 + len(spectral.kept)))
            conv = net.fno_blocks.convs[i]
            conv.weight.tensor.copy_(torch.fft.fftshift(weight, dim=axes) if axes else weight)
            conv.bias.copy_(spectral.bias.reshape(conv.bias.shape))
            skip = net.fno_blocks.fno_skips[i].conv.weight
            skip.copy_(pointwise.weight.reshape(skip.shape))
        for layer, mine_layer in zip(net.projection.fcs, mine.project, strict=True):
            _copy(layer, mine_layer)
    return mine, net


def uno(case: dict[str, Any]) -> tuple[FNO, nn.Module]:
    """U-NO of neuraloperator beside our FNO: as wide and deep, half the points in between."""
    from neuralop.models import UNO

    dims, width = len(case["space"]), case["width"]
    modes = [*(2 * m for m in case["modes"][:-1]), 2 * (case["modes"][-1] - 1)]
    net = UNO(
        in_channels=1,
        out_channels=1,
        hidden_channels=width,
        lifting_channels=width,
        projection_channels=PROJECTION,
        n_layers=4,
        uno_out_channels=[width] * 4,
        uno_n_modes=[modes] * 4,
        uno_scalings=[[scale] * dims for scale in (0.5, 1.0, 1.0, 2.0)],
        channel_mlp_skip="linear",
    )
    return ours(case, grid_channels=True), net


def _once_of_twice() -> Callable[[Tensor], Tensor]:
    """Do GELU on every other call: 2.0.0 does it twice a block where there is no channel MLP."""
    turns = itertools.cycle((nn.functional.gelu, lambda v: v))
    return lambda v: next(turns)(v)


def physicsnemo(case: dict[str, Any]) -> tuple[FNO, nn.Module]:
    """Network of PhysicsNeMo whose weights are those of ours, and its lifting ours too.

    Its own lifting has a layer more, and its coordinates end at 1, so neither network has some.
    """
    _declare_image_operators()
    from physicsnemo.models.fno import FNO as Theirs  # noqa: N811

    mine, dims = ours(case, grid_channels=False), len(case["space"])
    net = Theirs(
        in_channels=1,
        out_channels=1,
        decoder_layers=1,
        decoder_layer_size=PROJECTION,
        decoder_activation_fn="gelu",
        dimension=dims,
        latent_channels=case["width"],
        num_fno_layers=4,
        num_fno_modes=list(case["modes"]),
        padding=0,
        coord_features=False,
    )
    encoder = net.spec_encoder
    encoder.lift_network = (nn.Conv1d, nn.Conv2d)[dims - 1](1, case["width"], 1)
    with torch.no_grad():
        _copy(encoder.lift_network, mine.lift)
        for i, (spectral, pointwise) in enumerate(zip(mine.spectral, mine.pointwise, strict=True)):
            weight = spectral.weight.permute(1, 2, 0, 3).unflatten(2, spectral.kept)
            conv = encoder.spconv_layers[i]
            if dims == 1:
                conv.weights1.copy_(weight)
            else:
                m = spectral.modes[0]
                conv.weights1.copy_(weight[:, :, :m])
                conv.weights2.copy_(weight[:, :, m:])
            skip = encoder.conv_layers[i]
            skip.weight.copy_(pointwise.weight.reshape(skip.weight.shape))
            skip.bias.copy_(spectral.bias)
        decoder = (net.decoder_net.layers[0], net.decoder_net.final_layer)
        for layer, mine_layer in zip(decoder, mine.project, strict=True):
            _copy(layer.linear, mine_layer)
    return mine, net


def _copy(layer: nn.Module, mine: nn.Module) -> None:
    layer.weight.copy_(mine.weight.reshape(layer.weight.shape))
    layer.bias.copy_(mine.bias)


def _declare_image_operators() -> None:
    """Declare what torchvision would, whose library needs CUDA; no image is looked at here."""
    names = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
    every = ["nms", "qnms", "qroi_align", *names, *(f"_{name}_backward" for name in names)]
    _declare_image_operators.library = torch.library.Library("torchvision", "DEF")
    for name in every:
        _declare_image_operators.library.define(f"{name}(Tensor x) -> Tensor")


PEERS = {
    "neuraloperator": (neuraloperator, "neuraloperator"),
    "physicsnemo": (physicsnemo, "nvidia-physicsnemo"),
    "uno": (uno, "neuraloperator"),
}


# -- measure --------------------------------------------------------------------------------------


def trainer(network: nn.Module, u: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(network(u), y).backward()
        optimizer.step()

    return step


def answerer(network: nn.Module, u: Tensor) -> Callable[[], None]:
    def answer() -> None:
        with torch.inference_mode():
            network(u)

    return answer


def seconds(compute: Callable[[], None], repeats: int) -> float:
    """Seconds of the one thread, so that other programs count as little as may be."""
    start = time.process_time()
    for _ in range(repeats):
        compute()
    return (time.process_time() - start) / repeats


def in_turns(mine: Callable[[], None], theirs: Callable[[], None], pairs: int, each: int) -> Any:
    """Seconds of both, pair by pair; who begins changes."""
    seconds(mine, 2), seconds(theirs, 2)
    found: list[tuple[float, float]] = []
    for pair in range(pairs):
        if pair % 2:
            theirs_s, mine_s = seconds(theirs, each), seconds(mine, each)
        else:
            mine_s, theirs_s = seconds(mine, each), seconds(theirs, each)
        found.append((mine_s, theirs_s))
    return found


def times(peer: str, name: str, pairs: int) -> dict[str, Any]:
    """Seconds of a training step and of an answer, and how far apart the answers are."""
    case = CASES[name]
    build, package = PEERS[peer]
    mine, theirs = build(case)
    u, y = data(case)
    with torch.inference_mode():
        a, b = mine(u), theirs(u)
        apart = float((a - b).norm() / a.norm())
    each = STEPS[name]
    answers = in_turns(answerer(mine, u), answerer(theirs, u), pairs, 2 * each)
    steps = in_turns(trainer(mine, u, y), trainer(theirs, u, y), pairs, each)
    return {
        "package": f"{package} {version(package)}",
        "batch": case["batch"],
        "numbers": [
            sum(2 * p.numel() if p.is_complex() else p.numel() for p in net.parameters())
            for net in (mine, theirs)
        ],
        "apart": apart,
        "answer_s": answers,
        "step_s": steps,
    }


def memory(peer: str, name: str, who: str) -> dict[str, Any]:
    """Megabytes by which training steps and answers raise the peak of this process."""
    case = CASES[name]
    mine, theirs = PEERS[peer][0](case)
    network = mine if who == "ours" else theirs
    u, y = data(case)
    answerer(network, u[:1])()
    trainer(nn.Linear(1, 1), u[..., :1], y[..., :1])()  # what is loaded for Adam is not measured
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answerer(network, u)()
    answered = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = trainer(network, u, y)
    for _ in range(3):
        step()
    trained = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"answer_mb": (answered - start) / 1024, "step_mb": (trained - start) / 1024}


def data(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    u = torch.randn(case["batch"], 1, *case["space"])
    return u, u.roll(1, -1)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    peer, name, what, argument = sys.argv[1:]
    found = times(peer, name, int(argument)) if what == "times" else memory(peer, name, argument)
    print(json.dumps(found))
