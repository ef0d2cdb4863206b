"""Take the picture of the page for docs/explorer.md.

    python docs/extensions/explorer_picture.py MODEL.us docs/explorer.png "STATE OF THE ADDRESS"

Starts a service of the model and opens it in Chromium, as the tests do.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 1280, 1090


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """Serve a model at an address until the context ends."""
    command = [sys.executable, "-m", "understudy", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = (json.loads(line) for line in process.stderr if line.startswith("{"))
        yield next(line["url"] for line in lines if line["event"] == "ready")
    finally:
        process.terminate()
        process.wait()


def browser() -> Any:
    """Return the module with which tests drive Chromium."""
    path = ROOT / "tests" / "report" / "browser.py"
    spec = importlib.util.spec_from_file_location("browser", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(model: Path, state: str) -> bytes:
    """Return the page as a PNG, with a state in its address."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("Chromium is needed to take the picture")
    driver = browser()
    with serving(model) as url, tempfile.TemporaryDirectory() as profile:
        chromium = driver.Browser(program, Path(profile))
        try:
            page = driver.Page(chromium, f"{url}/#{state}", width=WIDTH, height=HEIGHT)
            page.wait_for("document.documentElement.dataset.settled")
            return page.screenshot()
        finally:
            chromium.close()


if __name__ == "__main__":
    given, target, address = sys.argv[1:4]
    Path(target).write_bytes(picture(Path(given), address))
