"""Training, rollouts and files of operators, with the smallest network that can learn a shift."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.models.operators import network as networks
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.network import FieldNetwork, build
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.training import Training


class Stencil(FieldNetwork):
    """One circular convolution, and parameters as constant channels."""

    kind = "stencil"

    def __init__(self, channels_in: int, channels_out: int, parameters: int = 0) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            **{"channels_in": channels_in, "channels_out": channels_out},
            "parameters": parameters,
        }
        self.conv = nn.Conv1d(
            channels_in + parameters, channels_out, 5, padding=2, padding_mode="circular"
        )

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        if p is not None:
            u = torch.cat([u, p[:, :, None].expand(-1, -1, u.shape[-1])], dim=1)
        return self.conv(u)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "stencil", f"{__name__}:Stencil")


def waves(runs: int, times: int, seed: int = 0, points: int = 32) -> Tensor:
    """Waves that move by one point a step, of two channels."""
    start = torch.randn(runs, 2, points, generator=torch.Generator().manual_seed(seed))
    return 3.0 + 2.0 * torch.stack([start.roll(t, dims=-1) for t in range(times)], dim=1)


QUICK = Training(steps=300, batch_size=16, learning_rate=0.05, ema_decay=0.9)


def shift(**options: Any) -> OneStepModel:
    network = Stencil(2 * options.get("history", 1), 2 * options.get("bundle", 1))
    return OneStepModel(network, **options).fit(waves(16, 8), dt=0.5, training=QUICK)


@pytest.fixture(scope="module")
def moving() -> OneStepModel:
    torch.manual_seed(0)
    return shift()


def test_a_shift_is_learnt_and_rolled_out(moving):
    true = waves(3, 7, seed=9)
    path = moving.rollout(true[:, 0], 6)
    assert path.shape == (3, 1, 7, 2, 32)
    assert torch.equal(path[:, 0, 0], true[:, 0])
    assert (path[:, 0] - true).abs().max() < 0.2
    assert torch.equal(moving.predict(true[:, 0]), path[:, 0, 1])


@pytest.mark.parametrize(
    "options",
    [
        {"history": 2},
        {"bundle": 2, "history": 2},
        {"pushforward": 2},
        {"difference": False, "noise": 0.01},
    ],
    ids=str,
)
def test_every_way_of_training_learns_a_shift(options):
    torch.manual_seed(0)
    model = shift(**options)
    true = waves(2, 8, seed=9)
    steps = 5
    history = options.get("history", 1)
    start = true[:, 0] if history == 1 else true[:, :history]
    path = model.rollout(start, steps)[:, 0, 1:]
    assert (path - true[:, history : history + steps]).abs().max() < 0.5


def test_runs_of_a_batch_do_not_know_of_each_other(moving):
    start = waves(4, 1, seed=3)[:, 0]
    together = moving.rollout(start, 3)
    alone = torch.cat([moving.rollout(u[None], 3) for u in start])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_file_restores_it(moving, tmp_path):
    start = waves(2, 1, seed=4)[:, 0]
    moving.save(tmp_path / "m.us")
    back = OneStepModel.load(tmp_path / "m.us")
    assert torch.equal(back.rollout(start, 4), moving.rollout(start, 4))
    assert (back.dt, back.grid, back.inputs) == (moving.dt, moving.grid, moving.inputs)
    with pytest.raises(UserError, match="holds a 'one-step', not a 'map'"):
        FieldMap.load(tmp_path / "m.us")


def test_parameters_reach_the_network():
    torch.manual_seed(0)
    field = torch.randn(32, 1, 1, 32).expand(-1, 4, -1, -1)
    p = torch.rand(32, 1) + 1.0
    grown = field + torch.arange(4.0).reshape(1, 4, 1, 1) * p.log().reshape(-1, 1, 1, 1)
    model = OneStepModel(Stencil(1, 1, 1), parameter_scaling="log").fit(
        grown, p, dt=1.0, parameters=["rate"], training=QUICK
    )
    ahead = model.step(field[:2, 0], torch.tensor([[1.0], [2.0]]))
    assert torch.allclose(
        (ahead - field[:2, 0]).mean((1, 2)), torch.tensor([0.0, 0.693]), atol=0.05
    )
    one = model.step(field[:2, 0], torch.tensor([1.0]))
    assert torch.allclose(one[0], ahead[0], atol=1e-5)
    with pytest.raises(UserError, match="parameters are missing; needed are rate"):
        model.step(field[:2, 0])
    with pytest.raises(UserError, match=r"must be of shape \(2, 1\)"):
        model.step(field[:2, 0], torch.ones(3, 1))
    with pytest.raises(UserError, match="must be finite"):
        model.step(field[:2, 0], torch.tensor([float("nan")]))
    with pytest.raises(UserError, match="must be positive"):
        OneStepModel(Stencil(1, 1, 1), parameter_scaling="log").fit(grown, -p, dt=1.0)


def test_training_goes_on_from_a_checkpoint(tmp_path):
    plan = {"batch_size": 8, "learning_rate": 0.01, "steps": 60}
    torch.manual_seed(0)
    network = Stencil(2, 2)
    start = {k: v.clone() for k, v in network.state_dict().items()}
    whole = OneStepModel(network).fit(waves(8, 4), dt=1.0, training=Training(**plan))

    def stop(event):
        if event.step == 25:
            raise KeyboardInterrupt

    twin = Stencil(2, 2)
    twin.load_state_dict(start)
    kept = Training(**plan, checkpoint=tmp_path / "state.safetensors")
    cut = OneStepModel(twin).fit(waves(8, 4), dt=1.0, training=kept, listener=stop)
    assert cut.outcome.reason == "interrupt"
    resumed = OneStepModel(twin).fit(waves(8, 4), dt=1.0, training=kept)
    assert resumed.outcome.steps == 60
    field = waves(2, 1)[:, 0]
    assert torch.allclose(resumed.step(field), whole.step(field), atol=1e-5)


def test_validation_keeps_the_best_weights():
    torch.manual_seed(0)
    model = OneStepModel(Stencil(2, 2)).fit(
        waves(16, 8), dt=1.0, validation=(waves(4, 8, seed=5), None), training=QUICK
    )
    assert float(model.outcome.score) < 0.05


def bad_trajectories() -> list[tuple[Tensor, str]]:
    hole = waves(4, 3)
    hole[1, 2, 0, 5] = float("nan")
    return [
        (torch.zeros(4, 3, 32), "must be of shape"),
        (waves(4, 1), "1 times, at least 2 are needed"),
        (hole, "1 of 4 trajectories hold NaN"),
    ]


@pytest.mark.parametrize(("trajectories", "message"), bad_trajectories(), ids=lambda v: str(v)[:20])
def test_trajectories_that_cannot_be_learnt_are_refused(trajectories, message):
    with pytest.raises(UserError, match=message):
        OneStepModel(Stencil(2, 2)).fit(trajectories, dt=1.0)


def test_other_bad_input_is_refused(moving):
    start = waves(2, 1)[:, 0]
    with pytest.raises(UserError, match="dt must be positive"):
        OneStepModel(Stencil(2, 2)).fit(waves(4, 3), dt=0.0)
    with pytest.raises(UserError, match="the grid has"):
        OneStepModel(Stencil(2, 2)).fit(waves(4, 3), dt=1.0, grid=Grid.of(16))
    with pytest.raises(UserError, match="samples must be 1"):
        moving.rollout(start, 2, samples=3)
    with pytest.raises(UserError, match="gives one rollout only"):
        moving.reliable_horizon(start, 5)
    with pytest.raises(UserError, match=r"shape \(B, 1, 2, \*space\)"):
        moving.rollout(torch.zeros(2, 3, 32), 2)
    with pytest.raises(UserError, match="must be finite"):
        moving.rollout(torch.full((2, 2, 32), float("inf")), 2)
    with pytest.raises(UserError, match="takes no parameters"):
        moving.rollout(start, 2, torch.ones(2, 1))
    with pytest.raises(UserError, match="no network is called 'magic'"):
        build({"kind": "magic", "settings": {}})
    with pytest.raises(UserError, match="cannot have these settings"):
        build({"kind": "stencil", "settings": {"wings": 2}})


@pytest.mark.parametrize("scaling", ["global", "pointwise", "none"])
def test_a_map_of_fields_is_learnt_and_kept(scaling, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(64, 1, 32)
    y = 5.0 + 2.0 * (x - x.roll(1, dims=-1))
    model = FieldMap(Stencil(1, 1), input_scaling=scaling, output_scaling=scaling)
    plan = Training(steps=400, batch_size=16, learning_rate=0.05)
    model.fit(x, y, validation=(x[:8], y[:8], None), training=plan)
    assert (model.predict(x) - y).abs().mean() < (0.3 if scaling == "pointwise" else 0.05)
    model.save(tmp_path / "map.us")
    assert torch.equal(FieldMap.load(tmp_path / "map.us").predict(x), model.predict(x))
    with pytest.raises(UserError, match="must be finite"):
        model.predict(torch.full((1, 1, 32), float("nan")))
    with pytest.raises(UserError, match="the same N and space"):
        FieldMap(Stencil(1, 1)).fit(x, y[:5])


def test_damaged_files_are_refused(moving, tmp_path):
    from understudy.core import artifact

    stored = artifact.read(moving.save(tmp_path / "m.us"))
    broken = {**stored.tensors, "network.conv.weight": torch.zeros(1)}
    artifact.write(tmp_path / "b.us", stored.manifest, broken)
    with pytest.raises(UserError, match="weights do not fit"):
        OneStepModel.load(tmp_path / "b.us")
    artifact.write(tmp_path / "c.us", {"kind": "table"}, {})
    with pytest.raises(UserError, match="not an operator"):
        OneStepModel.load(tmp_path / "c.us")
