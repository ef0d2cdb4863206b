"""Rollouts that grow in training: the schedule, what is fed back, and the terms of the loss."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.cape import CAPE, ParameterConditioned
from understudy.models.operators.curriculum import (
    CurriculumRollout,
    auxiliary,
    guess_error,
    own_steps,
    paper_training,
    relative_error,
)
from understudy.models.operators.fno import FNO
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.stored import load_operator
from understudy.models.operators.training import Training


class Recorder(FieldNetwork):
    """Scales its input by a number, and keeps what it was given."""

    kind: ClassVar[str] = "recorder"

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"factor": factor}
        self.factor = nn.Parameter(torch.tensor(factor))
        self.seen: list[Tensor] = []

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        self.seen.append(u.detach().clone())
        return self.factor * u


def conditioned(points: int = 16) -> ParameterConditioned:
    torch.manual_seed(0)
    return ParameterConditioned(FNO(2, 2, [4], 8), CAPE(1, 1, (points,), width=8, modes=3))


def trajectories(runs: int = 6, times: int = 5, points: int = 16) -> Tensor:
    start = torch.randn(runs, 1, points, generator=torch.Generator().manual_seed(1))
    return torch.stack([start.roll(2 * t, dims=-1) for t in range(times)], dim=1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def loss(
    model: CurriculumRollout, clip: Tensor, p: Tensor | None = None, at: float = 0.5
) -> Tensor:
    return model._loss(clip, p, seeded(), at)


# -- schedule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "times"),
    # floor of 41 (1 + tanh(5 s - 5/2)) / 2, where tanh 1.25 is 0.84828 and tanh 2.5 is 0.98661
    [(0.0, 1), (0.25, 3), (0.5, 20), (0.75, 37), (1.0, 40)],
)
def test_own_steps_grow_along_a_hyperbolic_tangent(share, times):
    assert own_steps("tanh", share, 41) == times


def test_other_schedules_feed_back_nothing_or_everything():
    assert [own_steps("teacher", s, 9) for s in (0.0, 1.0)] == [1, 1]
    assert [own_steps("autoregressive", s, 9) for s in (0.0, 1.0)] == [9, 9]


@pytest.mark.parametrize(
    ("schedule", "at", "inputs"),
    [
        ("teacher", 1.0, [1.0, 10.0, 100.0, 1000.0]),
        ("autoregressive", 0.0, [1.0, 2.0, 4.0, 8.0]),
        ("tanh", 0.5, [1.0, 2.0, 100.0, 1000.0]),  # T_a = 2 of 5: the first field alone is its own
        ("tanh", 0.7, [1.0, 2.0, 4.0, 8.0]),  # T_a = floor(5 (1 + tanh 1) / 2) = 4
    ],
)
def test_inputs_are_own_before_the_time_of_the_schedule_and_true_from_it_on(schedule, at, inputs):
    clip = (10.0 ** torch.arange(5.0)).reshape(1, 5, 1, 1).expand(1, 5, 1, 4)
    net = Recorder()
    loss(CurriculumRollout(net, schedule=schedule, noise=0.0), clip, at=at)
    assert [float(u[0, 0, 0]) for u in net.seen] == inputs


def test_gradients_flow_through_own_inputs():
    clip = torch.ones(1, 4, 1, 4)
    slopes = {}
    for schedule in ("teacher", "autoregressive"):
        net = Recorder(2.0)
        loss(CurriculumRollout(net, schedule=schedule, noise=0.0), clip).backward()
        slopes[schedule] = float(net.factor.grad)
    # d/df of the sum of |f - 1|, and of |f - 1| + |f^2 - 1| + |f^3 - 1|, at 2
    assert slopes == pytest.approx({"teacher": 3.0, "autoregressive": 1.0 + 4.0 + 12.0})


def test_every_input_is_noised():
    clip, net = torch.zeros(500, 4, 1, 8), Recorder(1.0)
    loss(CurriculumRollout(net, schedule="teacher", noise=0.1), clip)
    assert [float(u.std()) for u in net.seen] == pytest.approx([0.1] * 3, rel=0.05)


# -- auxiliary loss -----------------------------------------------------------------------------


def test_cumulative_sums_weigh_the_first_steps_most():
    errors = [torch.tensor(e) for e in (1.0, 10.0, 100.0)]
    assert float(auxiliary(errors, "sum")) == 111.0
    assert float(auxiliary(errors, "cumulative")) == 3 * 1.0 + 2 * 10.0 + 100.0


def test_guesses_beyond_the_end_of_a_trajectory_are_not_compared():
    ahead, none = torch.ones(2, 2, 1, 8), torch.zeros(2)
    guess = torch.cat([torch.ones(2, 2, 8), 50.0 * torch.ones(2, 1, 8)], dim=1)
    assert guess_error(guess, ahead, none).item() == 0.0
    assert guess_error(guess[:, :1] * 1.5, ahead, none).item() == pytest.approx(0.5)


def test_errors_of_fields_that_die_out_are_no_longer_relative():
    clip = torch.tensor([1.0, 0.5, 1e-6]).reshape(1, 3, 1, 1).expand(1, 3, 1, 16)
    losses = [
        loss(CurriculumRollout(Recorder(0.0), noise=0.0, floor=floor), clip).item()
        for floor in (0.0, 0.1)
    ]
    # zero is predicted: off by all of the truth, or by 1e-6 of a tenth
    assert losses == pytest.approx([1.0 + 1.0, 1.0 + 1e-5])
    assert relative_error(clip[:, 0], clip[:, 0], torch.zeros(1)).item() == 0.0


def test_the_weight_of_the_auxiliary_loss_multiplies_the_errors_of_the_guesses():
    clip, p, net = trajectories(), torch.ones(6, 1), conditioned()
    losses = [
        loss(
            CurriculumRollout(net, schedule="teacher", noise=0.0, auxiliary_weight=w), clip, p
        ).item()
        for w in (0.0, 1.0)
    ]
    least = 0.1 * clip[:, 0].flatten(1).norm(dim=1)
    steps = [guess_error(net.cape(clip[:, t - 1], p), clip[:, t:], least) for t in range(1, 5)]
    assert losses[1] - losses[0] == pytest.approx(torch.stack(steps).sum().item(), rel=1e-4)


def test_the_block_alone_is_trained_in_the_warm_up():
    net, changes = conditioned(), []
    before = {name: value.clone() for name, value in net.state_dict().items()}
    CurriculumRollout(net, warmup_epochs=1.0).fit(
        trajectories(),
        torch.ones(6, 1),
        dt=0.1,
        training=Training(steps=6, batch_size=3, ema_decay=None),
        listener=lambda event: changes.append(changed(before, net)),
    )
    assert changes[:2] == [{"cape"}] * 2
    assert changes[2:] == [{"base", "cape", "project"}] * 4


def test_the_warm_up_may_be_a_share_of_training():
    net, changes = conditioned(), []
    before = {name: value.clone() for name, value in net.state_dict().items()}
    operator = CurriculumRollout(net, warmup_share=0.5, unroll=3)
    plan = Training(steps=6, batch_size=3, ema_decay=None)
    note = lambda event: changes.append(changed(before, net))  # noqa: E731
    operator.fit(trajectories(), torch.ones(6, 1), dt=0.1, training=plan, listener=note)
    assert changes == [{"cape"}] * 3 + [{"base", "cape", "project"}] * 3
    # in a loop of one's own, too, where nobody counts passes
    clip, p = trajectories()[:, :4], torch.ones(6, 1)
    for progress, trained in ((0.49, {"cape"}), (0.51, {"base", "cape", "project"})):
        net.zero_grad(set_to_none=True)
        operator.clip_loss(clip, p, torch.Generator(), progress).backward()
        moved = {n.split(".")[0] for n, v in net.named_parameters() if v.grad is not None}
        assert moved == trained
    with pytest.raises(UserError, match="warmup_share"):
        CurriculumRollout(net, warmup_share=1.0)


def changed(before: dict[str, Tensor], net: nn.Module) -> set[str]:
    now = net.state_dict()
    return {name.split(".")[0] for name in now if not torch.equal(now[name], before[name])}


# -- penalty ------------------------------------------------------------------------------------


class Slope(FieldNetwork):
    """Adds 2 p_0 + 3 p_1 to each of the points."""

    kind: ClassVar[str] = "slope"

    def __init__(self) -> None:
        super().__init__()
        self.settings = {}
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        assert p is not None
        return u + (p @ self.weight)[:, None, None]


def test_the_penalty_draws_the_slope_in_the_parameters_to_its_norm():
    clip, p = torch.ones(3, 2, 1, 8), torch.rand(3, 2, generator=seeded())
    losses = [
        loss(CurriculumRollout(Slope(), noise=0.0, penalty_weight=w, penalty_norm=4.0), clip, p)
        for w in (0.0, 1.0)
    ]
    # each of 8 points has the slope (2, 3) of norm 13^(1/2)
    assert (losses[1] - losses[0]).item() == pytest.approx((8.0 * 13.0**0.5 - 4.0) ** 2, rel=1e-5)
    losses[1].backward()


# -- use ----------------------------------------------------------------------------------------


def test_a_shift_is_learnt_kept_and_rolled_out(tmp_path):
    data, p = trajectories(24, 5), torch.ones(24, 1)
    training = Training(
        steps=80, batch_size=12, learning_rate=1e-2, ema_decay=None, validate_every=20
    )
    model = CurriculumRollout(conditioned()).fit(
        data, p, dt=0.1, parameters=("speed",), validation=(data, p), training=training
    )
    path = model.rollout(data[:, 0], 4, torch.ones(1))
    assert path.shape == (24, 1, 5, 1, 16)
    error = (path[:, 0] - data).norm() / data.norm()
    assert float(error) < 0.5
    assert model.outcome is not None and float(model.outcome.score) < 0.6

    again = load_operator(model.save(tmp_path / "shift.us"))
    assert isinstance(again, CurriculumRollout) and again.schedule == "tanh"
    assert torch.equal(again.rollout(data[:, 0], 4, torch.ones(1)), path)


def test_longer_trajectories_can_be_trained_on_in_pieces():
    net = Recorder(1.0)
    training = Training(steps=1, batch_size=4, ema_decay=None)
    CurriculumRollout(net, unroll=2).fit(trajectories(times=9), dt=0.1, training=training)
    assert len(net.seen) == 2


def test_the_papers_training_is_a_hundred_passes_in_batches_of_fifty():
    plan = paper_training(500)
    assert (plan.steps, plan.batch_size, plan.validate_every) == (1000, 50, 10)
    assert (plan.learning_rate, plan.weight_decay, plan.ema_decay) == (3e-3, 1e-4, None)
    assert paper_training(7, epochs=3).steps == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear"}, "schedule must be one of tanh, teacher, autoregressive"),
        ({"auxiliary_mode": "mean"}, "auxiliary_mode must be one of sum, cumulative"),
        ({"noise": -1.0}, "noise must be at least 0"),
        ({"auxiliary_weight": float("nan")}, "auxiliary_weight must be at least 0"),
        ({"unroll": 0}, "unroll must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        CurriculumRollout(Recorder(), **options)


def test_a_warm_up_that_leaves_nothing_is_refused():
    training = Training(steps=4, batch_size=3, ema_decay=None)
    with pytest.raises(UserError, match="leave none of 4 steps, which are 2 passes"):
        CurriculumRollout(conditioned()).fit(
            trajectories(), torch.ones(6, 1), dt=0.1, training=training
        )
