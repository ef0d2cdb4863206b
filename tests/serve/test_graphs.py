"""ONNX graphs say what the surrogates and operators say that they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import special as reference

import understudy
from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.models.operators.curriculum import CurriculumRollout
from understudy.models.operators.dilated import DilatedResNet
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.fno import FNO, SpectralConv
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.one_step import LearnedStepper, OneStepModel
from understudy.models.operators.pde_refiner import PDERefiner
from understudy.models.operators.training import Training
from understudy.models.operators.unet import UNet
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.graphs import fields, special, tabular
from understudy.serve.graphs.files import export
from understudy.serve.graphs.onnx_file import PARITY, run, session, to_onnx
from understudy.serve.graphs.spectral import RealSpectralConv

from .conftest import wing

ROWS = {"pfn": 40, "student-t": 50, "deep-kernel": 110}


def answers(surrogate: FittedSurrogate, X: np.ndarray) -> list[np.ndarray]:
    mean, sd = surrogate.predict(X, return_std=True)
    lower, upper = surrogate.intervals(X)
    n = len(X)
    ends = [np.moveaxis(each, 0, 2) for each in (lower, upper)]
    return [mean.reshape(n, -1), sd.reshape(n, -1), *ends]


@pytest.fixture(scope="module")
def opened(surrogate: FittedSurrogate) -> Any:
    return session(to_onnx(tabular.surrogate_graph(surrogate)), 1)


def test_the_error_function_is_exact_to_rounding() -> None:
    x = torch.linspace(-8.0, 27.0, 20_001, dtype=torch.float64)
    assert np.allclose(special.erfc(x), reference.erfc(x.numpy()), rtol=0.0, atol=1e-14)
    assert np.allclose(special.ndtr(x), reference.ndtr(x.numpy()), rtol=0.0, atol=1e-14)


def test_the_arc_cosine_is_exact_to_rounding_also_at_its_ends() -> None:
    ends = 1.0 - torch.logspace(-16.0, 0.0, 500, dtype=torch.float64)
    x = torch.cat([torch.linspace(-1.0, 1.0, 5_001, dtype=torch.float64), ends, -ends])
    assert torch.allclose(special.acos(x), torch.acos(x), rtol=1e-14, atol=1e-15)
    assert torch.allclose(special.asin(x), torch.asin(x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_a_stack_with_a_category_agrees_at_random_rows(
    opened: Any, surrogate: FittedSurrogate, rows: int
) -> None:
    X = surrogate.space.encode(surrogate.space.sample(rows, seed=rows, method="random"))
    for found, wanted in zip(run(opened, [X]), answers(surrogate, X), strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=PARITY)


def test_rows_beyond_the_range_agree_too(opened: Any, surrogate: FittedSurrogate) -> None:
    X = np.array([[-5.0, 80.0, 2.0], [12.0, 5.0, 0.0]])
    for found, wanted in zip(run(opened, [X]), answers(surrogate, X), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=PARITY)


def test_names_shapes_and_units_are_in_the_file(opened: Any, surrogate: FittedSurrogate) -> None:
    assert [each.name for each in opened.get_inputs()] == ["inputs"]
    assert [each.name for each in opened.get_outputs()] == ["mean", "sd", "lower", "upper"]
    assert opened.get_inputs()[0].type == "tensor(double)"
    told = opened.get_modelmeta().custom_metadata_map
    inputs = json.loads(told["understudy.inputs"])
    assert [each["name"] for each in inputs] == surrogate.space.names
    assert inputs[0]["lower"] == surrogate.space["angle"].lower
    assert inputs[2]["choices"] == ["flat", "round", "slotted"]
    assert [each["name"] for each in json.loads(told["understudy.outputs"])] == ["drag", "lift"]
    assert json.loads(told["understudy.levels"]) == [0.5, 0.8, 0.9, 0.95]
    assert told["understudy.version"] == understudy.__version__


@pytest.fixture(scope="module")
def curved() -> FittedSurrogate:
    """A stack of several mixtures on a transformed output and a logarithmic input."""
    draw = np.random.default_rng(3)
    table = pd.DataFrame({"rate": 10 ** draw.uniform(-3, 1, 60), "load": draw.uniform(1, 5, 60)})
    table["life"] = np.exp(0.4 * table["load"] + 0.3 * draw.normal(size=60)) * table["rate"] ** 0.5
    return understudy.fit(
        table, targets=["life"], members=["polynomial", "boosting", "student-t"], budget=10
    )


@pytest.mark.slow
def test_transformed_outputs_and_mixtures_agree(curved: FittedSurrogate) -> None:
    assert curved.warps[0].name != "identity"
    opened = session(to_onnx(tabular.surrogate_graph(curved)), 1)
    X = curved.space.encode(curved.space.sample(200, seed=5, method="random"))
    for found, wanted in zip(run(opened, [X]), answers(curved, X), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=PARITY)


@pytest.mark.slow
@pytest.mark.parametrize(
    "member",
    [
        *("polynomial", "exact-gp", "infinite-width", "student-t", "deep-ensemble"),
        *("boosting", "laplace", "deep-kernel", "pfn"),
    ],
)
def test_every_kind_of_the_portfolio_agrees(member: str) -> None:
    table = wing(ROWS.get(member, 60), seed=2)
    fitted = understudy.fit(table, targets=["drag", "lift"], members=[member], budget=4)
    opened = session(to_onnx(tabular.surrogate_graph(fitted)), 1)
    apart = tabular.parity(fitted, opened)
    # the bars of the in-context network are joined into groups, whose borders rounding can move
    assert apart < (1e-2 if member == "pfn" else PARITY)


@pytest.mark.slow
def test_a_sparse_process_agrees() -> None:
    from understudy.models.tabular.sparse_gp import SparseGP
    from understudy.serve.graphs.members import member_graph

    draw = np.random.default_rng(0)
    X = draw.uniform(size=(300, 3))
    Y = np.stack([np.sin(4 * X[:, 0]) + X[:, 1], X[:, 2] ** 2], axis=1)
    model = SparseGP(inducing=40, subset=150, max_seconds=3).fit(X, Y)
    at = draw.uniform(size=(50, 3))
    found, wanted = member_graph("sparse-gp", model)(torch.from_numpy(at)), model.predictive(at)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(found.sd, wanted.sd, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
def test_one_member_is_written_by_itself(surrogate: FittedSurrogate) -> None:
    name = surrogate.members_[0][0]
    opened = session(to_onnx(tabular.single_graph(surrogate, name)), 1)
    assert [each.name for each in opened.get_outputs()] == ["mean", "sd"]
    assert tabular.member_parity(surrogate, name, opened) < PARITY


def test_a_member_that_is_none_is_refused(surrogate: FittedSurrogate) -> None:
    with pytest.raises(UserError, match="there is no member 'forest'"):
        tabular.single_graph(surrogate, "forest")


def test_a_kind_without_a_graph_is_named(surrogate: FittedSurrogate) -> None:
    from understudy.core.surrogate import Surrogate
    from understudy.serve.graphs import members

    class Oracle(Surrogate):
        def _predictive(self, U: torch.Tensor) -> Any:
            return surrogate.members_[0][1]._predictive(U)

    oracle = Oracle()
    oracle.__dict__.update(surrogate.members_[0][1].__dict__)
    with pytest.raises(UserError, match=r"'oracle' \(Oracle\) cannot be an ONNX graph; --member"):
        members.member_graph("oracle", oracle)


# -- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "space"), [((5,), (16,)), ((4, 3), (12, 10)), ((3, 2, 3), (8, 6, 7)), ((45,), (96,))]
)
def test_spectral_convolutions_in_real_numbers_agree(
    modes: tuple[int, ...], space: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 3, modes, bias=True)
    v, add = torch.randn(4, 2, *space), torch.randn(4, 3, *space)
    with torch.no_grad():
        wanted = conv(v, add.clone())
        found = RealSpectralConv(conv)(v, add)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def prepared(network: FieldNetwork, space: tuple[int, ...], numbers: int, **how: Any) -> Any:
    """An operator with random weights and the units of random fields."""
    torch.manual_seed(1)
    for weight in network.parameters():
        weight.data = weight.data + 0.1 * torch.randn(weight.shape)
    kind: Callable[..., LearnedStepper] = how.pop("kind", OneStepModel)
    history, bundle = how.get("history", 1), how.get("bundle", 1)
    u = 3.0 + 2.0 * torch.randn(5, history + bundle + 1, 1, *space)
    p = torch.rand(5, numbers) + 0.5 if numbers else None
    return kind(network, **how).prepare(u, p, dt=0.1, grid=Grid.of(*space))


def operators() -> dict[str, Callable[[], Any]]:
    return {
        "history": lambda: prepared(
            FNO(3, 2, (4,), 8, 2, 16, num_params=1), (16,), 1, history=3, bundle=2
        ),
        "fno-2d": lambda: prepared(FNO(1, 1, (4, 4), 8, 2, 16, padding=0.1), (12, 12), 0),
        "unet": lambda: prepared(
            UNet(1, 1, 1, 1, 8, (1, 2), 1, "circular"), (16,), 1, parameter_scaling="log"
        ),
        "dilated": lambda: prepared(DilatedResNet(1, 1, 2, 0, padding="circular"), (12, 12), 0),
        "refiner": lambda: prepared(
            UNet(2, 1, 1, 2, 8, (1, 2), 1, "circular"), (16,), 1, kind=PDERefiner
        ),
        "refiner-zeros": lambda: prepared(
            FNO(2, 1, (4,), 8, 2, 16, num_params=1), (16,), 0, kind=PDERefiner, first_guess="zeros"
        ),
        "curriculum": lambda: prepared(
            FNO(1, 1, (4,), 8, 2, 16, num_params=1), (16,), 1, kind=CurriculumRollout
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in operators() if name != "history"])
def test_a_step_agrees(name: str) -> None:
    operator = operators()[name]()
    opened = session(to_onnx(fields.operator_graph(operator)), 1)
    assert fields.parity(operator, opened, runs=1) < PARITY
    assert fields.parity(operator, opened, runs=7) < PARITY


@pytest.mark.slow
def test_a_step_with_history_and_parameters_agrees() -> None:
    operator = operators()["history"]()
    opened = session(to_onnx(fields.operator_graph(operator)), 1)
    assert [each.name for each in opened.get_inputs()] == ["fields", "parameters"]
    assert opened.get_outputs()[0].name == "next"
    assert fields.parity(operator, opened, runs=5) < PARITY


def test_a_refined_step_is_that_of_the_operator_with_the_same_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operator = operators()["refiner"]()
    given = fields.example(operator, 4)
    waiting = iter(given["noise"].unbind(1))
    with torch.no_grad():
        found = fields.RefinedStepGraph(operator)(*given.values())
        monkeypatch.setattr(torch, "randn", lambda *shape, **how: next(waiting))
        wanted = operator._advance(given["fields"], given["parameters"], [torch.Generator()])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["global", "pointwise"])
def test_a_map_agrees(scaling: Any) -> None:
    network = FNO(1, 1, (4, 4), 8, 2, 16)
    torch.manual_seed(0)
    x = torch.randn(6, 1, 12, 12)
    operator = FieldMap(network, input_scaling=scaling, output_scaling=scaling)
    operator.fit(x, x.flip(2) ** 2, training=Training(steps=2, batch_size=3))
    opened = session(to_onnx(fields.operator_graph(operator)), 1)
    assert opened.get_outputs()[0].name == "solution"
    assert fields.parity(operator, opened) < PARITY


def test_an_operator_has_no_members(tmp_path: Path) -> None:
    path = operators()["history"]().save(tmp_path / "flow.us")
    with pytest.raises(UserError, match="an operator has no members"):
        export(path, tmp_path / "flow.onnx", "fno")
