"""Photographs from few or blurred measurements: a learned proximal network beside other priors.

    python benchmarks/imaging.py train      a network of patches of photographs that do not score;
                                            goes on where it was ended by Ctrl-C
    python benchmarks/imaging.py measure    all tasks and methods, settings from photographs apart
    python benchmarks/imaging.py table      the records as tables

Photographs are those that come with scikit-image and scikit-learn, grey, the shorter side of 256
points. The network goes to .bench/imaging, records to results/benchmarks/imaging. BM3D needs
`pip install bm3d`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
import torch
import typer
from skimage import color, data, transform, util
from sklearn.datasets import load_sample_images
from torch import Tensor

import runner
from runner import Record
from tables import markdown
from understudy.data.images import write_image
from understudy.models.inverse.imaging_operators import (
    CompressedSensing,
    GaussianBlur,
    LinearOperator,
    Radon,
)
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.patchwise import Patchwise
from understudy.models.inverse.plug_and_play import Prox, Splitting, data_scale, pnp_admm
from understudy.models.inverse.prior_training import psnr, train_prior
from understudy.models.inverse.proximal_matching import image_schedule
from understudy.models.inverse.total_variation import TotalVariation

FOLDER = runner.THEIRS / "imaging"
RESULTS = runner.RESULTS / "imaging"
SIDE = 256
"""Of photographs, the shorter one."""
CROP = 96
"""Of what is restored, from the middle."""
PATCH, STRIDE, SIGMA = 16, 4, 0.1
"""Of networks: points along a side, and between patches. The noise that BM3D is told of."""
RHO = 0.1
WEIGHTS = (0.01, 0.03, 0.1, 0.3)
"""Of total variation, and thresholds of wavelets."""

LEARN = (
    *("rocket", "motorcycle", "brick", "grass", "gravel", "retina", "hubble_deep_field"),
    *("immunohistochemistry", "china", "flower"),
)
CHOOSE = ("chelsea", "coffee")
SCORE = ("camera", "astronaut", "coins")


@dataclass(frozen=True)
class Task:
    """A measurement of images of CROP x CROP points, and the deviation of its noise."""

    title: str
    operator: Callable[[], LinearOperator]
    noise: float


TASKS = {
    "deblurring": Task(
        "Gaussian blur of 1 point, noise 0.02", lambda: GaussianBlur((1, CROP, CROP), 1.0), 0.02
    ),
    "sensing": Task(
        "a quarter of random values, noise 0.01",
        lambda: CompressedSensing((1, CROP, CROP), CROP * CROP // 4),
        0.01,
    ),
    "tomography": Task("48 angles, noise 0.5 in sums of 96 points", lambda: Radon(CROP, 48), 0.5),
}


class BM3D:
    """Images denoised one by one by the package bm3d."""

    def __call__(self, y: Tensor) -> Tensor:
        from bm3d import bm3d

        images = [bm3d(image, SIGMA) for image in y.squeeze(1).double().numpy()]
        return torch.as_tensor(np.stack(images)).unsqueeze(1).to(y)


@dataclass(frozen=True)
class Method:
    """A prior, iterations of ADMM with it, and the settings to choose among.

    Parameters
    ----------
    prox : callable (setting) -> Prox
    scale : callable (setting) -> float
        Weight of the data over that which the deviations of both noises give.
    sigma : float
        Deviation of the noise that the prior removes.
    """

    prox: Callable[[float], Prox]
    scale: Callable[[float], float]
    settings: Sequence[float]
    iterations: int
    sigma: float = SIGMA


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: steps of absolute error and of proximal matching, of `batch`."""

    file: str
    sigma: float
    beta: float
    hidden: int
    warm_up: int
    matching: int
    batch: int = 32


RECIPES = {
    "LPN, noise 0.1": Recipe("prior", 0.1, 100.0, 24, 5_000, 5_000),
    "LPN, noise 0.05": Recipe("smoother", 0.05, 10.0, 40, 4_000, 2_000),
}


SCALES = (0.0625, 0.25, 1.0, 4.0)


def with_network(name: str) -> Method:
    lpn = LearnedProximalNetwork.load(FOLDER / f"{RECIPES[name].file}.us")
    learned = Patchwise(lpn, PATCH, STRIDE)
    return Method(lambda _: learned, lambda scale: scale, SCALES, 30, lpn.sigma)


PRIORS: dict[str, Callable[[], Method]] = {
    "TV": lambda: Method(TotalVariation, lambda _: 1.0, WEIGHTS, 30),
    **{name: partial(with_network, name) for name in RECIPES},
    "BM3D": lambda: Method(lambda _: BM3D(), lambda scale: scale, SCALES, 10),
}
"""Ways to make them, with four settings of one number each."""


def photograph(name: str) -> np.ndarray:
    """Grey values in [0, 1], ``(1, height, width)``, the shorter side of SIDE points."""
    if name in ("china", "flower"):
        image = load_sample_images().images[name == "flower"]
    elif name == "motorcycle":
        image = data.stereo_motorcycle()[0]
    else:
        image = getattr(data, name)()
    image = util.img_as_float(image)
    grey = color.rgb2gray(image) if image.ndim == 3 else image
    height, width = (round(n * SIDE / min(grey.shape)) for n in grey.shape)
    return transform.resize(grey, (height, width), anti_aliasing=True)[None]


def crops(names: Sequence[str]) -> Tensor:
    """Middles of photographs, ``(n, 1, CROP, CROP)``."""
    found = []
    for name in names:
        image = photograph(name)
        top, left = ((n - CROP) // 2 for n in image.shape[1:])
        found.append(image[:, top : top + CROP, left : left + CROP])
    return torch.as_tensor(np.stack(found), dtype=torch.float32)


def measured(task: Task, operator: LinearOperator, x: Tensor, seed: int) -> Tensor:
    y = operator(x)
    return y + task.noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))


def restored(
    task: Task, operator: LinearOperator, method: Method, setting: float, y: Tensor
) -> Tensor:
    scale = data_scale(RHO, method.sigma, task.noise) * method.scale(setting)
    settings = Splitting(RHO, scale, method.iterations, tolerance=1e-5)
    return pnp_admm(y, operator, method.prox(setting), settings).x


def each(found: Tensor, true: Tensor, seen: Tensor) -> list[float]:
    """PSNR of every image, of the points that are seen."""
    return [
        round(psnr(a[None, :, seen], b[None, :, seen]), 2) for a, b in zip(found, true, strict=True)
    ]


def seen_points(name: str) -> Tensor:
    """Mask ``(CROP, CROP)`` of what counts: all, or the disc that tomography sees."""
    across = torch.arange(CROP) - CROP // 2
    far = across[:, None].square() + across.square() > (CROP // 2 - 1) ** 2
    return ~far if name == "tomography" else torch.ones_like(far)


def result(
    name: str,
    operator: LinearOperator,
    settings: Sequence[float],
    restore: Callable[[float, Tensor], Tensor],
) -> Record:
    """Setting by the photographs to choose by, then PSNR and seconds of those that score."""
    task, seen = TASKS[name], seen_points(name)
    other, x = crops(CHOOSE) * seen, crops(SCORE) * seen
    y_other, y = measured(task, operator, other, 1), measured(task, operator, x, 2)
    tried = {s: float(np.mean(each(restore(s, y_other), other, seen))) for s in settings}
    best = max(tried, key=tried.__getitem__)
    began = time.process_time()
    found = restore(best, y)
    seconds = (time.process_time() - began) / len(x)
    return {
        **{"setting": best, "tried": tried, "psnr": each(found, x, seen), "cpu_s": seconds},
        "start": each(operator.start(y), x, seen),
    }


def of_deepinv(name: str) -> dict[str, Record]:
    """Records of DeepInverse on a task, if its environment is there."""
    python = runner.THEIRS / "deepinv" / "bin" / "python"
    if not python.exists():
        return {}
    done = subprocess.run(
        [str(python), str(runner.HERE / "peers" / "imaging_deepinv.py"), name],
        env=runner.limited_environment(1),
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return lines[-1] if lines else {"deepinv": {"failed": runner.last_line(done.stderr)}}


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def train(name: str = "LPN, noise 0.1") -> None:
    """Train a network, or go on with it; Ctrl-C keeps what is done."""
    torch.set_num_threads(1)
    recipe = RECIPES[name]
    folder = FOLDER / "photographs"
    folder.mkdir(parents=True, exist_ok=True)
    for photo in LEARN:
        write_image(folder / f"{photo}.png", photograph(photo))
    path = RESULTS / "training.json"
    known = json.loads(path.read_text())["networks"] if path.exists() else {}
    state = FOLDER / f"{recipe.file}-state.us"
    before = known[name]["cpu_s"] if state.exists() and name in known else 0
    began = time.process_time()
    found = train_prior(
        folder,
        recipe.sigma,
        **{"size": PATCH, "hidden": recipe.hidden, "beta": recipe.beta, "symmetric": True},
        schedule=image_schedule(PATCH**2, recipe.warm_up, recipe.matching),
        batch_size=recipe.batch,
        checkpoint=state,
    )
    facts = found.facts | {
        **asdict(recipe),
        "cpu_s": round(before + time.process_time() - began),
        "weights": sum(p.numel() for p in found.lpn.parameters()),
    }
    found.lpn.save(FOLDER / f"{recipe.file}.us", facts)
    keep("training", {"networks": known | {name: facts}})
    print(facts)


@app.command()
def measure(
    tasks: Annotated[list[str] | None, typer.Argument()] = None, prior: list[str] | None = None
) -> None:
    """Measure tasks, all by default, with some priors or all; others' records are kept."""
    torch.set_num_threads(1)
    for name in tasks or TASKS:
        operator, asked = TASKS[name].operator(), prior or [*PRIORS, "deepinv"]
        for key in asked:
            if key == "deepinv":
                add(name, of_deepinv(name))
                continue
            method = PRIORS[key]()
            restore = partial(restored, TASKS[name], operator, method)
            found = result(name, operator, method.settings, restore)
            add(name, {key: found | {"iterations": method.iterations}})


def add(name: str, found: dict[str, Record]) -> None:
    """Put records of methods to those of a task."""
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text())["methods"] if path.exists() else {}
    print(name, found, flush=True)
    keep(name, {"title": TASKS[name].title, "images": SCORE, "methods": known | found})


@app.command()
def table() -> None:
    """Print the records."""
    rows = []
    for name in TASKS:
        if not (RESULTS / f"{name}.json").exists():
            continue
        (record,) = (r for r in runner.load(RESULTS) if r.get("title") == TASKS[name].title)
        starts = next(iter(record["methods"].values()))["start"]
        rows.append([f"{name}: {record['title']}", "first guess", "", *numbers(starts), ""])
        for key, r in record["methods"].items():
            rows.append(["", key, f"{r['setting']:g}", *numbers(r["psnr"]), f"{r['cpu_s']:.1f} s"])
    heads = ["", "prior", "setting", *SCORE, "mean", "processor, an image"]
    print(markdown(heads, rows))


def numbers(values: Sequence[float]) -> list[str]:
    return [f"{v:.1f}" for v in (*values, float(np.mean(values)))]


def keep(name: str, record: dict[str, Any]) -> None:
    about = {
        "versions": {p: version(p) for p in ("torch", "bm3d", "scikit-image")},
        "hardware": runner.hardware(1),
        "load": os.getloadavg()[0],
        "measured": time.strftime("%Y-%m-%d"),
    }
    runner.write(RESULTS / f"{name}.json", record | about)


if __name__ == "__main__":
    app()
