import sys
from types import ModuleType

import pytest

from understudy.core import systems as registry
from understudy.reproduce import Claim


@pytest.fixture
def make_claim():
    def make(**changes) -> Claim:
        entry = {
            "statement": "Twice as fast",
            "paper_figure": "Fig. 1: 2.1x",
            "metric": "speed ratio",
            "bar": 2.0,
            "direction": "at least",
            "measured": 2.5,
            "seeds": (0, 1),
            "spread": 0.1,
        }
        return Claim(**(entry | changes))

    return make


@pytest.fixture
def fake(monkeypatch, make_claim):
    """A registered system 'fake', whose `run` a test may replace."""
    module = ModuleType("fake_reproduction")
    module.run = lambda scale, seed: [make_claim(seeds=(seed,))]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    system = registry.System(
        slug="fake",
        title="A Fake",
        authors="Nobody",
        year=2024,
        arxiv=None,
        stage="serve",
        replaces="A fake stands in for the real thing.",
        classes=("understudy.core.errors.UserError",),
        reproduction=module.__name__,
    )
    monkeypatch.setattr(registry, "_SYSTEMS", (*registry.systems(), system))
    return module
