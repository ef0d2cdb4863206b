"""The training loop: when it stops, what it keeps, how it goes on."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from understudy.core.loop import Settings, Trainer, cosine, shuffled_batches
from understudy.nn.soap import SOAP


class Descent:
    """Gradient descent: the smallest optimiser that the loop accepts."""

    def __init__(self, model: nn.Module, lr: float = 1.0) -> None:
        self.param_groups = [{"params": list(model.parameters()), "lr": lr}]

    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data -= group["lr"] * parameter.grad

    def state_dict(self):
        return {"state": {}, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict) -> None:
        pass


class Point(nn.Module):
    """A vector of parameters; one number for each network."""

    def __init__(self, *start: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(start))


def climber(settings: Settings, *start: float) -> tuple[Point, Trainer]:
    """Point whose every step adds 1 under the loss of `climb`."""
    point = Point(*(start or (0.0,)))
    return point, Trainer(point, Descent(point), settings)


def climb(point: Point):
    return lambda step: -point.at.sum()


def scripted(*scores: float):
    """Validation that returns these scores one after the other."""
    left = iter(scores)
    return lambda: torch.tensor(next(left))


# -- when it stops ----------------------------------------------------------------------------


def test_it_stops_after_the_steps_allowed():
    point, trainer = climber(Settings(max_steps=7))
    outcome = trainer.run(climb(point))
    assert (outcome.reason, outcome.steps, point.at.item()) == ("steps", 7, 7.0)


def test_it_stops_when_patience_has_run_out():
    point, trainer = climber(Settings(max_steps=50, validate_every=1, patience=2))
    outcome = trainer.run(climb(point), scripted(3.0, 2.0, 4.0, 1.0, 5.0, 6.0))
    assert (outcome.reason, outcome.steps) == ("patience", 6)


def test_it_stops_when_its_seconds_are_over(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr("understudy.core.loop.time", clock)
    point, trainer = climber(Settings(max_steps=50, max_seconds=3.0))

    def loss(step):
        clock.now += 1.0
        return -point.at.sum()

    outcome = trainer.run(loss)
    assert (outcome.reason, outcome.steps, outcome.seconds) == ("seconds", 3, 3.0)


def test_the_schedule_follows_whichever_budget_is_spent_faster(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr("understudy.core.loop.time", clock)
    settings = Settings(max_steps=100, max_seconds=4.0, schedule=lambda progress: 1.0 - progress)
    point, trainer = climber(settings)
    seen = []

    def loss(step):
        clock.now += 1.0
        return -point.at.sum()

    trainer.run(loss, on_step=lambda event: seen.append(event.progress))
    assert seen == [0.25, 0.5, 0.75, 1.0]
    assert point.at.item() == pytest.approx(1.0 + 0.75 + 0.5 + 0.25)


# -- what it keeps ----------------------------------------------------------------------------


def test_the_best_weights_are_restored():
    point, trainer = climber(Settings(max_steps=6, validate_every=1))
    outcome = trainer.run(climb(point), scripted(3.0, 2.0, 1.0, 4.0, 5.0, 6.0))
    assert point.at.item() == 3.0
    assert (float(outcome.score), int(outcome.best_step)) == (1.0, 3)


class Counting(Point):
    """A point that remembers how often it was used, as normalisations remember statistics."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.register_buffer("uses", torch.zeros(()))
        self.register_buffer("noted", torch.zeros(3), persistent=False)

    def loss(self, step: int) -> torch.Tensor:
        self.uses += 1
        return -self.at.sum()


def test_buffers_are_those_of_the_best_weights():
    point = Counting()
    trainer = Trainer(point, Descent(point), Settings(max_steps=8, validate_every=2))
    trainer.run(point.loss, scripted(3.0, 1.0, 2.0, 5.0))
    assert point.at.item() == point.uses.item() == 4


def test_buffers_go_on_from_a_checkpoint(tmp_path):
    path = tmp_path / "state"
    first = Counting()
    settings = Settings(max_steps=4, validate_every=2, checkpoint=path)
    Trainer(first, Descent(first), settings).run(first.loss, scripted(1.0, 2.0))
    second = Counting()
    trainer = Trainer(second, Descent(second), Settings(max_steps=8, validate_every=2))
    trainer.resume(path)
    assert second.uses.item() == 4
    trainer.run(second.loss, scripted(3.0, 4.0))
    assert second.at.item() == second.uses.item() == 2


def test_the_last_weights_are_validated_too():
    point, trainer = climber(Settings(max_steps=7, validate_every=5))
    outcome = trainer.run(climb(point), scripted(2.0, 1.0))
    assert (point.at.item(), int(outcome.best_step)) == (7.0, 7)


def test_every_network_keeps_its_own_best_weights():
    point, trainer = climber(Settings(max_steps=4, validate_every=1, networks=2), 0.0, 10.0)
    scores = [[1.0, 9.0], [2.0, 8.0], [3.0, 7.0], [4.0, 9.0]]
    outcome = trainer.run(climb(point), scripted(*scores))
    assert point.at.tolist() == [1.0, 13.0]
    assert outcome.score.tolist() == [1.0, 7.0]
    assert outcome.best_step.tolist() == [1, 3]


def test_one_network_that_improves_keeps_the_others_waiting():
    settings = Settings(max_steps=9, validate_every=1, networks=2, patience=2)
    point, trainer = climber(settings, 0.0, 0.0)
    scores = [[5.0, 5.0], [6.0, 4.0], [6.0, 3.0], [6.0, 2.0], [6.0, 3.0], [6.0, 3.0]]
    assert trainer.run(climb(point), scripted(*scores)).steps == 6


def test_a_score_that_is_no_number_is_never_the_best():
    point, trainer = climber(Settings(max_steps=4, validate_every=1))
    outcome = trainer.run(climb(point), scripted(math.nan, 2.0, math.nan, 3.0))
    assert (point.at.item(), float(outcome.score)) == (2.0, 2.0)


def test_without_validation_the_last_weights_are_kept():
    point, trainer = climber(Settings(max_steps=5))
    assert trainer.run(climb(point)).score is None
    assert point.at.item() == 5.0


def test_the_average_of_the_weights_is_what_is_validated_and_kept():
    point, trainer = climber(Settings(max_steps=6, validate_every=1, ema_decay=0.5))
    seen, average = [], 0.0

    def validate():
        seen.append(point.at.item())
        return -point.at.detach().sum()

    trainer.run(climb(point), validate)
    wanted = []
    for step in range(6):
        decay = min(0.5, (1.0 + step) / (10.0 + step))
        average = decay * average + (1.0 - decay) * (step + 1.0)
        wanted.append(average)
    assert seen == pytest.approx(wanted)
    assert point.at.item() == pytest.approx(wanted[-1])


@pytest.mark.parametrize(("networks", "wanted"), [(None, [0.3, 0.4]), (2, [0.5, 0.5])])
def test_gradients_are_clipped_together_or_network_by_network(networks, wanted):
    point, trainer = climber(Settings(max_steps=1, clip_norm=0.5, networks=networks), 0.0, 0.0)
    trainer.run(lambda step: -(3.0 * point.at[0] + 4.0 * point.at[1]))
    assert point.at.tolist() == pytest.approx(wanted)


def test_small_gradients_are_not_clipped():
    point, trainer = climber(Settings(max_steps=1, clip_norm=0.5, networks=2), 0.0, 0.0)
    trainer.run(lambda step: -0.1 * point.at.sum())
    assert point.at.tolist() == pytest.approx([0.1, 0.1])


# -- interrupts -------------------------------------------------------------------------------


def pressed(point: Point, at: int):
    """Loss of `climb` until the user presses Ctrl-C."""

    def loss(step):
        if step == at:
            raise KeyboardInterrupt
        return -point.at.sum()

    return loss


def test_an_interrupt_returns_with_the_best_weights_where_that_is_wanted():
    settings = Settings(max_steps=50, validate_every=1, interrupt="return")
    point, trainer = climber(settings)
    outcome = trainer.run(pressed(point, at=5), scripted(3.0, 1.0, 2.0, 4.0, 5.0))
    assert (outcome.reason, outcome.steps) == ("interrupt", 5)
    assert point.at.item() == 2.0


def test_an_interrupt_goes_on_after_the_best_weights_are_restored():
    point, trainer = climber(Settings(max_steps=50, validate_every=1))
    with pytest.raises(KeyboardInterrupt):
        trainer.run(pressed(point, at=3), scripted(1.0, 2.0, 3.0))
    assert point.at.item() == 1.0


def test_an_interrupt_before_the_first_validation_keeps_what_there_is():
    point, trainer = climber(Settings(max_steps=50, interrupt="return"))
    assert trainer.run(pressed(point, at=3), scripted()).reason == "interrupt"
    assert point.at.item() == 3.0


def test_an_error_in_the_loss_is_not_swallowed():
    point, trainer = climber(Settings(max_steps=50, validate_every=1, interrupt="return"))

    def loss(step):
        if step == 2:
            raise ArithmeticError("lost")
        return -point.at.sum()

    with pytest.raises(ArithmeticError, match="lost"):
        trainer.run(loss, scripted(1.0, 2.0))
    assert point.at.item() == 1.0


# -- resumption -------------------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.bias = nn.Parameter(torch.zeros(3))


def test_a_run_that_was_cut_and_resumed_ends_where_an_uncut_one_does(tmp_path):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    batch = shuffled_batches(40, 8, seed=3)
    path = tmp_path / "training.safetensors"

    def run(cut: int | None = None, resume: bool = False) -> Layer:
        model = Layer()
        settings = Settings(
            max_steps=30,
            schedule=cosine(warmup=0.1),
            ema_decay=0.9,
            validate_every=4,
            interrupt="return",
            checkpoint=path,
        )
        trainer = Trainer(model, SOAP(model.parameters(), every=4), settings)
        if resume:
            trainer.resume(path)

        def loss(step):
            if step == cut:
                raise KeyboardInterrupt
            return (x[batch(step)] @ model.weight + model.bias - 1.0).square().mean()

        trainer.run(loss, lambda: (x @ model.weight + model.bias - 1.0).square().mean())
        return model

    whole = run()
    cut = run(cut=17)
    resumed = run(resume=True)
    assert not torch.allclose(cut.weight, whole.weight, atol=1e-2)
    assert torch.allclose(resumed.weight, whole.weight, atol=1e-6)
    assert torch.allclose(resumed.bias, whole.bias, atol=1e-6)


def test_a_checkpoint_is_one_file(tmp_path):
    point, trainer = climber(Settings(max_steps=2, checkpoint=tmp_path / "training"))
    trainer.run(climb(point))
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


# -- schedules and batches --------------------------------------------------------------------


def test_the_cosine_rises_stays_and_falls():
    factor = cosine(warmup=0.2, flat=0.3, floor=0.1)
    assert factor(0.1) == pytest.approx(0.5)
    assert [factor(p) for p in (0.2, 0.4, 0.5)] == pytest.approx([1.0, 1.0, 1.0])
    assert factor(0.75) == pytest.approx(0.55)
    assert factor(1.0) == pytest.approx(0.1)
    assert factor(0.0) > 0.0


def test_an_epoch_visits_every_row_once():
    batch = shuffled_batches(12, 4, seed=1)
    for epoch in range(3):
        rows = torch.cat([batch(3 * epoch + at) for at in range(3)])
        assert rows.sort().values.tolist() == list(range(12))
    assert not torch.equal(batch(0), batch(3))


def test_networks_shuffle_rows_each_in_their_own_way():
    batch = shuffled_batches(50, 50, networks=3)(0)
    assert batch.shape == (3, 50)
    assert len({tuple(rows) for rows in batch.tolist()}) == 3


def test_batches_depend_on_seed_and_step_alone():
    assert torch.equal(shuffled_batches(30, 8, 1)(7), shuffled_batches(30, 8, 1)(7))
    assert not torch.equal(shuffled_batches(30, 8, 1)(7), shuffled_batches(30, 8, 2)(7))


def test_fewer_rows_than_a_batch_are_one_batch():
    assert shuffled_batches(5, 100)(0).sort().values.tolist() == [0, 1, 2, 3, 4]
