import json

import pytest

from understudy import __version__
from understudy.core.errors import UserError
from understudy.reproduce import (
    ReproductionError,
    Scale,
    read_report,
    reproduce,
    result_path,
)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_claim_that_holds_is_returned_and_kept(fake, tmp_path):
    report = reproduce("fake", "cpu", seed=7, out=tmp_path)
    assert report.holds and report.seeds == (7,)
    assert read_report(tmp_path / "fake.json") == report


def test_a_claim_that_fails_is_kept_as_failing_with_its_reason(fake, make_claim, tmp_path):
    fake.run = lambda scale, seed: [make_claim(measured=1.0, reason="too small")]
    report = reproduce("fake", "cpu", out=tmp_path)
    [claim] = json.loads((tmp_path / "fake.json").read_text())["claims"]
    assert not report.holds and claim["holds"] is False
    assert claim["reason"] == "measured 1, below the bar of 2; too small"


def test_a_reproduction_is_given_its_scale_and_seed(fake, make_claim, tmp_path):
    seen = []
    fake.run = lambda scale, seed: seen.append((scale, seed)) or [make_claim()]
    reproduce("fake", "smoke", seed=3, out=tmp_path)
    assert seen == [(Scale.SMOKE, 3)]


def test_a_report_names_versions_hardware_and_seconds(fake, tmp_path):
    report = reproduce("fake", "smoke", out=tmp_path)
    assert report.versions["understudy"] == __version__
    assert {"python", "torch", "numpy", "botorch", "scikit-learn"} <= set(report.versions)
    assert {"cpu", "cores", "threads", "memory_gib", "gpu"} <= set(report.hardware)
    assert report.hardware["cpu"] and report.hardware["cores"] >= 1
    assert report.hardware["memory_gib"] > 0.1
    assert report.seconds >= 0


@pytest.mark.parametrize("error", [RuntimeError("diverged"), KeyboardInterrupt()])
def test_a_run_that_does_not_finish_leaves_the_older_result(fake, tmp_path, error):
    reproduce("fake", "cpu", out=tmp_path)
    older = files(tmp_path)

    def stop(scale, seed):
        raise error

    fake.run = stop
    with pytest.raises((ReproductionError, KeyboardInterrupt)):
        reproduce("fake", "cpu", out=tmp_path)
    assert files(tmp_path) == older


def test_an_interruption_while_writing_leaves_the_older_result(fake, tmp_path, monkeypatch):
    reproduce("fake", "cpu", out=tmp_path)
    older = files(tmp_path)

    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        reproduce("fake", "cpu", seed=1, out=tmp_path)
    assert files(tmp_path) == older


def test_a_reproduction_that_raises_is_named_with_its_scale_seed_and_error(fake, tmp_path):
    def fail(scale, seed):
        raise ZeroDivisionError("no rows")

    fake.run = fail
    message = "'fake' at scale cpu with seed 4 failed: ZeroDivisionError: no rows"
    with pytest.raises(ReproductionError, match=message):
        reproduce("fake", "cpu", seed=4, out=tmp_path)


def test_a_refusal_by_the_reproduction_stays_a_refusal(fake, tmp_path):
    def refuse(scale, seed):
        raise UserError("the data set is missing")

    fake.run = refuse
    with pytest.raises(UserError, match="the data set is missing"):
        reproduce("fake", "cpu", out=tmp_path)


@pytest.mark.parametrize("returned", [[], [{"holds": True}]])
def test_only_claims_count_as_a_result(fake, tmp_path, returned):
    fake.run = lambda scale, seed: returned
    with pytest.raises(ReproductionError, match="returned no list of claims"):
        reproduce("fake", "cpu", out=tmp_path)
    assert not files(tmp_path)


def test_a_smaller_scale_does_not_displace_a_greater_one(fake, tmp_path):
    reproduce("fake", "cpu", out=tmp_path)
    reproduce("fake", "smoke", out=tmp_path)
    assert read_report(tmp_path / "fake.json").scale is Scale.CPU
    assert read_report(tmp_path / "fake.smoke.json").scale is Scale.SMOKE
    assert result_path("fake", "smoke", tmp_path).name == "fake.smoke.json"


def test_a_greater_scale_takes_the_place_of_a_smaller_one(fake, tmp_path):
    reproduce("fake", "smoke", out=tmp_path)
    reproduce("fake", "cpu", out=tmp_path)
    assert read_report(tmp_path / "fake.json").scale is Scale.CPU


def test_a_spoilt_result_is_replaced(fake, tmp_path):
    (tmp_path / "fake.json").write_text("{")
    reproduce("fake", "smoke", out=tmp_path)
    assert read_report(tmp_path / "fake.json").scale is Scale.SMOKE


def test_a_system_that_is_only_planned_is_refused_with_those_that_are_not(fake, tmp_path):
    planned = "quantization-toolkit"
    with pytest.raises(UserError, match=f"'{planned}' is planned .* those with one: .*fake"):
        reproduce(planned, "smoke", out=tmp_path)


def test_a_reproduction_that_needs_a_missing_module_names_it(fake, tmp_path, monkeypatch):
    (tmp_path / "needy_reproduction.py").write_text("import module_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    from understudy.core import systems as registry

    needy = registry.System(
        slug="needy",
        title="Needy",
        authors="Nobody",
        year=2024,
        arxiv=None,
        stage="serve",
        replaces="Nothing.",
        reproduction="needy_reproduction",
    )
    monkeypatch.setattr(registry, "_SYSTEMS", (needy,))
    with pytest.raises(UserError, match="'needy' needs the module 'module_not_there'"):
        reproduce("needy", "smoke", out=tmp_path / "results")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slug": "fakee"}, "did you mean 'fake'"),
        ({"scale": "huge"}, "smoke, cpu or paper, not 'huge'"),
        ({"seed": -1}, "whole number of at least 0, got -1"),
        ({"seed": 0.5}, "whole number of at least 0, got 0.5"),
    ],
)
def test_a_bad_argument_is_refused(fake, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        reproduce(**({"slug": "fake", "scale": "smoke", "out": tmp_path} | arguments))


def test_a_folder_that_is_a_file_is_refused_before_the_run(fake, tmp_path):
    def run(scale, seed):
        raise AssertionError("the run must not start")

    fake.run = run
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match="taken is not a folder"):
        reproduce("fake", "smoke", out=tmp_path / "taken")


def test_a_missing_result_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the result .*none\.json: No such file"):
        read_report(tmp_path / "none.json")
