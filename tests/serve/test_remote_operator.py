"""A served operator behaves in Python as the operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import understudy
from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.operator import Operator, Stepper
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.fno import FNO
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.pde_refiner import PDERefiner
from understudy.models.operators.training import Training
from understudy.serve import remote_operator
from understudy.serve.client import Connection, ServiceError
from understudy.serve.remote_operator import RemoteMap, RemoteStepper

from .conftest import TOKENS, Service, started

POINTS = 16


def wave(runs: int, times: int = 5) -> torch.Tensor:
    x = torch.arange(POINTS) / POINTS
    phase = torch.rand(runs, 1, 1, 1) + 0.05 * torch.arange(times).reshape(1, -1, 1, 1)
    return torch.sin(2 * torch.pi * (x + phase))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A step with parameters, one that looks at two fields, a refined step, and a map."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("operators")
    paths, speed, plan = wave(6), torch.rand(6, 2) + 0.5, Training(steps=3, batch_size=4)
    grid = Grid.of(POINTS, upper=2.0)
    plain = OneStepModel(FNO(1, 1, (4,), 8, 2, 16, num_params=2), parameter_scaling="log")
    plain.fit(paths, speed, dt=0.1, grid=grid, parameters=["speed", "decay"], training=plan)
    plain.test_errors = (0.1, 0.2)
    past = OneStepModel(FNO(2, 1, (4,), 8, 2, 16), history=2)
    past.fit(paths, dt=0.1, grid=grid, training=plan)
    refined = PDERefiner(FNO(2, 1, (4,), 8, 2, 16, num_params=1))
    refined.fit(paths, dt=0.1, grid=grid, training=plan)
    solver = FieldMap(FNO(1, 2, (4,), 8, 2, 16))
    solver.fit(paths[:, 0], paths[:, 1:3, 0], grid=grid, inputs=["source"], training=plan)
    made: dict[str, Any] = {"plain": plain, "past": past, "refined": refined, "poisson": solver}
    return {name: each.save(folder / f"{name}.us") for name, each in made.items()}


@pytest.fixture(scope="module")
def served(local: dict[str, Path], model: Path, token_file: Path) -> Iterator[Service]:
    running = started(model, *local.values(), "--token-file", token_file)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def stepper(served: Service, name: str) -> RemoteStepper:
    found = understudy.connect_operator(served.url, TOKENS[0], model=name)
    assert isinstance(found, RemoteStepper)
    return found


def own(local: dict[str, Path], name: str) -> Stepper:
    found = understudy.load_operator(local[name])
    assert isinstance(found, Stepper)
    return found


def test_it_is_said_to_be_what_it_is(served: Service, local: dict[str, Path]) -> None:
    for name in ("plain", "past", "refined"):
        found, wanted = stepper(served, name), own(local, name)
        for what in ("grid", "inputs", "outputs", "parameters", "dt", "history", "stochastic"):
            assert getattr(found, what) == getattr(wanted, what)
    assert stepper(served, "plain").test_errors == (0.1, 0.2)
    assert stepper(served, "past").test_errors is None


def test_rollouts_are_those_of_the_operator(served: Service, local: dict[str, Path]) -> None:
    start, numbers = wave(3)[:, 0], torch.rand(3, 2) + 0.5
    found = stepper(served, "plain").rollout(start, 4, numbers)
    wanted = own(local, "plain").rollout(start, 4, numbers)
    assert found.shape == (3, 1, 5, 1, POINTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    one_before = stepper(served, "plain").step(start[:, None], numbers)
    torch.testing.assert_close(one_before, wanted[:, 0, 1], rtol=1e-5, atol=1e-6)


def test_arrays_and_numbers_by_name_are_taken(served: Service, local: dict[str, Path]) -> None:
    start = np.asarray(wave(2)[:, 0], dtype=np.float64)
    found = stepper(served, "plain").predict(start, {"decay": 0.6, "speed": 0.9})
    wanted = own(local, "plain").predict(torch.tensor(start).float(), torch.tensor([0.9, 0.6]))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_step_may_look_at_more_than_one_field(served: Service, local: dict[str, Path]) -> None:
    start = wave(2)[:, :2]
    found = stepper(served, "past").rollout(start, 3)
    wanted = own(local, "past").rollout(start, 3)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_samples_are_those_of_the_seed(served: Service, local: dict[str, Path]) -> None:
    start, remote = wave(2)[:, 0], stepper(served, "refined")
    found = remote.rollout(start, 3, samples=4, seed=7)
    wanted = own(local, "refined").rollout(start, 3, samples=4, seed=7)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, remote.rollout(start, 3, samples=4, seed=8))
    horizon = remote.reliable_horizon(start, 5, samples=4, seed=7)
    expected = own(local, "refined").reliable_horizon(start, 5, samples=4, seed=7)
    torch.testing.assert_close(horizon, expected)


def test_a_map_gives_its_solution(served: Service, local: dict[str, Path]) -> None:
    remote = understudy.connect_operator(served.url, TOKENS[0], model="poisson")
    assert isinstance(remote, RemoteMap)
    source, wanted = wave(3)[:, 0], understudy.load_operator(local["poisson"])
    assert isinstance(wanted, Operator)
    assert remote.predict(source).shape == (3, 2, POINTS)
    torch.testing.assert_close(remote.predict(source), wanted.predict(source), rtol=1e-5, atol=1e-6)


def test_many_runs_are_asked_for_in_parts(
    served: Service, local: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_operator, "_MOST_NUMBERS", 8 * POINTS)
    start, numbers, asked = wave(5)[:, 0], torch.rand(5, 2) + 0.5, list[str]()
    remote = stepper(served, "plain")
    post = remote.connection.post

    def counted(path: str, body: bytes, kind: str, accept: str) -> bytes:
        asked.append(path)
        return post(path, body, kind, accept)

    monkeypatch.setattr(remote.connection, "post", counted)
    found = remote.rollout(start, 3, numbers)
    assert len(asked) == 3
    wanted = own(local, "plain").rollout(start, 3, numbers)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused_in_a_sentence(served: Service) -> None:
    plain, start = stepper(served, "plain"), wave(2)[:, 0]
    with pytest.raises(UserError, match=r"must be of shape \(B, 1, 1, \*space\)"):
        plain.rollout(start[0, 0], 1)
    with pytest.raises(UserError, match="parameters are missing; needed are speed, decay"):
        plain.rollout(start, 1)
    with pytest.raises(UserError, match=r"'sped' is no parameter .* did you mean 'speed'"):
        plain.rollout(start, 1, {"sped": 1.0, "decay": 1.0})
    with pytest.raises(UserError, match="parameters: must be positive"):
        plain.rollout(start, 1, [-1.0, 1.0])
    with pytest.raises(UserError, match="fields: has the shape"):
        plain.rollout(start[..., :8], 1, [1.0, 1.0])
    with pytest.raises(UserError, match="samples: must be 1"):
        plain.rollout(start, 1, [1.0, 1.0], samples=2)
    with pytest.raises(UserError, match="steps: 1 to 1000 are accepted"):
        plain.rollout(start, 1001, [1.0, 1.0])


def test_a_connection_that_was_closed_is_opened_again(served: Service) -> None:
    past = stepper(served, "past")
    assert past.connection._open is not None
    past.connection._open.sock.shutdown(2)
    assert past.rollout(wave(1)[:, :2], 1).shape == (1, 1, 2, 1, POINTS)


def test_operators_surrogates_and_what_is_not_served_are_told_apart(served: Service) -> None:
    with pytest.raises(UserError, match="has several operators; name one"):
        understudy.connect_operator(served.url, TOKENS[0])
    with pytest.raises(UserError, match="has no operator 'plane'; did you mean 'plain'"):
        understudy.connect_operator(served.url, TOKENS[0], model="plane")
    with pytest.raises(UserError, match="'wing' is a surrogate of a table"):
        understudy.connect_operator(served.url, TOKENS[0], model="wing")
    with pytest.raises(UserError, match=r"understudy\.connect_operator asks for those"):
        understudy.connect(served.url, TOKENS[0], model="plain")
    with pytest.raises(ServiceError, match="a valid bearer token is required"):
        understudy.connect_operator(served.url, "wrong-token-0123456789")
    with pytest.raises(ServiceError, match="cannot be reached"):
        understudy.connect_operator("http://127.0.0.1:9", timeout=5)


def test_a_service_without_surrogates_or_operators_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"models": [], "operators": ["flow"]}
    monkeypatch.setattr(Connection, "get", lambda self, path: names)
    with pytest.raises(UserError, match="serves operators of fields as flow"):
        understudy.connect("http://127.0.0.1:9")
    names = {"models": ["wing"]}
    with pytest.raises(UserError, match="has no operators"):
        understudy.connect_operator("http://127.0.0.1:9")
