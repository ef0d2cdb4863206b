"""What every test shares: one thread, reproducible properties, and real data where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Read when a numerical library loads, here and in the programs that tests start.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

settings.register_profile("understudy", deadline=None, derandomize=True)
settings.load_profile("understudy")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real data sets, from UNDERSTUDY_DATA; skips the test where there is none."""
    named = os.environ.get("UNDERSTUDY_DATA", "")
    if not named:
        pytest.skip("UNDERSTUDY_DATA names no folder of real data")
    if not Path(named).is_dir():
        pytest.skip(f"UNDERSTUDY_DATA names {named}, which is not a folder")
    return Path(named)
