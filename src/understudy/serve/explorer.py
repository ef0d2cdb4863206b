"""The page at ``/``: files that a browser needs to explore models, and nothing of any model.

The page and its scripts are the same for every service, so they need no token; all that they show
is asked for with one. The style of reports is served with them.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Response

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind} 'self'" for kind in ("script-src", "style-src", "connect-src")),
        "img-src 'self' data:",
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
    )
)
"""``Content-Security-Policy``: nothing inline, nothing from elsewhere, in no frame."""

_HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}


@lru_cache(maxsize=1)
def pages() -> dict[str, tuple[bytes, str]]:
    """Content and type of each address of the page; read once."""
    package = files("understudy")
    folder = package / "serve" / "explorer"
    served = [each for each in folder.iterdir() if _ending(each) in _TYPES]
    found = {f"/explorer/{each.name}": _read(each) for each in served}
    found["/"] = found.pop("/explorer/index.html")
    found["/explorer/page.css"] = _read(package / "report" / "page.css")
    return found


def add_pages(app: FastAPI) -> None:
    """Serve the page at ``/`` and its files under ``/explorer/``."""
    for address, (content, kind) in pages().items():
        app.add_api_route(address, _giver(content, kind), include_in_schema=False)


def _giver(content: bytes, kind: str):  # type: ignore[no-untyped-def]
    async def give() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return give


def _read(file: Traversable) -> tuple[bytes, str]:
    return file.read_bytes(), f"{_TYPES[_ending(file)]}; charset=utf-8"


def _ending(file: Traversable) -> str:
    return file.name[file.name.rfind(".") :]
