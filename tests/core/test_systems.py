import re
import sys
from types import ModuleType

import pytest

from understudy.core.errors import UserError
from understudy.core.systems import STAGES, System, find, resolve, systems


def system(**changes) -> System:
    entry = {
        "slug": "fake",
        "title": "A Fake",
        "authors": "Nobody",
        "year": 2024,
        "arxiv": None,
        "stage": "model",
        "replaces": "Nothing.",
    }
    return System(**(entry | changes))


def test_fifty_nine_systems_have_as_many_slugs():
    slugs = [system.slug for system in systems()]
    assert len(slugs) == len(set(slugs)) == 59


@pytest.mark.parametrize("entry", systems(), ids=lambda entry: entry.slug)
def test_a_registered_system_is_complete(entry):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.slug)
    assert entry.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", entry.arxiv)
    assert 2017 <= entry.year <= 2026
    assert entry.title and entry.authors
    assert re.fullmatch(r"[A-Z].{20,}\.", entry.replaces), "one sentence"


def test_no_two_systems_are_the_same_paper():
    identifiers = [system.arxiv for system in systems() if system.arxiv]
    assert len(identifiers) == len(set(identifiers))


def test_systems_are_ordered_by_stage_then_slug():
    keys = [(STAGES.index(system.stage), system.slug) for system in systems()]
    assert keys == sorted(keys)


def test_every_registered_path_resolves():
    for entry in systems():
        for path in entry.classes:
            assert callable(resolve(path)), path
        if entry.reproduction is not None:
            assert callable(resolve(f"{entry.reproduction}.run")), entry.reproduction


def test_a_reproduction_module_is_named_after_its_system():
    for entry in systems():
        name = entry.slug.replace("-", "_")
        assert entry.reproduction in (None, f"understudy.reproduce.{name}")


def test_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match=r"stage of 'fake' is 'models', not one of simulate"):
        system(stage="models")


def test_find_returns_the_system_of_that_slug():
    assert find("pde-refiner").arxiv == "2308.05732"


def test_find_names_the_nearest_slug():
    with pytest.raises(UserError, match=r"no system 'pde_refinr'; did you mean .*'pde-refiner'"):
        find("pde_refinr")


def test_find_points_to_the_list_where_nothing_is_near():
    with pytest.raises(UserError, match="see `understudy systems`"):
        find("zzzzzz")


def test_a_system_without_classes_or_reproduction_is_planned():
    assert not system().implemented
    assert not system(classes=("understudy.core.errors.UserError",)).implemented
    assert not system(reproduction="understudy.core.errors").implemented


@pytest.fixture
def reproduction(monkeypatch):
    module = ModuleType("fake_reproduction")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_system_is_implemented_once_its_classes_and_run_resolve(reproduction):
    entry = system(
        classes=("understudy.core.errors.UserError",), reproduction=reproduction.__name__
    )
    assert not entry.implemented
    reproduction.run = lambda scale, seed: []
    assert entry.implemented


@pytest.mark.parametrize(
    "path", ["understudy.core.errors.NoSuchError", "understudy.nowhere.Thing", "toplevel"]
)
def test_a_class_that_does_not_resolve_leaves_a_system_planned(reproduction, path):
    reproduction.run = lambda scale, seed: []
    assert not system(classes=(path,), reproduction=reproduction.__name__).implemented
