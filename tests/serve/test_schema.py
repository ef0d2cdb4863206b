"""Requests made from the service's own OpenAPI description, valid and not, break nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from understudy.core.grid import Grid
from understudy.models.operators.fno import FNO
from understudy.models.operators.one_step import OneStepModel
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.application import guarded
from understudy.serve.hosted import HostedModel
from understudy.serve.limits import Limits
from understudy.serve.operators import HostedOperator
from understudy.serve.records import Metrics

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.checks")
openapi_checks = pytest.importorskip("schemathesis.specs.openapi.checks")

CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]
LONG = ("optimize", "sensitivity", "doubt", "invert")
"""Addresses whose answers take seconds."""


@pytest.fixture(scope="module")
def api(surrogate: FittedSurrogate) -> Iterator[Any]:
    torch.manual_seed(0)
    step = OneStepModel(FNO(1, 1, (3,), 4, 1, 8, num_params=1))
    step.prepare(torch.randn(3, 3, 1, 8), torch.rand(3, 1), dt=0.1, grid=Grid.of(8))
    limits = Limits(body_bytes=2**20, rows=500, points=2, samples=64, steps=20)
    models = {"wing": HostedModel("wing", surrogate, limits)}
    operators = {"flow": HostedOperator("flow", step, limits)}
    app = guarded(models, limits, None, Metrics(), operators)
    yield schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "localhost"})
    models["wing"].close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_request_breaks_the_service_or_its_description(api: Any, mode: str) -> None:
    kind = schemathesis.GenerationMode[mode]
    asked = set()
    for found in api.get_all_operations():
        operation = found.ok()
        asked.add(operation.label)

        @settings(
            max_examples=4 if operation.path.endswith(LONG) else 15,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=kind))
        def answered(case: Any) -> None:
            if "name" in (case.path_parameters or {}):
                case.path_parameters["name"] = "flow" if "rollout" in case.path else "wing"
            case.call_and_validate(headers={"Host": "localhost"}, checks=CHECKS, timeout=300)

        with suppress(Unsatisfiable):  # nothing of an address without parameters can be wrong
            answered()
    assert {"POST /v1/models/{name}/predict", "POST /v1/models/{name}/rollout"} <= asked
