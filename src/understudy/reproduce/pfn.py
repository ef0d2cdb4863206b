r"""Claims of Müller, Hollmann, Pineda Arango, Grabocka & Hutter (2022, arXiv 2112.10510), measured.

Networks are trained here on the paper's priors, smaller and for less long than the paper's, and
their answers are compared with what they stand in for: the exact posterior of a Gaussian process
with known hyperparameters; hyperparameters fitted to each data set or sampled by Hamiltonian Monte
Carlo; a small Bayesian network by mean-field variational inference and by Hamiltonian Monte Carlo.
Everything that is compared has all data sets in one batch. Times are of the processor, on one
thread. Classification of tables is in `understudy.reproduce.in_context.tables`, by the shipped
network.

The outcomes of the process with hyper-priors are in units of :math:`\sqrt{2 / 0.15}`, the mean
deviation of the paper's; all methods know.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from understudy.core.bars import BarDistribution
from understudy.core.linalg import one_thread
from understudy.models.incontext.encoding import Encoding
from understudy.models.incontext.gp_priors import FixedGP, HyperPriorGP
from understudy.models.incontext.heads import Bars, Binary, Gaussian, Head
from understudy.models.incontext.network_priors import BNNClassification
from understudy.models.incontext.pfn import PFN
from understudy.models.incontext.pretrain import Pretraining, sample_borders
from understudy.models.incontext.task import Prior, TaskBatch
from understudy.nn.in_context import Architecture, PFNTransformer
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.in_context.baselines import (
    Process,
    fitted_process,
    mean_field,
    sampled_network,
    sampled_process,
    timed,
)
from understudy.reproduce.in_context.tables import tabular_claims
from understudy.sample import Plan

CONTEXTS = (1, 5, 10, 20, 30, 40, 50)
HYPER_CONTEXTS = (10, 20, 30)
PROCESS = FixedGP(5)
LINE = FixedGP(1, noise=1e-2)
_UNIT = 2.0 / 0.15
HYPER = HyperPriorGP(5, outputscale=(2.0, 0.15 * _UNIT), noise=(1e-4, _UNIT))
NETWORK = BNNClassification(3, 5)


@dataclass(frozen=True)
class _Training:
    """Of one network: data sets are ``batch`` of ``rows`` rows in each of ``steps``."""

    steps: int
    batch: int
    rows: int
    width: int
    depth: int
    bars: int = 256
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class _Size:
    """What a scale spends."""

    process: _Training
    line: _Training
    hyper: _Training
    network: _Training
    data_sets: int
    hyper_sets: int
    network_sets: int
    sampled_sets: int
    restarts: int
    fit_steps: int
    plan: Plan
    subsets: int


_SIZES = {
    Scale.SMOKE: _Size(
        process=_Training(20, 2, 64, 16, 1, 16),
        line=_Training(20, 2, 64, 16, 1, 16),
        hyper=_Training(20, 2, 40, 16, 1, 16),
        network=_Training(20, 2, 112, 16, 1),
        data_sets=4,
        hyper_sets=2,
        network_sets=3,
        sampled_sets=1,
        restarts=1,
        fit_steps=5,
        plan=Plan(20, 10),
        subsets=1,
    ),
    Scale.CPU: _Size(
        process=_Training(10_000, 16, 64, 64, 4, learning_rate=2e-3),
        line=_Training(1000, 16, 32, 64, 3, 100, 2e-3),
        hyper=_Training(4000, 16, 40, 64, 4, learning_rate=2e-3),
        network=_Training(3000, 8, 128, 64, 3, learning_rate=2e-3),
        data_sets=500,
        hyper_sets=200,
        network_sets=100,
        sampled_sets=20,
        restarts=4,
        fit_steps=150,
        plan=Plan(400, 400),
        subsets=20,
    ),
    Scale.PAPER: _Size(
        process=_Training(1_000_000, 4, 2010, 512, 6, 1000, 1e-4),
        line=_Training(100_000, 64, 100, 512, 6, 1000, 1e-4),
        hyper=_Training(100_000, 128, 100, 512, 6, 1000, 1e-4),
        network=_Training(40_000, 256, 300, 256, 5, 2, 2.006e-5),
        data_sets=1000,
        hyper_sets=1000,
        network_sets=100,
        sampled_sets=20,
        restarts=10,
        fit_steps=1000,
        plan=Plan(1000, 1000),
        subsets=20,
    ),
}


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` trains on some hundred thousand data sets a prior, ``paper`` on up to four million.
    seed : int
        Of training, of test data sets and of the chains.

    Raises
    ------
    UserError
        If ``UNDERSTUDY_DATA`` names no folder with the tables of classes.
    """
    size = _SIZES[scale]
    with one_thread():
        tables = tabular_claims(size.subsets, seed)
        heads, hyper = _heads(size, seed)
        return [
            *_fixed_process(size, seed),
            *heads,
            *_hyper_process(size, hyper, seed),
            *_small_network(size, seed),
            *tables,
        ]


# -- networks ------------------------------------------------------------------------------------


def _train(prior: Prior, training: _Training, head: str, seed: int) -> tuple[PFN, PFN]:
    """Network after half of the steps and after all."""
    binary = head == "binary"
    plan = Pretraining(
        steps=training.steps,
        batch=training.batch,
        rows=training.rows,
        learning_rate=training.learning_rate,
        warmup=0.1,
        seed=seed,
        device="cuda" if torch.cuda.is_available() else "cpu",
        log_every=max(training.steps // 2, 1),
    )
    encoding = Encoding(prior.features, "standard" if binary else "unit", "raw")
    reader: Head = Binary() if binary else Gaussian()
    if head == "bars":
        reader = Bars(sample_borders(prior, encoding, plan, training.bars))
    torch.manual_seed(seed)
    sizes = Architecture(prior.features, reader.outputs, training.width, training.depth, 4)
    model = PFN(PFNTransformer(sizes), encoding, reader, training.rows - 1)
    stages: list[PFN] = []
    model.fit(prior, plan, lambda _: stages.append(_at_rest(model)))
    return stages[0], _at_rest(model)


def _at_rest(model: PFN) -> PFN:
    """Copy of a network that is being trained, on the processor."""
    copy = deepcopy(model)
    copy.network.cpu().eval().requires_grad_(False)
    return copy


def _tasks(prior: Prior, count: int, rows: int, seed: int) -> TaskBatch:
    """Test data sets; no training step draws from this seed."""
    return prior.sample(count, rows, torch.Generator().manual_seed(2**31 + seed))


@torch.no_grad()
def _log_density(model: PFN, task: TaskBatch, context: int) -> Tensor:
    """Log density or probability (B, N - context) of what follows the context."""
    read = model.read(task.x[:, :context], task.y[:, :context])
    logits = model.logits(read, task.x[:, context:])
    return -model.head.loss(logits, task.target[:, context:])


def _loss(log_density: Tensor) -> float:
    return -float(log_density.double().mean())


def _listed(values: Mapping[Any, float], form: str = ".3f") -> str:
    return ", ".join(f"{key}: {value:{form}}" for key, value in values.items())


# -- claims --------------------------------------------------------------------------------------


def _fixed_process(size: _Size, seed: int) -> list[Claim]:
    (half, whole), seconds = timed(lambda: _train(PROCESS, size.process, "bars", seed))
    task = _tasks(PROCESS, size.data_sets, size.process.rows, seed)
    exact = Process.of(PROCESS, len(task))
    floor = {n: _loss(exact.log_density(task, n)) for n in CONTEXTS}
    gap, early = (
        {n: _loss(_log_density(model, task, n)) - floor[n] for n in CONTEXTS}
        for model in (whole, half)
    )
    marginal = _marginal(whole, task)
    sets, steps = size.process.steps * size.process.batch, size.process.steps
    where = f"process of 5 inputs, {size.data_sets} data sets; network after {sets} data sets"
    return [
        Claim(
            statement="The network's answer is the exact posterior of a Gaussian process",
            paper_figure="Fig. 4a: loss falls to the exact one as data sets grow to 4 million",
            metric=f"greatest gap in nats to the exact posterior, 1 to 50 rows; {where}",
            bar=0.1,
            direction="at most",
            measured=max(gap.values()),
            seeds=(seed,),
            reason=(
                f"gap by rows {_listed(gap)}; exact {_listed(floor)}; {seconds:.0f} s of training"
            ),
        ),
        Claim(
            statement="The answer comes nearer the exact posterior with more training",
            paper_figure="Fig. 4a: 500 thousand to 4 million data sets",
            metric=f"mean gap after {steps // 2} steps less that after {steps}, nats",
            bar=0.0,
            direction="at least",
            measured=fmean(early[n] - gap[n] for n in CONTEXTS),
            seeds=(seed,),
            reason=f"gap by rows after half {_listed(early)}",
        ),
        Claim(
            statement="The network learns from its context",
            paper_figure="the bars' prior marginal as ceiling",
            metric="loss of the prior marginal less the network's, nats, mean over 1 to 50 rows",
            bar=0.0,
            direction="at least",
            measured=fmean(marginal - floor[n] - gap[n] for n in CONTEXTS),
            seeds=(seed,),
            reason=f"prior marginal {marginal:.3f}",
        ),
        _symmetry(whole, task, seed),
    ]


def _marginal(model: PFN, task: TaskBatch) -> float:
    """Loss of bars of equal mass, which is the prior's marginal."""
    assert isinstance(model.head, Bars)
    equal = BarDistribution.of(model.head.borders, torch.zeros(1, model.head.outputs))
    return _loss(equal.log_density(task.target.flatten()))


def _symmetry(model: PFN, task: TaskBatch, seed: int) -> Claim:
    """Shuffle the context, and change all queries but one; in double precision."""
    model = deepcopy(model)
    model.network.double()
    n, sets = CONTEXTS[3], min(len(task), 50)
    x, y = task.x[:sets].double(), task.y[:sets].double()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))

    def answers(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
        return model.network(
            model.encoding.rows(torch.cat([x, queries], 1)),
            torch.cat([y, torch.zeros(sets, queries.shape[1]).double()], 1),
            y.shape[1],
        )

    with torch.no_grad():
        plain = answers(x[:, :n], y[:, :n], x[:, n:])
        shuffled = answers(x[:, order], y[:, order], x[:, n:])
        others = torch.cat([x[:, n : n + 1], 1.0 - x[:, n + 1 :]], 1)
        changed = answers(x[:, :n], y[:, :n], others)[:, :1]
    by_order = float((plain - shuffled).abs().max())
    by_others = float((plain[:, :1] - changed).abs().max())
    return Claim(
        statement="Answers depend neither on the order of the rows nor on other questions",
        paper_figure="section 4: no positions, queries do not attend to one another",
        metric="greatest change of an output, double precision",
        bar=1e-10,
        direction="at most",
        measured=max(by_order, by_others),
        seeds=(seed,),
        reason=f"{by_order:.1e} by the order of {n} rows, {by_others:.1e} by other questions",
    )


def _heads(size: _Size, seed: int) -> tuple[list[Claim], PFN]:
    """Bars against one Gaussian, where the exact answer is Gaussian and where it is not.

    The network with bars of the second is used further.
    """
    claims, models = [], dict[str, PFN]()
    for prior, training, sets, contexts, what in (
        (LINE, size.line, size.data_sets, (1, 5, 10, 20), "known hyperparameters, 1 input"),
        (HYPER, size.hyper, size.hyper_sets, HYPER_CONTEXTS, "hyper-priors, 5 inputs"),
    ):
        task = _tasks(prior, sets, training.rows, seed)
        models = {head: _train(prior, training, head, seed)[1] for head in ("bars", "gaussian")}
        losses = {
            head: {n: _loss(_log_density(model, task, n)) for n in contexts}
            for head, model in models.items()
        }
        reason = f"bars by rows {_listed(losses['bars'])}; Gaussian {_listed(losses['gaussian'])}"
        if isinstance(prior, FixedGP):
            exact = Process.of(prior, len(task))
            floor = {n: _loss(exact.log_density(task, n)) for n in contexts}
            reason += f"; exact {_listed(floor)}; the exact answer is Gaussian here"
        claims.append(
            Claim(
                statement=f"Bars are a better head than a Gaussian: process with {what}",
                paper_figure="Fig. 9",
                metric=f"loss with a Gaussian head less that with bars, nats, {sets} data sets",
                bar=0.0,
                direction="at least",
                measured=fmean(losses["gaussian"][n] - losses["bars"][n] for n in contexts),
                seeds=(seed,),
                reason=reason,
            )
        )
    return claims, models["bars"]


def _hyper_process(size: _Size, model: PFN, seed: int) -> list[Claim]:
    generator = torch.Generator().manual_seed(seed)
    task = _tasks(HYPER, size.hyper_sets, size.hyper.rows, seed)
    losses: dict[str, dict[int, float]] = {name: {} for name in ("PFN", "MLE-II", "MAP")}
    ratios: dict[str, dict[int, float]] = {"MLE-II": {}, "MAP": {}}
    for n in HYPER_CONTEXTS:
        answer, brief = timed(partial(_log_density, model, task, n))
        losses["PFN"][n] = _loss(answer)
        for name in ratios:
            fit = partial(fitted_process, with_prior=name == "MAP", restarts=size.restarts)
            process, seconds = timed(partial(fit, task, n, HYPER, generator, steps=size.fit_steps))
            losses[name][n] = _loss(process.log_density(task, n))
            ratios[name][n] = seconds / brief
    table = "; ".join(f"{name} {_listed(loss)}" for name, loss in losses.items())
    lead = {
        name: fmean(losses[name][n] - losses["PFN"][n] for n in HYPER_CONTEXTS) for name in ratios
    }
    some = f"{size.hyper_sets} data sets, 10, 20, 30 rows"
    claims = [
        Claim(
            statement=f"The network's answer is closer to the truth than {what}",
            paper_figure=figure,
            metric=f"loss by {name} less the network's, nats, {some}",
            bar=0.0,
            direction="at least",
            measured=lead[name],
            seeds=(seed,),
            reason=f"by rows {table}",
        )
        for name, what, figure in (
            ("MLE-II", "the process of greatest evidence", "Fig. 4b"),
            ("MAP", "the process of greatest posterior density", "not in the paper's text"),
        )
    ]
    claims.append(
        Claim(
            statement="It is over 200 times faster than MLE-II",
            paper_figure="abstract: 200x",
            metric=f"processor time of MLE-II over the network's, both in one batch; {some}",
            bar=100.0,
            direction="at least",
            measured=fmean(ratios["MLE-II"].values()),
            seeds=(seed,),
            reason=(
                f"by rows {_listed(ratios['MLE-II'], '.0f')}; MAP {_listed(ratios['MAP'], '.0f')}; "
                f"{size.restarts} restarts of {size.fit_steps} steps of all data sets at once"
            ),
        )
    )
    return [*claims, _against_chains(size, model, task, seed)]


def _part(task: TaskBatch, count: int) -> TaskBatch:
    """First data sets of a batch."""
    return TaskBatch(task.x[:count], task.y[:count], task.target[:count])


def _against_chains(size: _Size, model: PFN, task: TaskBatch, seed: int) -> Claim:
    n, generator = HYPER_CONTEXTS[1], torch.Generator().manual_seed(seed)
    task = _part(task, size.sampled_sets)
    answer, brief = timed(partial(_log_density, model, task, n))
    chains, seconds = timed(lambda: sampled_process(task, n, HYPER, generator, size.plan))
    return Claim(
        statement="It is 1,000 to 8,000 times faster than Markov chains over hyperparameters",
        paper_figure="Fig. 4b: NUTS",
        metric=f"processor time of chains over the network's, {len(task)} data sets of {n} rows",
        bar=1000.0,
        direction="at least",
        measured=seconds / brief,
        seeds=(seed,),
        reason=(
            f"loss {_loss(answer):.3f}, by chains {_loss(chains.log_density):.3f}; "
            f"{_trust(chains.r_hat, size.plan)}"
        ),
    )


def _trust(r_hat: Tensor, plan: Plan) -> str:
    good = float((r_hat < 1.05).double().mean())
    return (
        f"4 chains of {plan.burn_in} + {plan.samples} paths; R-hat below 1.05 on {good:.0%} of the "
        f"data sets, {float(r_hat.max()):.2f} at most"
    )


def _small_network(size: _Size, seed: int) -> list[Claim]:
    """100 rows of context; chains have some of the data sets."""
    context, generator = 100, torch.Generator().manual_seed(seed)
    model = _train(NETWORK, size.network, "binary", seed)[1]
    task = _tasks(NETWORK, size.network_sets, context + 200, seed)
    few = _part(task, min(size.sampled_sets, len(task)))
    answer, brief = timed(lambda: _log_density(model, task, context))
    fitted, fit_seconds = timed(
        lambda: mean_field(task, context, NETWORK, generator, 5 * size.fit_steps)
    )
    chains, seconds = timed(lambda: sampled_network(few, context, NETWORK, generator, size.plan))
    loss, count = _loss(answer), len(few)
    rivals = {
        "mean-field variational inference": (
            1000.0,
            loss - _loss(fitted),
            fit_seconds / brief,
            f"its loss {_loss(fitted):.4f}",
        ),
        "Markov chains": (
            10_000.0,
            _loss(answer[:count]) - _loss(chains.log_density),
            seconds / count / (brief / len(task)),
            f"its loss {_loss(chains.log_density):.4f} on {count} data sets, where the network's "
            f"is {_loss(answer[:count]):.4f}; {_trust(chains.r_hat, size.plan)}",
        ),
    }
    claims = []
    for name, (faster, excess, ratio, note) in rivals.items():
        claims += [
            Claim(
                statement=f"On a small Bayesian network the answer is as good as that of {name}",
                paper_figure="Fig. 5",
                metric="loss of the network less the rival's, nats a label, 100 rows of context",
                bar=0.02,
                direction="at most",
                measured=excess,
                seeds=(seed,),
                reason=f"loss {loss:.4f} on {len(task)} data sets; {note}",
            ),
            Claim(
                statement=f"and is had {faster:,.0f} times faster than by {name}",
                paper_figure="Fig. 5",
                metric="processor time of the rival over the network's, per data set, in batches",
                bar=faster,
                direction="at least",
                measured=ratio,
                seeds=(seed,),
            ),
        ]
    return claims
