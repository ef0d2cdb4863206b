"""A served surrogate behaves in Python as the surrogate, as far as it can."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import understudy
from understudy.core.errors import UserError
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve import client
from understudy.serve.client import RemoteSurrogate, ServiceError

from .conftest import TOKENS, Service, wing

NEW = wing(30, seed=2)


@pytest.fixture(scope="module")
def remote(service: Service) -> RemoteSurrogate:
    return understudy.connect(service.url, token=TOKENS[1])


@pytest.fixture(scope="module")
def X(surrogate: FittedSurrogate) -> np.ndarray:
    return surrogate.space.encode(NEW)


def test_it_is_a_surrogate_of_the_same_inputs(
    remote: RemoteSurrogate, surrogate: FittedSurrogate
) -> None:
    assert isinstance(remote, Surrogate)
    assert remote.space == surrogate.space
    assert remote.targets == surrogate.targets


def test_predictions_are_those_of_the_surrogate(
    remote: RemoteSurrogate, surrogate: FittedSurrogate, X: np.ndarray
) -> None:
    for found, expected in zip(
        remote.predict(X, return_std=True), surrogate.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(remote.predict(X), surrogate.predict(X), rtol=1e-9)
    np.testing.assert_allclose(
        remote.intervals(X, (0.7, 0.99)), surrogate.intervals(X, (0.7, 0.99)), rtol=1e-9
    )


def test_distributions_are_those_of_the_surrogate(
    remote: RemoteSurrogate, surrogate: FittedSurrogate, X: np.ndarray
) -> None:
    y = torch.tensor(NEW[["drag", "lift"]].to_numpy())
    found, expected = remote.predictive(X), surrogate.predictive(X)
    torch.testing.assert_close(found.log_density(y), expected.log_density(y), rtol=1e-8, atol=1e-8)
    lift = remote.predictive(X, torch.tensor([1]))
    torch.testing.assert_close(lift.mean[:, 0], expected.mean[:, 1])


def test_tables_are_predicted_in_parts(
    remote: RemoteSurrogate, surrogate: FittedSurrogate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_MOST_ROWS", 7)
    data = NEW.assign(speed=NEW.speed.mask(NEW.index == 3, 900.0), note="other columns")
    found, expected = remote.predict_table(data), surrogate.predict_table(data)
    assert list(found) == list(expected)
    assert found["extrapolation"].tolist() == expected["extrapolation"].tolist()
    numbers = list(expected.columns.drop("extrapolation"))
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-9)


def test_a_bad_cell_is_refused_with_its_column_and_row(remote: RemoteSurrogate) -> None:
    with pytest.raises(UserError, match="speed, row 4: found"):
        remote.predict_table(NEW.assign(speed=NEW.speed.mask(NEW.index == 3)))
    with pytest.raises(UserError, match="column 'speed' is missing"):
        remote.predict_table(NEW.drop(columns="speed"))


def test_the_next_points_are_proposed_where_the_model_is(remote: RemoteSurrogate) -> None:
    (point,) = remote.optimize("lift", "target", 10.0, fixed={"profile": "flat"}, strategy="best")
    assert point["inputs"]["profile"] == "flat"
    assert point["predictions"]["lift_mean"] == pytest.approx(10.0, abs=0.05)


def test_sensitivities_are_a_table(remote: RemoteSurrogate) -> None:
    table = remote.sensitivity(n=16)
    assert set(table["input"]) == {"angle", "speed", "profile"}


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("fit", ([[1.0]], [1.0])),
        ("posterior", (torch.zeros(1, 3),)),
        ("sample", ([[1.0]],)),
        ("functions", ()),
        ("to_botorch", ()),
        ("state", ()),
    ],
)
def test_what_needs_the_model_is_refused_in_a_sentence(
    remote: RemoteSurrogate, what: str, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(UserError, match=f"{what} of 'wing' cannot be had from http"):
        getattr(remote, what)(*arguments)


def test_a_connection_that_was_closed_is_opened_again(
    remote: RemoteSurrogate, X: np.ndarray
) -> None:
    remote.predict(X[:1])
    assert remote.connection._open is not None
    remote.connection._open.sock.shutdown(2)
    assert remote.predict(X[:1]).shape == (1, 2)


def test_a_wrong_token_an_unknown_model_and_no_service_are_told_apart(service: Service) -> None:
    with pytest.raises(ServiceError, match="a valid bearer token is required"):
        understudy.connect(service.url, token="wrong-token-0123456789")
    with pytest.raises(UserError, match="has no model 'wings'; did you mean 'wing'"):
        understudy.connect(service.url, TOKENS[0], model="wings")
    with pytest.raises(ServiceError, match="cannot be reached"):
        understudy.connect("http://127.0.0.1:9", timeout=5)
    with pytest.raises(UserError, match="expected an address"):
        understudy.connect("ftp://127.0.0.1")
