r"""Claims of PROSE (Liu, Zhang & Schaeffer 2023, arXiv 2309.16816), measured.

Trajectories are of five chaotic systems, t in [0, 6] at 96 times, of which the first 32 (t < 2) or
8 (t < 0.5) are given with 2 % noise. The range of every parameter, 10 % to either side, has five
parts, and cells of the box whose numbers of parts add up to a multiple of five are held out: the
test is on those alone. All networks see the same trajectories, steps, noise and batches; the one
without symbols is the same but for them. Errors of forecasts are relative L2 errors over all output
times against clean trajectories, means over the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product, zip_longest
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from understudy.core.executor import executor
from understudy.core.expressions import ExpressionList, evaluate_each
from understudy.core.field_metrics import relative_l2
from understudy.core.linalg import one_thread
from understudy.core.loop import Settings, Trainer, cosine, shuffled_batches
from understudy.data.trajectories import TrajectorySet
from understudy.models.operators.deeponet import PlainMLP
from understudy.models.operators.equation_tokens import ExpressionTokenizer
from understudy.models.operators.prose import PROSE, PROSEPrediction, PROSETraining, add_noise
from understudy.models.operators.prose_network import PROSEArchitecture, Variant
from understudy.models.operators.term_noise import add_term, delete_term
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.equations.regression import (
    fitted_numbers,
    smoothed,
    sparse_forecast,
    tree_forecast,
)
from understudy.simulate.ode_families import (
    CHEN_LEE,
    FAMILIES,
    LORENZ,
    ROESSLER,
    SPROTT_B,
    THOMAS,
    ODEFamily,
    sample_families,
    times,
)

_REDUCED = (THOMAS, LORENZ, CHEN_LEE, ROESSLER, SPROTT_B)
_IDENTIFIED = (LORENZ, CHEN_LEE, ROESSLER)
"""Whose parameters a trajectory tells well."""

_UNSEEN = ODEFamily(
    "lorenz with u_0**2",
    "sigma * (u_1 - u_0) | u_0 * (rho - u_2) - u_1 | u_0 * u_1 - beta * u_2 + e * u_0 * u_0",
    {"sigma": 10.0, "rho": 28.0, "beta": 8.0 / 3.0, "e": 0.1},
)
_THRESHOLDS, _WINDOWS = (0.05, 0.1, 0.2), (5, 7, 9)
"""Of SINDy; the pair that forecasts trajectories of the training best is taken."""


@dataclass(frozen=True)
class _Size:
    """What a scale spends; `layers` are of encoders of data and symbols, fusion, decoders."""

    families: tuple[ODEFamily, ...]
    train: int
    test: int
    points: int
    given: tuple[int, int]
    steps: int
    batch_size: int
    warmup: int
    learning_rate: float
    query_points: int | None
    width: int
    heads: int
    layers: tuple[int, int, int, int, int]
    seeds: int
    max_tokens: int = 64
    decay: Literal["inverse-sqrt", "cosine"] = "cosine"
    device: str = "cpu"
    workers: int = 1


_SIZES = {
    Scale.SMOKE: _Size(
        _REDUCED, 60, 20, 24, (8, 2), 4, 8, 1, 1e-3, 4, 16, 2,
        (1, 1, 1, 1, 1), 1,
    ),
    Scale.CPU: _Size(
        _REDUCED, 8000, 250, 96, (32, 8), 1500, 32, 100, 2e-3, 16, 64, 4, (1, 1, 2, 2, 2), 2,
        workers=2,
    ),
    Scale.PAPER: _Size(
        tuple(FAMILIES.values()), 512_000, 25_600, 192, (64, 16), 160_000, 512, 20_000, 1e-4, None,
        512, 8, (2, 4, 8, 8, 8), 3, 150, "inverse-sqrt", "cuda",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Test:
    """Trajectories at the times of training and halfway between them, and inputs with noise."""

    at: TrajectorySet
    between: TrajectorySet

    def inputs(self, given: int, noise: float = 0.02) -> Tensor:
        """The first points, with noise that is the same at every call, but for its size."""
        u = self.at.u[:, :given]
        return add_noise(u, self.at.mask, noise, torch.Generator().manual_seed(99))

    @cached_property
    def equations(self) -> list[ExpressionList]:
        return [self.at.equation(i) for i in range(len(self.at))]


Forecast = Callable[[_Test], Tensor]
"""Solutions (N, q, d) at the times after the input."""


@dataclass(frozen=True)
class _Models:
    """Networks of one seed."""

    multimodal: PROSE
    no_text: PROSE


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has five systems and small networks, ``paper`` all fifteen and the paper's network
        on a GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = _SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    train = sample_families(
        size.families, size.train, seed + 1, t=times(points=size.points), accept=_outside
    )
    held_out = _test(size, size.families, size.test, accept=_held_out)
    models, deeponets = _trained(size, train, seeds)
    written = {s: _written(m.multimodal, held_out, max(size.given)) for s, m in models.items()}
    return [
        *_gains(size, models, held_out),
        *_equations(size, written, models, held_out),
        *_wrong_guesses(size, written, models, held_out),
        _noise(size, models, held_out),
        _times(size, written, models, held_out),
        *_baselines(size, written, models, deeponets, train, held_out),
    ]


# -- data -----------------------------------------------------------------------------------


def _cell(unit: Tensor) -> Tensor:
    return (5.0 * unit).long().clamp_max(4).sum(1) % 5


def _held_out(unit: Tensor) -> Tensor:
    """Every fifth cell of the box of parameters, the lowest corner among them."""
    return _cell(unit) == 0


def _outside(unit: Tensor) -> Tensor:
    return _cell(unit) != 0


def _beyond(unit: Tensor) -> Tensor:
    """In a box of twice the size, places outside of the inner one."""
    return (2.0 * unit - 1.0).abs().amax(1) > 0.5


def _test(
    size: _Size,
    families: Sequence[ODEFamily],
    count: int,
    accept: Callable[[Tensor], Tensor] | None = None,
    spread: float = 0.1,
) -> _Test:
    fine = times(points=2 * size.points - 1)
    data = sample_families(families, count, 1_000_003, t=fine, accept=accept, spread=spread)
    widest = max(family.dim for family in size.families)
    u = nn.functional.pad(data.u, (0, widest - data.u.shape[2]))
    sets = [
        TrajectorySet(t, u[:, rows], data.skeletons, data.which, data.numbers)
        for t, rows in ((fine[::2], slice(0, None, 2)), (fine, slice(None)))
    ]
    return _Test(*sets)


# -- networks -------------------------------------------------------------------------------


def _network(size: _Size, variant: Variant) -> PROSE:
    widest = max(family.dim for family in size.families)
    tokenizer = ExpressionTokenizer(widest)
    sizes = PROSEArchitecture(
        len(tokenizer), widest, size.width, size.heads, *size.layers, variant, size.max_tokens
    )
    return PROSE(tokenizer, sizes, units="trajectory")


@dataclass(frozen=True)
class _Job:
    """A training, whose weights another process can send back."""

    size: _Size
    train: TrajectorySet
    seed: int
    kind: Variant | Literal["deeponet"]

    def weights(self) -> dict[str, Tensor]:
        torch.manual_seed(self.seed)
        if self.kind == "deeponet":
            return _fitted_deeponet(self.size, self.train, self.seed).state_dict()
        return self._fitted().network.cpu().state_dict()

    def _fitted(self) -> PROSE:
        size = self.size
        plan = PROSETraining(
            steps=size.steps,
            batch_size=size.batch_size,
            learning_rate=size.learning_rate,
            warmup=size.warmup,
            decay=size.decay,
            query_points=size.query_points,
            seed=self.seed,
            device=size.device,
        )
        # two of three steps have the longer input, in either network
        long, short = size.given
        assert self.kind != "deeponet"
        return _network(size, self.kind).fit(self.train, (long, long, short), plan)

    def restored(self, weights: Mapping[str, Tensor]) -> PROSE:
        assert self.kind != "deeponet"
        model = _network(self.size, self.kind).prepared(self.train, self.size.given)
        model.network.load_state_dict(weights)
        return model


def _weights(job: _Job) -> dict[str, Tensor]:
    with one_thread(job.size.device == "cpu"):
        return job.weights()


def _trained(
    size: _Size, train: TrajectorySet, seeds: Sequence[int]
) -> tuple[dict[int, _Models], dict[int, Forecast]]:
    """Networks and DeepONets of all seeds, the longest trainings first."""
    kinds: tuple[Variant | Literal["deeponet"], ...] = ("multimodal", "no-text", "deeponet")
    jobs = [_Job(size, train, seed, kind) for kind in kinds for seed in seeds]
    if size.workers == 1:
        found = [_weights(job) for job in jobs]
    else:
        with executor("local", size.workers) as pool:
            found = pool.map(_weights, jobs)
    count = len(seeds)
    pairs = list(zip(jobs, found, strict=True))
    own = [job.restored(weights) for job, weights in pairs[: 2 * count]]
    models = {s: _Models(own[i], own[count + i]) for i, s in enumerate(seeds)}
    rivals = {job.seed: _deeponet(size, weights) for job, weights in pairs[2 * count :]}
    return models, rivals


def _forecast(
    model: PROSE,
    test: _Test,
    given: int,
    noise: float = 0.02,
    guesses: Sequence[ExpressionList] | None = None,
    t: Tensor | None = None,
) -> Tensor:
    """Solutions at the times after the input, or at others, with the right guess or others."""
    data = test.at
    t = data.t[max(model.given) :] if t is None else t
    guesses = test.equations if guesses is None else guesses
    return model.forecast(data.t[:given], test.inputs(given, noise), guesses, t)


def _error(model: PROSE, test: _Test, given: int, noise: float = 0.02) -> float:
    first = max(model.given)
    said = _forecast(model, test, given, noise)
    return float(relative_l2(said, test.at.u[:, first:]).mean())


def _written(
    model: PROSE, test: _Test, given: int, guesses: Sequence[ExpressionList] | None = None
) -> PROSEPrediction:
    """Solutions and equations."""
    t = test.at.t
    guesses = test.equations if guesses is None else guesses
    return model.predict(t[:given], test.inputs(given), guesses, t[max(model.given) :])


# -- claims ---------------------------------------------------------------------------------


def _gains(size: _Size, models: Mapping[int, _Models], test: _Test) -> list[Claim]:
    claims = []
    for given, name in zip(size.given, ("a third", "a twelfth"), strict=True):
        errors = {
            s: (_error(pair.multimodal, test, given), _error(pair.no_text, test, given))
            for s, pair in models.items()
        }
        table = ", ".join(f"{own:.1%} and {other:.1%}" for own, other in errors.values())
        claims.append(
            _worst(
                {s: own / other for s, (own, other) in errors.items()},
                statement=f"A guess of the equation improves the forecast after {name} of the time",
                paper_figure="multimodal beats data-only; 0.75 to 0.95 expected when reduced",
                metric="forecast error with symbols over that without, largest over seeds",
                bar=1.0,
                reason=f"errors with and without, by seed: {table}",
            )
        )
    return claims


def _equations(
    size: _Size, written: Mapping[int, PROSEPrediction], models: Mapping[int, _Models], test: _Test
) -> list[Claim]:
    valid, gains, details = {}, {}, []
    trivial = _expression_errors(_typical(size, test), test)
    names = [family.name for family in _IDENTIFIED]
    for s, said in written.items():
        assert said.valid is not None
        valid[s] = float(said.valid.double().mean())
        own = _expression_errors(said.expression, test)
        by_family = [
            (_name(size, tree), float(own[rows].nanmean()), float(trivial[rows].mean()))
            for tree, rows in _by_tree(test)
        ]
        gains[s] = min(t / max(o, 1e-12) for name, o, t in by_family if name in names)
        details.append(", ".join(f"{name} {o:.1%} ({t:.1%})" for name, o, t in by_family))
    return [
        Claim.over_seeds(
            valid,
            statement="Equations that are written are equations",
            paper_figure="above 99 % on fifteen systems (from memory)",
            metric="share of valid expressions",
            bar=0.95,
            direction="at least",
            reason=_fidelity(written, models, test),
        ),
        Claim.over_seeds(
            gains,
            statement="Equations are better than the right tree with mean parameters",
            paper_figure="expression error below about 1 % (from memory)",
            metric="error of mean parameters over that of what is written, on the worst of "
            "Lorenz, Chen-Lee and Roessler",
            bar=2.0,
            direction="at least",
            reason="errors on 50 points of [-5, 5]^3 (with mean parameters), by seed: "
            + "; ".join(details)
            + "; least squares on smoothed slopes with the right tree: "
            + _regressed(size, test),
        ),
    ]


def _wrong_guesses(
    size: _Size, written: Mapping[int, PROSEPrediction], models: Mapping[int, _Models], test: _Test
) -> list[Claim]:
    given = max(size.given)
    generator = torch.Generator().manual_seed(7)
    wrong = [
        (add_term if i // len(size.families) % 2 else delete_term)(equation, generator)
        for i, equation in enumerate(test.equations)
    ]
    right, change, changed = {}, {}, []
    for s, pair in models.items():
        said = _written(pair.multimodal, test, given, wrong)
        right[s] = _right_trees(said, test)
        errors = [float(_forecast_errors(x, test).mean()) for x in (written[s], said)]
        change[s] = errors[1] / errors[0]
        changed.append(f"{errors[0]:.1%} to {errors[1]:.1%}")
    return [
        Claim.over_seeds(
            right,
            statement="With a term too many or too few in the guess the right tree is written",
            paper_figure="copes with added and deleted terms",
            metric="share of right trees",
            bar=0.9,
            direction="at least",
            reason=_combination(size, models),
        ),
        Claim.over_seeds(
            change,
            statement="A term too many or too few in the guess hardly changes the forecast",
            paper_figure="copes with added and deleted terms",
            metric="forecast error with wrong guesses over that with right ones",
            bar=1.3,
            direction="at most",
            reason=f"errors by seed: {', '.join(changed)}",
        ),
    ]


def _noise(size: _Size, models: Mapping[int, _Models], test: _Test) -> Claim:
    given = max(size.given)
    levels = (0.0, 0.01, 0.02, 0.05)
    table = {s: [_error(m.multimodal, test, given, x) for x in levels] for s, m in models.items()}
    middle = (fmean(column) for column in zip(*table.values(), strict=True))
    return Claim.over_seeds(
        {s: row[-1] / row[0] for s, row in table.items()},
        statement="Forecasts get worse gracefully with noise of the input",
        paper_figure="15 systems with noise; no figure at hand",
        metric="forecast error with 5 % noise over that without",
        bar=2.0,
        direction="at most",
        reason="errors with 0, 1, 2 and 5 %: " + ", ".join(f"{x:.1%}" for x in middle),
    )


def _times(
    size: _Size, written: Mapping[int, PROSEPrediction], models: Mapping[int, _Models], test: _Test
) -> Claim:
    given = max(size.given)
    fine = test.between
    between = torch.arange(2 * given + 1, len(fine.t), 2)
    ratios = {}
    for s, pair in models.items():
        off = _forecast(pair.multimodal, test, given, t=fine.t[between])
        error = relative_l2(off, fine.u[:, between]).mean()
        ratios[s] = float(error / _forecast_errors(written[s], test).mean())
    return Claim.over_seeds(
        ratios,
        statement="Times that were never trained on are forecast as well",
        paper_figure="any requested times",
        metric="forecast error halfway between the times of training over that at them",
        bar=1.2,
        direction="at most",
        reason=_halves(written, test),
    )


def _baselines(
    size: _Size,
    written: Mapping[int, PROSEPrediction],
    models: Mapping[int, _Models],
    deeponets: Mapping[int, Forecast],
    train: TrajectorySet,
    test: _Test,
) -> list[Claim]:
    given = max(size.given)
    own = {s: _forecast_errors(said, test) for s, said in written.items()}
    rivals: dict[str, Mapping[int, Forecast]] = {
        "a DeepONet": deeponets,
        "SINDy": dict.fromkeys(models, _sindy(size, train)),
        "the nearest training trajectory": dict.fromkeys(models, _nearest(size, train)),
    }
    details = {
        "a DeepONet": _elsewhere(size, models, deeponets),
        "SINDy": _solved(size, written, test),
    }
    claims: list[Claim] = []
    for name, by_seed in rivals.items():
        truth = test.at.u[:, given:]
        found = {s: _finite_errors(forecast(test), truth) for s, forecast in by_seed.items()}
        texts = [_comparison(size, test, own, found), details.get(name, "")]
        claims.append(
            Claim.over_seeds(
                {s: float(own[s].mean() / found[s].mean()) for s in models},
                statement=f"Forecasts are better than those of {name}",
                paper_figure="none; asked for by reviewers",
                metric="mean forecast error over that of the other",
                bar=1.0,
                direction="at most",
                reason="; ".join(filter(None, texts)),
            )
        )
    return claims


# -- details of claims ----------------------------------------------------------------------


def _worst(ratios: Mapping[int, float], **claim: object) -> Claim:
    values = torch.tensor(list(ratios.values()), dtype=torch.float64)
    return Claim(
        measured=float(values.max()),
        seeds=tuple(ratios),
        spread=float(values.std()) if len(values) > 1 else math.nan,
        direction="at most",
        **claim,  # type: ignore[arg-type]
    )


def _same_tree(written: ExpressionList | None, true: ExpressionList) -> bool:
    return written is not None and written.skeleton == true.skeleton


def _typical(size: _Size, test: _Test) -> list[ExpressionList]:
    """The right tree with mean parameters, of each trajectory."""
    mean = {family.skeleton: family.mean_equation for family in size.families}
    return [mean[test.at.skeletons[k]] for k in test.at.which.tolist()]


def _expression_errors(written: Sequence[ExpressionList | None], test: _Test) -> Tensor:
    """Relative error of right-hand sides on 50 points of [-5, 5]^d, NaN without an equation."""
    generator = torch.Generator().manual_seed(3)
    d = test.at.u.shape[2]
    points = 10.0 * torch.rand(50, d, generator=generator, dtype=torch.float64) - 5.0
    true = test.equations
    some = [t if w is None or w.dim != t.dim else w for w, t in zip(written, true, strict=True)]
    said = evaluate_each(some, points)
    error = relative_l2(said, evaluate_each(true, points))
    missing = torch.tensor(
        [w is None or w.dim != t.dim for w, t in zip(written, true, strict=True)]
    )
    return torch.where(missing | ~torch.isfinite(error), torch.nan, error)


def _forecast_errors(said: PROSEPrediction, test: _Test) -> Tensor:
    assert said.u is not None
    return relative_l2(said.u, test.at.u[:, -said.u.shape[1] :])


def _right_trees(said: PROSEPrediction, test: _Test) -> float:
    pairs = zip(said.expression, test.equations, strict=True)
    return fmean(_same_tree(a, b) for a, b in pairs)


def _by_tree(test: _Test) -> list[tuple[ExpressionList, Tensor]]:
    """Trees and the numbers of their trajectories."""
    rows = [(test.at.which == k).nonzero().squeeze(1) for k in range(len(test.at.skeletons))]
    return [(k, r) for k, r in zip(test.at.skeletons, rows, strict=True) if len(r)]


def _fidelity(
    written: Mapping[int, PROSEPrediction], models: Mapping[int, _Models], test: _Test
) -> str:
    """Accuracy of trees, and of single tokens where what is written is an equation."""
    trees = fmean(_right_trees(said, test) for said in written.values())
    hits: list[bool] = []
    for s, said in written.items():
        encode = models[s].multimodal.tokenizer.encode
        for a, b in zip(said.expression, test.equations, strict=True):
            if a is not None:
                hits += [x == y for x, y in zip_longest(encode(a), encode(b))]
    return f"right trees {trees:.1%}, right tokens {fmean(hits) if hits else 0.0:.1%}"


def _halves(written: Mapping[int, PROSEPrediction], test: _Test) -> str:
    """Forecast errors in both halves of the output times."""
    errors = []
    for said in written.values():
        assert said.u is not None
        middle, true = said.u.shape[1] // 2, test.at.u[:, -said.u.shape[1] :]
        errors.append(
            [
                float(relative_l2(said.u[:, part], true[:, part]).mean())
                for part in (slice(middle), slice(middle, None))
            ]
        )
    early, late = (fmean(column) for column in zip(*errors, strict=True))
    return f"errors {early:.1%} in the first half of the output times, {late:.1%} in the second"


def _regressed(size: _Size, test: _Test) -> str:
    """Expression errors, by family, of least squares given the tree."""
    errors = _expression_errors(_least_squares(test, max(size.given)), test)
    return ", ".join(
        f"{_name(size, tree)} {float(errors[rows].nanmean()):.1%}" for tree, rows in _by_tree(test)
    )


def _least_squares(test: _Test, given: int) -> list[ExpressionList]:
    """The right trees with numbers by least squares on smoothed slopes.

    The window of smoothing is the best for each tree, told by the truth, in favour of the method.
    """
    t, u = test.at.t[:given], test.inputs(given)
    found: dict[int, ExpressionList] = {}
    for tree, rows in _by_tree(test):
        some = _Test(test.at[rows], test.between[rows])
        tries: list[tuple[float, list[ExpressionList]]] = []
        for window in _WINDOWS:
            states, slopes = smoothed(t, u[rows, :, : tree.dim], window)
            numbers = fitted_numbers(tree, states, slopes).tolist()
            equations = [tree.with_numbers(row) for row in numbers]
            tries.append((float(_expression_errors(equations, some).nanmean()), equations))
        best = min(tries, key=lambda pair: pair[0])[1]
        found |= dict(zip(rows.tolist(), best, strict=True))
    return [found[i] for i in range(len(found))]


def _combination(size: _Size, models: Mapping[int, _Models]) -> str:
    """What becomes of an equation that no training had, with the right guess."""
    test, given = _test(size, (_UNSEEN,), max(size.test // 5, 4)), max(size.given)
    share = fmean(_right_trees(_written(m.multimodal, test, given), test) for m in models.values())
    return (
        "of Lorenz' equations with a further 0.1 u_0^2, a combination never trained on, guessed "
        f"rightly, {share:.0%} are written so"
    )


def _comparison(
    size: _Size, test: _Test, own: Mapping[int, Tensor], other: Mapping[int, Tensor]
) -> str:
    mine = torch.stack(list(own.values())).mean(0)
    its = torch.stack(list(other.values())).mean(0)
    table = ", ".join(
        f"{_name(size, tree)} {float(mine[rows].mean()):.1%} ({float(its[rows].mean()):.1%})"
        for tree, rows in _by_tree(test)
    )
    return (
        f"errors {float(mine.mean()):.1%} ({float(its.mean()):.1%}), medians "
        f"{float(mine.median()):.1%} ({float(its.median()):.1%}), by system: {table}"
    )


def _elsewhere(size: _Size, models: Mapping[int, _Models], rival: Mapping[int, Forecast]) -> str:
    """Errors with parameters like those of the training, and with ones out of their range."""
    given = max(size.given)
    tests = {
        "seen cells": _test(size, size.families, size.test, accept=_outside),
        "beyond the range, up to 20 % from the mean,": _test(
            size, size.families, size.test, accept=_beyond, spread=0.2
        ),
    }
    texts = []
    for name, test in tests.items():
        truth = test.at.u[:, given:]
        mine = fmean(_error(m.multimodal, test, given) for m in models.values())
        its = fmean(float(_finite_errors(ask(test), truth).mean()) for ask in rival.values())
        texts.append(f"with parameters of {name} {mine:.1%} ({its:.1%})")
    return ", ".join(texts)


def _solved(size: _Size, written: Mapping[int, PROSEPrediction], test: _Test) -> str:
    """Errors of solutions of the equations written, and of those of least squares with the tree."""
    given = max(size.given)
    own = fmean(
        float(_solution_errors(said.expression, test, given).mean()) for said in written.values()
    )
    fitted = float(_solution_errors(_least_squares(test, given), test, given).mean())
    return (
        f"solving what is written errs by {own:.1%}, solving the right tree with numbers by least "
        f"squares on smoothed slopes by {fitted:.1%}"
    )


def _solution_errors(equations: Sequence[ExpressionList | None], test: _Test, given: int) -> Tensor:
    """Forecast errors of solving equations from the last smoothed sample on, tree by tree."""
    u, data = test.inputs(given), test.at
    out = torch.full((len(data), len(data.t) - given, data.u.shape[2]), torch.nan)
    rows: dict[ExpressionList, list[int]] = {}
    for i, equation in enumerate(equations):
        if equation is not None and equation.dim <= data.u.shape[2]:
            rows.setdefault(equation.skeleton, []).append(i)
    for tree, some in rows.items():
        written = (equations[i] for i in some)
        numbers = torch.tensor([e.numbers for e in written if e is not None])
        start = u[some][..., : tree.dim]
        said = tree_forecast(tree, numbers, data.t[:given], start, data.t[given:])
        out[some] = nn.functional.pad(said, (0, data.u.shape[2] - tree.dim)).float()
    return _finite_errors(out, data.u[:, given:])


def _name(size: _Size, tree: ExpressionList) -> str:
    return next(family.name for family in size.families if family.skeleton == tree)


def _finite_errors(said: Tensor, true: Tensor) -> Tensor:
    """Errors, of a forecast that diverged the error of saying nothing: one."""
    errors = relative_l2(said.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).to(true), true)
    lost = ~torch.isfinite(said).flatten(1).all(1)
    return torch.where(lost, 1.0, errors.clamp_max(10.0))


# -- baselines ------------------------------------------------------------------------------


class _DeepONet(nn.Module):
    """Perceptrons of the samples and of the time; a solution is the product of both.

    Samples and solutions are in units of the size of the samples, which is an input as well.
    """

    def __init__(self, inputs: int, outputs: int, width: int, basis: int = 64) -> None:
        super().__init__()
        self.outputs, self.basis = outputs, basis
        self.branch = PlainMLP(inputs + 1, width, 3, basis * outputs, "gelu")
        self.trunk = PlainMLP(1, width, 3, basis, "gelu")

    def forward(self, u: Tensor, t: Tensor) -> Tensor:
        size = u.square().mean((1, 2), keepdim=True).sqrt() + 1e-6
        samples = torch.cat([(u / size).flatten(1), size.flatten(1).log()], dim=1)
        coefficients = self.branch(samples).unflatten(1, (self.outputs, self.basis))
        functions = self.trunk(t.to(u)[:, None] / 3.0 - 1.0)
        return size * torch.einsum("bck,qk->bqc", coefficients, functions)


def _new_deeponet(size: _Size) -> _DeepONet:
    widest = max(family.dim for family in size.families)
    return _DeepONet(max(size.given) * widest, widest, 4 * size.width)


def _fitted_deeponet(size: _Size, train: TrajectorySet, seed: int) -> _DeepONet:
    """DeepONet of the same samples, by four times as many steps, which are cheaper."""
    given, device = max(size.given), size.device
    network = _new_deeponet(size).to(device)
    batches = shuffled_batches(len(train), size.batch_size, seed)
    generator = torch.Generator().manual_seed(seed)
    truth, t = train.u.to(device), train.t[given:].to(device)

    def loss(step: int) -> Tensor:
        rows = batches(step)
        noisy = add_noise(train.u[rows, :given], train.mask[rows], 0.02, generator).to(device)
        said, wanted = network(noisy, t), truth[rows.to(device), given:]
        error = (said - wanted).square().sum((1, 2))
        return (error / (wanted.square().sum((1, 2)) + 1e-5)).mean()

    optimizer = torch.optim.Adam(network.parameters(), 1e-3, foreach=True)
    schedule = cosine(warmup=0.05, floor=0.01)
    settings = Settings(max_steps=4 * size.steps, schedule=schedule, clip_norm=1.0)
    Trainer(network, optimizer, settings).run(loss)
    return network.cpu()


def _deeponet(size: _Size, weights: Mapping[str, Tensor]) -> Forecast:
    network = _new_deeponet(size)
    network.load_state_dict(weights)
    given = max(size.given)

    @torch.no_grad()
    def forecast(test: _Test) -> Tensor:
        return torch.as_tensor(network(test.inputs(given), test.at.t[given:]))

    return forecast


def _sindy(size: _Size, train: TrajectorySet) -> Forecast:
    """SINDy with the threshold and window that forecast trajectories of the training best."""
    given = max(size.given)

    def forecast(test: _Test, threshold: float, window: int) -> Tensor:
        t = test.at.t
        return sparse_forecast(t[:given], test.inputs(given), t[given:], threshold, window)

    some = train[torch.arange(min(50, len(train)))]
    known = _Test(some, some)
    scores = {
        pair: float(_finite_errors(forecast(known, *pair), some.u[:, given:]).mean())
        for pair in product(_THRESHOLDS, _WINDOWS)
    }
    best = min(scores, key=scores.__getitem__)
    return lambda test: forecast(test, *best)


def _nearest(size: _Size, train: TrajectorySet) -> Forecast:
    given = max(size.given)
    known = train.u[:, :given].flatten(1)

    def forecast(test: _Test) -> Tensor:
        distance = torch.cdist(test.inputs(given).flatten(1), known)
        return train.u[distance.argmin(1), given:]

    return forecast
