r"""Claims of learned proximal networks (Fang, Buchanan & Sulam 2024, arXiv 2310.14344), measured.

Of numbers, the proximal operator and the prior are known: of a Laplacian the operator shrinks by
one, of a mixture of Gaussians it is found on a grid. Networks see a Fibonacci lattice, shifted
anew at each step, of clean value and noise instead of independent draws: as random, and as
faithful with a tenth of the samples. Of images, handwritten digits are blurred or sensed, and
restored by the same iterations with a learned prior, with total variation, with BM3D (where the
package bm3d is installed; its licence is for non-commercial use) and with a plain network that
is trained to denoise and is no proximal operator. The weights of all are chosen on digits that
neither train nor test. Numbers and digits go to processes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.core.executor import executor
from understudy.core.loop import Settings, Trainer
from understudy.data.images import handwritten_digits
from understudy.models.inverse.conjugate_gradients import conjugate_gradients
from understudy.models.inverse.icnn import ConvexConvNet, InputConvexNet
from understudy.models.inverse.imaging_operators import (
    CompressedSensing,
    GaussianBlur,
    LinearOperator,
)
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.plug_and_play import (
    Prox,
    Reconstruction,
    Splitting,
    data_scale,
    pnp_admm,
    pnp_pgd,
)
from understudy.models.inverse.prior_training import psnr
from understudy.models.inverse.proximal_matching import (
    Stage,
    fit_lpn,
    image_schedule,
    number_matching,
    number_warm_up,
)
from understudy.models.inverse.total_variation import TotalVariation
from understudy.reproduce.claims import Claim, Scale

_SIGMA = 0.1
"""Noise that networks of digits are trained with."""


@dataclass(frozen=True)
class _Size:
    """What a scale spends: shares of the paper's schedules of numbers, steps and images.

    A lattice has a Fibonacci number of points, and the second coordinate goes on by the former such
    number; `late` is that of the last stages, where few samples are near enough to count.
    """

    warm_up: float
    matching: float
    mixture: float
    lattice: tuple[int, int]
    late: tuple[int, int]
    seeds: int
    hidden: int
    batch: int
    steps: int
    plain_steps: int
    tests: int
    tuned: int
    admm: int
    pgd: int
    workers: int = 2
    device: str = "cpu"


_SIZES = {
    Scale.SMOKE: _Size(
        warm_up=1e-3,
        matching=1e-3,
        mixture=1e-3,
        lattice=(21, 13),
        late=(34, 21),
        seeds=1,
        hidden=2,
        batch=8,
        steps=8,
        plain_steps=8,
        tests=4,
        tuned=2,
        admm=2,
        pgd=3,
        workers=1,
    ),
    Scale.CPU: _Size(
        warm_up=0.25,
        matching=1.0,
        mixture=0.25,
        lattice=(233, 144),
        late=(610, 377),
        seeds=2,
        hidden=16,
        batch=32,
        steps=3000,
        plain_steps=1500,
        tests=50,
        tuned=12,
        admm=40,
        pgd=400,
    ),
    Scale.PAPER: _Size(
        warm_up=1.0,
        matching=1.0,
        mixture=1.0,
        lattice=(1597, 987),
        late=(2584, 1597),
        seeds=3,
        hidden=64,
        batch=200,
        steps=20_000,
        plain_steps=20_000,
        tests=100,
        tuned=50,
        admm=80,
        pgd=2000,
        device="cuda",
    ),
}


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has a quarter of the paper's steps before proximal matching of numbers, and networks
        of digits with 16 features and 6000 steps of 32; ``paper`` has all.
    seed : int
        Of the first repetition of numbers, and of the digits.
    """
    size = _SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    with executor("local", size.workers) as pool:
        digits = pool.submit(_digits, size, seed)
        numbers = [pool.submit(_laplacian, size, s) for s in seeds]
        modes = pool.submit(_mixture, size, seed)
        laplacian = dict(zip(seeds, (job.result() for job in numbers), strict=True))
        found = digits.result()
        return [
            *_of_numbers(laplacian),
            _of_modes(modes.result(), seed),
            *_of_priors(found, size, seed),
            *_of_images(found, size, seed),
        ]


# -- numbers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lattice:
    """Pairs of clean value and noise on a lattice that is shifted at random at each step.

    Parameters
    ----------
    quantile : callable (n,) -> (n,)
        Clean values of probabilities in (0, 1).
    points, across : int
        Neighbouring Fibonacci numbers.
    """

    quantile: Callable[[Tensor], Tensor]
    points: int
    across: int

    def clean(self, count: int, generator: torch.Generator) -> Tensor:
        """Clean values ``(count, 1)``."""
        return self.quantile(self._shifted(1, generator)).float().unsqueeze(1)

    def noise(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Noise ``(count, 1)`` of the clean values in the order in which they came."""
        return torch.special.ndtri(self._shifted(self.across, generator)).float().unsqueeze(1)

    def _shifted(self, stride: int, generator: torch.Generator) -> Tensor:
        at = torch.arange(self.points, dtype=torch.float64) * stride / self.points
        shift = torch.rand(1, generator=generator, dtype=torch.float64)
        return ((at + shift) % 1.0).clamp(1e-9, 1.0 - 1e-9)

    def fit(self, lpn: LearnedProximalNetwork, schedule: Sequence[Stage], seed: int) -> None:
        """Train a network of numbers."""
        fit_lpn(
            *(lpn, self.clean, schedule),
            batch_size=self.points,
            seed=seed,
            noise=self.noise,
        )


def _laplace_quantile(u: Tensor) -> Tensor:
    v = u - 0.5
    return -v.sign() * torch.log1p(-2.0 * v.abs())


_MODE, _SPREAD = 2.0, 0.5


def _mixture_quantile(u: Tensor) -> Tensor:
    """Of two normals at -2 and 2 of deviation 0.5: one has the lower half of probabilities."""
    side = torch.where(u < 0.5, -1.0, 1.0)
    return _MODE * side + _SPREAD * torch.special.ndtri((2.0 * u) % 1.0).clamp(-6.0, 6.0)


def _untrained(seed: int) -> LearnedProximalNetwork:
    torch.manual_seed(seed)
    return LearnedProximalNetwork(InputConvexNet(), 1.0)


def _laplacian(size: _Size, seed: int) -> dict[str, float]:
    """Errors of operators and priors of a Laplacian, by the loss that they are trained with."""
    lattice = _Lattice(_laplace_quantile, *size.lattice)
    found: dict[str, float] = {}
    lpn = _untrained(seed)
    lattice.fit(lpn, number_warm_up(size.warm_up), seed)
    found |= _errors(lpn, "L1")
    _match(lpn, _laplace_quantile, size.matching, size, seed)
    found |= _errors(lpn, "PM")
    squared = _untrained(seed)
    lattice.fit(squared, number_warm_up(size.warm_up, nn.MSELoss()), seed)
    return found | _errors(squared, "L2")


def _match(
    lpn: LearnedProximalNetwork,
    quantile: Callable[[Tensor], Tensor],
    share: float,
    size: _Size,
    seed: int,
) -> None:
    """Proximal matching, with the larger lattice from gamma 0.2 on."""
    stages = number_matching(share)
    early = [stage for stage in stages if stage.loss.gamma > 0.2]  # type: ignore[attr-defined]
    _Lattice(quantile, *size.lattice).fit(lpn, early, seed + 1000)
    _Lattice(quantile, *size.late).fit(lpn, stages[len(early) :], seed + 2000)


def _errors(lpn: LearnedProximalNetwork, name: str) -> dict[str, float]:
    """Against shrinkage by one on [-4, 4], and against |x| on [-3, 3]."""
    y = torch.linspace(-4.0, 4.0, 801)[:, None]
    soft = y.sign() * (y.abs() - 1.0).clamp_min(0.0)
    error = lpn.in_parts(y) - soft
    x = torch.linspace(-3.0, 3.0, 121)[:, None]
    prior = lpn.prior(x)
    return {
        f"{name} worst": float(error.abs().max()),
        f"{name} rmse": float(error.square().mean().sqrt()),
        f"{name} prior": _after_affine(prior.value, x.abs().squeeze(1)),
        f"{name} residual": float(prior.residual.max()),
    }


def _after_affine(value: Tensor, true: Tensor) -> float:
    """Root mean square of what is left of the truth after the best affine function of a value."""
    columns = torch.stack([value, torch.ones_like(value)], 1).double()
    best = torch.linalg.lstsq(columns, true.double()[:, None]).solution
    return float((columns @ best - true[:, None]).square().mean().sqrt())


def _mixture(size: _Size, seed: int) -> dict[str, float]:
    """Largest error of the operator of two modes, but for where it jumps."""
    lattice = _Lattice(_mixture_quantile, *size.lattice)
    lpn = _untrained(seed)
    lattice.fit(lpn, number_warm_up(size.mixture), seed)
    y = torch.cat([torch.linspace(-4.0, -0.5, 141), torch.linspace(0.5, 4.0, 141)])[:, None]
    exact = _exact_mixture(y)
    before = lpn.in_parts(y)
    _match(lpn, _mixture_quantile, size.mixture, size, seed)
    after = lpn.in_parts(y)
    return {
        "L1": float((before - exact).abs().max()),
        "PM": float((after - exact).abs().max()),
    }


def _exact_mixture(y: Tensor) -> Tensor:
    """Minimiser over a fine grid of half the square distance less the log density."""
    x = torch.linspace(-6.0, 6.0, 24_001, dtype=torch.float64)
    density = sum((-0.5 * ((x - m) / _SPREAD) ** 2).exp() for m in (-_MODE, _MODE))
    value = 0.5 * (x - y.double()).square() - torch.as_tensor(density).log()
    return x[value.argmin(1)].float().unsqueeze(1)


# -- digits ---------------------------------------------------------------------------------


class _PlainDenoiser(nn.Module):
    """Convolutions that tell the noise of an image (as DnCNN does, arXiv 1608.03981)."""

    def __init__(self, width: int, depth: int = 5) -> None:
        super().__init__()
        sizes = [1, *[width] * (depth - 1), 1]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, y: Tensor) -> Tensor:
        return y - torch.as_tensor(self.layers(y))


class _BM3D:
    """Images denoised one by one by the package bm3d."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, y: Tensor) -> Tensor:
        from bm3d import bm3d

        images = [bm3d(image, self.sigma) for image in y.squeeze(1).double().cpu().numpy()]
        return torch.as_tensor(np.stack(images)).unsqueeze(1).to(y)


@dataclass(frozen=True)
class _Found:
    """What the digits gave: name of the data, figures, and shares of images, by name."""

    data: str
    values: dict[str, float]


def _digits(size: _Size, seed: int) -> _Found:
    images, name = handwritten_digits()
    x = torch.as_tensor(images)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x = x[order].to(size.device)
    held = max(size.tests + size.tuned, len(x) // 5)
    train, tune = x[held:], x[size.tests : size.tests + size.tuned]
    test = x[: size.tests]
    lpn, plain = _proximal(train, size, seed), _plain(train, size, seed)
    generator = torch.Generator().manual_seed(seed)
    noisy = test + _SIGMA * torch.randn(test.shape, generator=generator).to(test)
    values = {
        "noisy": psnr(noisy, test),
        "denoised LPN": psnr(lpn.in_parts(noisy), test),
        "denoised plain": psnr(plain(noisy), test),
    }
    values |= _prior_orders(lpn, test, generator)
    values |= _restored(lpn, plain, tune, test, size, generator)
    values |= _descents(lpn, plain, test, size, generator)
    return _Found(name, values)


def _proximal(train: Tensor, size: _Size, seed: int) -> LearnedProximalNetwork:
    torch.manual_seed(seed)
    lpn = LearnedProximalNetwork(ConvexConvNet(hidden=size.hidden), _SIGMA)
    fit_lpn(
        *(lpn, lambda n, g: train[torch.randint(len(train), (n,), generator=g)]),
        image_schedule(784, size.steps, size.steps),
        batch_size=size.batch,
        seed=seed,
        device=size.device,
    )
    return lpn


def _plain(train: Tensor, size: _Size, seed: int) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(seed)
    network = _PlainDenoiser(size.hidden).to(size.device)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        clean = train[torch.randint(len(train), (size.batch,), generator=generator)]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        return (network(clean + _SIGMA * noise) - clean).square().mean()

    settings = Settings(max_steps=size.plain_steps)
    Trainer(network, torch.optim.Adam(network.parameters(), 1e-3), settings).run(loss)

    @torch.no_grad()
    def denoise(y: Tensor) -> Tensor:
        return torch.as_tensor(network(y))

    return denoise


def _prior_orders(
    lpn: LearnedProximalNetwork, test: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Shares of images of which the prior has the right order, and the largest residual."""
    noise = torch.randn(test.shape, generator=generator).to(test)
    noisy = [test + level * noise for level in (0.0, 0.1, 0.2, 0.3)]
    blurred = [test, *(_blurred(test, sigma) for sigma in (1.0, 2.0, 3.0, 4.0))]
    middle = 0.5 * (test + test.roll(1, 0))
    groups = [torch.stack(noisy), torch.stack(blurred), middle[None]]
    found = lpn.prior(torch.cat([group.flatten(0, 1) for group in groups]))
    parts = found.value.split([len(group) * len(test) for group in groups])
    by_noise, by_blur, between = (part.reshape(-1, len(test)) for part in parts)
    ends = torch.maximum(by_noise[0], by_noise[0].roll(1))
    return {
        "noise": _rising(by_noise),
        "blur": _rising(by_blur),
        "middle": float((between[0] > ends).double().mean()),
        "residual": float(found.residual.max()),
    }


def _rising(values: Tensor) -> float:
    """Share of columns that rise throughout."""
    return float((values.diff(dim=0) > 0.0).all(0).double().mean())


def _blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of the same size, dark outside."""
    width = 2 * math.ceil(3 * sigma)
    padded = nn.functional.pad(x, [width // 2] * 4)
    t = torch.arange(width + 1, dtype=x.dtype, device=x.device) - width // 2
    line = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = torch.outer(line, line) / line.sum() ** 2
    return nn.functional.conv2d(padded, kernel[None, None])


# -- measurements ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """A measurement of digits: its operator, its noise, and the rho of its iterations."""

    name: str
    operator: LinearOperator
    noise: float
    rho: float


def _tasks() -> tuple[_Task, ...]:
    shape = (1, 28, 28)
    return (
        _Task("deblurring", GaussianBlur(shape, _BLUR), 0.02, 0.1),
        _Task("sensing", CompressedSensing(shape, 784 // 4), 1e-3, 0.05),
    )


_BLUR = 1.0

_SHARES = (0.25, 1.0, 4.0)
"""Weights of the data that are tried, over that which the noise says."""

_TOTAL_VARIATIONS = (
    *((1.0, 0.03), (1.0, 0.1), (1.0, 0.3), (0.1, 0.1)),
    *((0.1, 0.3), (0.01, 0.1), (0.01, 0.3), (0.01, 1.0)),
)
"""Weights of the data over that which the noise says, and of total variation, that are tried."""

_BM3D_IMAGES, _BM3D_ITERATIONS = 4, 20
"""Few, for it takes half a second an image and iteration."""


def _restored(
    lpn: LearnedProximalNetwork,
    plain: Prox,
    tune: Tensor,
    test: Tensor,
    size: _Size,
    generator: torch.Generator,
) -> dict[str, float]:
    """PSNR of each way, settings chosen on other digits."""
    found: dict[str, float] = {}
    for task in _tasks():
        y, other = (_measured(task, x, generator) for x in (test, tune))

        def restore(y: Tensor, prox: Prox, scale: float, task: _Task = task) -> Tensor:
            settings = Splitting(task.rho, scale, size.admm, tolerance=1e-5)
            return pnp_admm(y, task.operator, prox, settings).x

        meant = data_scale(task.rho, _SIGMA, task.noise)
        ways: dict[str, list[tuple[Prox, float]]] = {
            "LPN": [(lpn, meant * share) for share in _SHARES],
            "plain": [(plain, meant * share) for share in _SHARES],
            "TV": [(TotalVariation(weight), meant * share) for share, weight in _TOTAL_VARIATIONS],
        }
        for name, settings in ways.items():
            scores = [psnr(restore(other, prox, scale), tune) for prox, scale in settings]
            prox, scale = settings[max(range(len(scores)), key=scores.__getitem__)]
            found[f"{task.name} {name}"] = psnr(restore(y, prox, scale), test)
            if name == "LPN":
                few = restore(y[:_BM3D_IMAGES], lpn, scale)
                found[f"{task.name} LPN, few"] = psnr(few, test[:_BM3D_IMAGES])
        found[f"{task.name} classical"] = max(
            psnr(image, test) for image in _classical(task.operator, y)
        )
        if isinstance(task.operator, GaussianBlur) and _has_bm3d() and size.tests > _BM3D_IMAGES:
            found[f"{task.name} BM3D"] = _with_bm3d(task, y, test, other, tune, meant)
    return found


def _measured(task: _Task, x: Tensor, generator: torch.Generator) -> Tensor:
    y = task.operator(x)
    return y + task.noise * torch.randn(y.shape, generator=generator).to(y)


def _classical(operator: LinearOperator, y: Tensor) -> list[Tensor]:
    """First guess, adjoint, and least squares by 10, 30 and 100 conjugate gradients."""
    back = operator.adjoint(y)
    solved = [conjugate_gradients(operator.normal, back, iterations=n) for n in (10, 30, 100)]
    return [operator.start(y), back, *solved]


def _with_bm3d(
    task: _Task, y: Tensor, test: Tensor, other: Tensor, tune: Tensor, meant: float
) -> float:
    """PSNR of the first tests with BM3D, the weight of the data chosen on two other digits."""

    def restore(y: Tensor, share: float, iterations: int) -> Tensor:
        prox = _BM3D(_SIGMA)
        settings = Splitting(task.rho, meant * share, iterations)
        return pnp_admm(y, task.operator, prox, settings).x

    shares = _SHARES[1:]
    scores = [psnr(restore(other[:2], share, _BM3D_ITERATIONS // 2), tune[:2]) for share in shares]
    best = shares[scores.index(max(scores))]
    return psnr(restore(y[:_BM3D_IMAGES], best, _BM3D_ITERATIONS), test[:_BM3D_IMAGES])


def _has_bm3d() -> bool:
    from importlib.util import find_spec

    return find_spec("bm3d") is not None


def _descents(
    lpn: LearnedProximalNetwork,
    plain: Prox,
    test: Tensor,
    size: _Size,
    generator: torch.Generator,
) -> dict[str, float]:
    """Last changes of proximal gradient descent, and how often its objective rose."""
    task = _tasks()[0]
    y = _measured(task, test, generator)

    def descend(prox: Prox) -> Reconstruction:
        return pnp_pgd(y, task.operator, prox, iterations=size.pgd, tolerance=0.0)

    mine, other = descend(lpn), descend(plain)
    assert mine.rises is not None
    return {
        "pgd LPN": float(mine.residuals[-1].max()),
        "pgd plain": float(other.residuals[-1].max()),
        "pgd plain median": float(other.residuals[-1].median()),
        "pgd LPN median": float(mine.residuals[-1].median()),
        "pgd plain diverged": float(other.diverged.double().mean()),
        "rises": float(mine.rises.double().mean()),
        "pgd LPN psnr": psnr(mine.x, test),
        "pgd plain psnr": psnr(other.x, test),
    }


# -- claims ---------------------------------------------------------------------------------


def _of_numbers(found: Mapping[int, Mapping[str, float]]) -> list[Claim]:
    def each(name: str) -> dict[int, float]:
        return {seed: values[name] for seed, values in found.items()}

    ratio = {seed: v["PM prior"] / v["L2 prior"] for seed, v in found.items()}
    figure = "Fig. of the Laplacian: proximal matching finds shrinkage by 1, L2 and L1 do not"
    metric = "largest error against shrinkage by 1 on [-4, 4], {}"
    first = next(iter(found.values()))
    residual = max(v["PM residual"] for v in found.values())
    return [
        Claim.over_seeds(
            each("PM worst"),
            statement="Proximal matching recovers the proximal operator of a Laplacian",
            paper_figure=figure,
            metric=metric.format("proximal matching"),
            bar=0.15,
            direction="at most",
            reason="the exact minimiser of the last loss, gamma 0.1, is off by 0.11 at the kink",
        ),
        Claim.over_seeds(
            each("PM rmse"),
            statement="Over the range, proximal matching is close to the proximal operator",
            paper_figure=figure,
            metric="root mean square error against shrinkage by 1 on [-4, 4]",
            bar=0.07,
            direction="at most",
            reason=f"L1 {first['L1 rmse']:.3f}, L2 {first['L2 rmse']:.3f} (first seed)",
        ),
        Claim.over_seeds(
            each("L2 worst"),
            statement="Squared error does not find the proximal operator: it finds the mean",
            paper_figure=figure,
            metric=metric.format("squared error"),
            bar=0.4,
            direction="at least",
            reason="the mean of the posterior is off by 0.503 at 1",
        ),
        Claim.over_seeds(
            each("L1 worst"),
            statement="Absolute error does not find the proximal operator: it finds the median",
            paper_figure=figure,
            metric=metric.format("absolute error"),
            bar=0.4,
            direction="at least",
        ),
        Claim.over_seeds(
            ratio,
            statement="The prior of a Laplacian is read off after proximal matching, not after L2",
            paper_figure="Fig. of the Laplacian, prior: |x| is recovered",
            metric=(
                "error against |x| on [-3, 3] after the best affine function, proximal matching "
                "over L2"
            ),
            bar=0.5,
            direction="at most",
            reason=(
                f"proximal matching {first['PM prior']:.3f}, L2 {first['L2 prior']:.3f} (first "
                f"seed); largest residual of an inversion {residual:.1g}"
            ),
        ),
    ]


def _of_modes(found: Mapping[str, float], seed: int) -> Claim:
    return Claim(
        statement="Proximal matching recovers the operator of a prior that is not convex",
        paper_figure="section 3: any prior; the mixture of two Gaussians is ours",
        metric="largest error for two modes at -2 and 2, on 0.5 <= |y| <= 4",
        bar=0.15,
        direction="at most",
        measured=found["PM"],
        seeds=(seed,),
        reason=f"absolute error, from which it starts: {found['L1']:.3f}",
    )


def _of_priors(found: _Found, size: _Size, seed: int) -> list[Claim]:
    v = found.values
    shared: dict[str, Any] = {"bar": 0.9, "direction": "at least", "seeds": (seed,)}
    on = f"{size.tests} test images of {found.data}"
    return [
        Claim(
            statement="The learned prior of digits rises with noise",
            paper_figure="figure of priors on MNIST: it rises",
            metric=f"share of {on} whose prior rises over noise 0, 0.1, 0.2, 0.3",
            measured=v["noise"],
            reason=f"largest relative residual of an inversion {v['residual']:.1g}",
            **shared,
        ),
        Claim(
            statement="The learned prior of digits rises with blur",
            paper_figure="figure of priors on MNIST: it rises",
            metric=f"share of {on} whose prior rises over blurs 0, 1, 2, 3, 4",
            measured=v["blur"],
            **shared,
        ),
        Claim(
            statement="The learned prior is not convex: means of two digits are less likely",
            paper_figure="figure of priors on MNIST: higher between two images for most pairs",
            metric=f"share of pairs of {on} whose mean has a larger prior than both",
            measured=v["middle"],
            **shared,
        ),
    ]


def _of_images(found: _Found, size: _Size, seed: int) -> list[Claim]:
    v, claims = found.values, []
    words = {"deblurring": "Blurred digits", "sensing": "Digits from a quarter of random values"}
    paper = {
        "deblurring": "CelebA: PSNR 33.0 / 31.4 / 30.1 / 29.0 dB (from memory)",
        "sensing": "Mayo-CT, 1/16: 38.0 dB, others 29.7 dB (from memory)",
    }
    for task, word in words.items():
        scores = ", ".join(
            f"{name} {v[f'{task} {name}']:.2f} dB" for name in ("LPN", "TV", "plain", "classical")
        )
        for rival, bar, what in (
            ("classical", 3.0, "the best of first guess, adjoint and least squares"),
            ("TV", 0.5, "total variation with as many iterations"),
        ):
            claims.append(
                Claim(
                    statement=f"{word} are restored better than by {what}",
                    paper_figure=paper[task],
                    metric=f"PSNR of ADMM with the learned prior over that of the other, dB, "
                    f"{size.tests} images of {found.data}",
                    bar=bar,
                    direction="at least",
                    measured=v[f"{task} LPN"] - v[f"{task} {rival}"],
                    seeds=(seed,),
                    reason=scores,
                )
            )
    if "deblurring BM3D" in v:
        claims.append(
            Claim(
                statement="Blurred digits are restored better than with BM3D as denoiser",
                paper_figure="CelebA: some 0.5 to 2 dB over BM3D (from memory)",
                metric=f"PSNR of ADMM with the learned prior over that with BM3D, dB, "
                f"{_BM3D_IMAGES} images",
                bar=0.5,
                direction="at least",
                measured=v["deblurring LPN, few"] - v["deblurring BM3D"],
                seeds=(seed,),
                reason=f"LPN {v['deblurring LPN, few']:.2f} dB, BM3D {v['deblurring BM3D']:.2f} dB "
                f"after {_BM3D_ITERATIONS} iterations",
            )
        )
    claims += [
        Claim(
            statement="Proximal gradient descent with a learned proximal network converges",
            paper_figure="theorem on convergence",
            metric=f"relative change in iteration {size.pgd}, largest over images",
            bar=1e-3,
            direction="at most",
            measured=v["pgd LPN"],
            seeds=(seed,),
            reason=f"median {v['pgd LPN median']:.1g}; PSNR {v['pgd LPN psnr']:.2f} dB",
        ),
        Claim(
            statement="It descends: no iteration raises the misfit plus the learned prior",
            paper_figure="theorem on convergence",
            metric="share of iterations that raise it by more than rounding",
            bar=0.0,
            direction="at most",
            measured=v["rises"],
            seeds=(seed,),
        ),
        Claim(
            statement="A plain denoiser need not converge",
            paper_figure="discussion of plug-and-play methods",
            metric=f"change in iteration {size.pgd} of a plain network over that of the proximal "
            "one, medians",
            bar=10.0,
            direction="at least",
            measured=v["pgd plain median"] / max(v["pgd LPN median"], 1e-12),
            seeds=(seed,),
            reason=(
                f"plain: median {v['pgd plain median']:.1g}, largest {v['pgd plain']:.1g}, "
                f"{100 * v['pgd plain diverged']:.0f} % diverged; as denoisers at 0.1: noisy "
                f"{v['noisy']:.2f} dB, plain {v['denoised plain']:.2f} dB, LPN "
                f"{v['denoised LPN']:.2f} dB"
            ),
        ),
    ]
    return claims
