"""Operators that learn from coefficients alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from understudy.core.loop import Event
from understudy.models.operators.dgno import DeepGenerativeNeuralOperator
from understudy.models.operators.residual_operator import (
    DifferenceDeepONet,
    PIDeepONet,
    ResidualOperator,
)
from understudy.models.operators.training import Training
from understudy.models.operators.weak_residual import WeakResidual
from understudy.reproduce.claims import Claim
from understudy.reproduce.generative.setting import (
    HIGH,
    LOW,
    SOURCE,
    Fields,
    Size,
    error,
    media,
)

SMALL_RADIUS = 1e-4
"""That of the paper."""

Kind = Literal["own", "smooth", "weak", "differences"]
_STEPS: dict[Kind, float] = {"own": 1.0, "smooth": 0.5, "weak": 1.7, "differences": 3.0}
"""Steps of each kind for one of the first, so that rivals take about as long."""


@dataclass(frozen=True)
class Trained:
    """An operator, its error on tests, that on the way, by step, and its processor time."""

    operator: ResidualOperator[Any]
    error: float
    curve: Mapping[int, float]
    seconds: float

    def told(self) -> str:
        """Learning curve in words."""
        points = ", ".join(f"{100 * e:.1f} % at {step}" for step, e in self.curve.items())
        return f"{points}, {self.seconds:.0f} s"


@dataclass(frozen=True)
class ResidualPlan:
    """Training by residuals."""

    size: Size
    seed: int
    test: Fields
    kind: Kind = "own"
    radius: float | None = None
    fields: int | None = None

    def result(self) -> Trained:
        """Operator and errors."""
        size, test, begin = self.size, self.test, time.thread_time()
        torch.manual_seed(self.seed)
        operator = self.operator()
        steps = round(size.steps * _STEPS[self.kind])
        curve: dict[int, float] = {}

        def watch(event: Event) -> None:
            if event.step in (steps // 8, steps // 4, steps // 2):
                curve[event.step] = error(operator.predict(test.a), test.u)

        plan = Training(
            steps=steps,
            batch_size=size.batch_size,
            learning_rate=size.learning_rate,
            clip_norm=None,
            seed=self.seed,
            device=size.device,
            interrupt="raise",
            optimizer="soap",
        )
        medium: Any = "cosines" if self.kind == "smooth" else "two-phase"
        operator.fit(media(size, self.seed, self.fields or size.fields, medium), plan, watch)
        last = error(operator.predict(test.a), test.u)
        return Trained(operator, last, {**curve, steps: last}, time.thread_time() - begin)

    def operator(self) -> ResidualOperator[Any]:
        """Untrained."""
        size = self.size
        residual = WeakResidual(SOURCE, self.radius or size.radius, size.n_centres, size.n_quad)
        shape = (size.points, size.points)
        if self.kind == "differences":
            return DifferenceDeepONet(shape, source=SOURCE)
        if self.kind == "weak":
            return PIDeepONet(shape, size.hidden, residual=residual)
        return DeepGenerativeNeuralOperator(
            *(shape, size.latent_dim, size.hidden),
            residual=residual,
            phases=None if self.kind == "smooth" else (LOW, HIGH),
            data_weight=size.data_weight,
            likelihood="gaussian" if self.kind == "smooth" else "bernoulli",
        )


def label_free(
    size: Size, seed: int, test: Fields, even: Fields, found: Mapping[str, Trained]
) -> list[Claim]:
    """Claims of operators ``own``, ``tiny``, ``smooth``, ``weak``, ``differences`` and ``more``.

    Test fields are those of two phases and smooth ones.
    """
    plain = error(even.u.mean(0, keepdim=True).expand_as(even.u), even.u)
    own, tiny, smooth, more = (found[name] for name in ("own", "tiny", "smooth", "more"))
    improved = _improved(size, test, own)
    ours = f"DGNO {100 * own.error:.1f} % in {own.seconds:.0f} s, {100 * improved:.1f} % with "
    ours += "improved codes"
    common: dict[str, Any] = {"direction": "at most", "seeds": (seed,)}
    return [
        Claim(
            statement="Without one solution it learns to solve rough Darcy flow",
            paper_figure="rough Darcy: 2.07 % after 200,000 steps",
            metric=f"relative L2 error of u on test fields, discs of radius {size.radius:g}",
            bar=0.10,
            measured=own.error,
            reason=f"learning curve {own.told()}; {100 * improved:.1f} % with codes improved by "
            "the loss, without solutions",
            **common,
        ),
        Claim(
            statement="The same with the tiny discs of the paper",
            paper_figure="rough Darcy: 2.07 % after 200,000 steps, R = 1e-4",
            metric=f"relative L2 error of u on test fields, discs of radius {SMALL_RADIUS:g}",
            bar=0.10,
            measured=tiny.error,
            reason=f"learning curve {tiny.told()}",
            **common,
        ),
        Claim(
            statement="The same for smooth coefficients, without a flux of its own",
            paper_figure="smooth Darcy: 0.77 % after 20,000 steps",
            metric="relative L2 error of u on test fields, smooth coefficients",
            bar=0.10,
            measured=smooth.error,
            reason=f"learning curve {smooth.told()}; {100 * plain:.1f} % by the mean of the test "
            "solutions",
            **common,
        ),
        Claim(
            statement="It errs less than the PI-DeepONet of the paper, of about its size and time",
            paper_figure="rough Darcy: 2.07 % and 16.51 %, a ratio of 0.13",
            metric="relative L2 error of u over that of a PI-DeepONet by finite differences",
            bar=0.7,
            measured=own.error / found["differences"].error,
            reason=f"PI-DeepONet {found['differences'].told()}; {ours}",
            **common,
        ),
        Claim(
            statement="It errs less than a PI-DeepONet that is given its weak residuals and flux",
            paper_figure="none: that of the paper (16.51 %) has differences in their place",
            metric="relative L2 error of u over that of a PI-DeepONet, the same residuals",
            bar=0.7,
            measured=own.error / found["weak"].error,
            reason=f"PI-DeepONet {found['weak'].told()}; {ours}",
            **common,
        ),
        Claim(
            statement="Twice as many unlabelled fields lower the error",
            paper_figure="argument of the abstract: unlabelled data are enough",
            metric="relative L2 error of u, twice as many fields over as many, equal steps",
            bar=1.0,
            measured=more.error / own.error,
            reason=f"{100 * own.error:.2f} % with {size.fields} fields, {100 * more.error:.2f} % "
            f"with {2 * size.fields}",
            **common,
        ),
    ]


def _improved(size: Size, test: Fields, own: Trained) -> float:
    """Error with codes of test media improved by the loss."""
    operator = own.operator
    assert isinstance(operator, DeepGenerativeNeuralOperator)
    codes = operator.encode(test.a, steps=100 if size.steps > 100 else 2)
    with torch.no_grad():
        network = operator.network
        refined = network.solution(network.points, codes.to(network.points)).cpu()
    return error(refined.unflatten(1, test.u.shape[2:]).unsqueeze(1), test.u)
