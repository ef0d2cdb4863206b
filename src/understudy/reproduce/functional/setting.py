"""What the measurements of functional priors spend, and how a prior is matched for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.models.tabular.functional_prior import (
    FunctionalPriorMatcher,
    Grid,
    HierarchicalRBFProcess,
    MatchHistory,
    RBFProcess,
    TrainingAndUniform,
)
from understudy.nn.layer_priors import LayerPrior
from understudy.reproduce.claims import Scale

NOISE_VARIANCE = 0.1
"""Of an observation, in units of the outputs' variance, as in the paper."""


@dataclass(frozen=True)
class Match:
    """What a match of a prior spends."""

    functions: int
    points: int
    steps: int
    learning_rate: float
    critic_steps: int
    critic_learning_rate: float
    threshold: float
    one_memory: bool = False


@dataclass(frozen=True)
class Sampling:
    """What a posterior spends."""

    chains: int
    burn_in: int
    kept: int
    keep_every: int

    def settings(self, seed: int) -> dict[str, int | float]:
        """Parameters of a surrogate or classifier, with the paper's step and friction."""
        return {
            "chains": self.chains,
            "burn_in": self.burn_in,
            "steps": self.burn_in + self.kept * self.keep_every,
            "keep_every": self.keep_every,
            "learning_rate": 0.01,
            "friction": 0.01,
            "batch_size": 32,
            "seed": seed,
        }


@dataclass(frozen=True)
class Size:
    """What a scale spends."""

    line: Match
    line_hidden: tuple[int, ...]
    line_sampling: Sampling
    line_seeds: int
    tables: tuple[str, ...]
    table: Match
    table_hidden: tuple[int, ...]
    table_sampling: Sampling
    splits: int
    arcs: Match
    arcs_hidden: tuple[int, ...]
    arcs_sampling: Sampling
    arcs_rows: int


SIZES = {
    Scale.SMOKE: Size(
        line=Match(16, 16, 4, 0.05, 3, 0.08, 0.01),
        line_hidden=(8, 8),
        line_sampling=Sampling(2, 50, 4, 5),
        line_seeds=1,
        tables=("generated",),
        table=Match(16, 16, 4, 0.05, 3, 0.02, 0.1),
        table_hidden=(8,),
        table_sampling=Sampling(2, 50, 4, 5),
        splits=1,
        arcs=Match(16, 16, 3, 0.05, 3, 0.02, 0.1),
        arcs_hidden=(8, 8),
        arcs_sampling=Sampling(2, 50, 4, 5),
        arcs_rows=60,
    ),
    Scale.CPU: Size(
        line=Match(128, 64, 100, 0.05, 50, 0.02, 0.01),
        line_hidden=(50, 50),
        line_sampling=Sampling(2, 2000, 20, 100),
        line_seeds=2,
        tables=("yacht", "energy", "concrete"),
        table=Match(128, 64, 50, 0.05, 60, 0.02, 0.1),
        table_hidden=(50,),
        table_sampling=Sampling(2, 2000, 20, 100),
        splits=3,
        arcs=Match(48, 50, 40, 0.05, 50, 0.02, 0.1),
        arcs_hidden=(50, 50),
        arcs_sampling=Sampling(2, 1000, 20, 50),
        arcs_rows=400,
    ),
    Scale.PAPER: Size(
        line=Match(512, 200, 800, 0.01, 1000, 0.08, 0.01, one_memory=True),
        line_hidden=(50, 50, 50),
        line_sampling=Sampling(4, 2000, 40, 200),
        line_seeds=5,
        tables=("yacht", "energy", "concrete", "wine-quality-red", "power-plant", "kin8nm"),
        table=Match(128, 100, 200, 0.05, 200, 0.02, 0.1, one_memory=True),
        table_hidden=(100,),
        table_sampling=Sampling(4, 2000, 30, 2000),
        splits=10,
        arcs=Match(128, 100, 200, 0.05, 200, 0.02, 0.1, one_memory=True),
        arcs_hidden=(100, 100),
        arcs_sampling=Sampling(4, 2000, 30, 200),
        arcs_rows=400,
    ),
}


def match_prior(
    prior: LayerPrior,
    process: RBFProcess | HierarchicalRBFProcess,
    measurement: Grid | TrainingAndUniform,
    budget: Match,
    seed: int,
) -> MatchHistory:
    """Match a prior in single precision, and return it to double."""
    matcher = FunctionalPriorMatcher(
        process,
        prior.float(),
        measurement,
        functions=budget.functions,
        steps=budget.steps,
        learning_rate=budget.learning_rate,
        critic_steps=budget.critic_steps,
        critic_learning_rate=budget.critic_learning_rate,
        threshold=budget.threshold,
        one_memory=budget.one_memory,
        seed=seed,
    )
    history = matcher.fit()
    prior.double()
    return history


def listed(values: Mapping[str, float]) -> str:
    """Figures by name, as text."""
    return ", ".join(f"{key}: {value:.3f}" for key, value in values.items())
