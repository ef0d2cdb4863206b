"""A request that is not answered as asked, in words and by a status code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

MOST_PROBLEMS = 20
"""Problems that an answer lists; it says how many more there are."""

_CLOSING = (401, 408, 413, 421, 429, 503, 504)  # a body may still be on its way


@dataclass(frozen=True)
class Problem:
    """What is wrong with one part of a request.

    Parameters
    ----------
    field : str
        Column or key.
    message : str
        One sentence: what was found, what is accepted.
    row : int, optional
        Counted from 1; of the first such row.
    """

    field: str
    message: str
    row: int | None = None


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """A request refused.

    Parameters
    ----------
    status : int
        HTTP status code, 4xx or 5xx.
    code : str
        Short name of the reason, for programs.
    message : str
        One sentence.
    problems : sequence of Problem
        What is wrong, part by part.
    retry_after : int, optional
        Seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        problems: Sequence[Problem] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.problems, self.retry_after = tuple(problems), retry_after

    @property
    def record(self) -> dict[str, Any]:
        """JSON of the answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.problems:
            error["problems"] = [asdict(problem) for problem in self.problems[:MOST_PROBLEMS]]
            error["more_problems"] = max(0, len(self.problems) - MOST_PROBLEMS)
        return {"error": error}

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that belong to the status."""
        found = []
        if self.status == 401:
            found.append((b"www-authenticate", b'Bearer realm="understudy"'))
        if self.retry_after is not None:
            found.append((b"retry-after", str(self.retry_after).encode()))
        if self.status in _CLOSING:
            found.append((b"connection", b"close"))
        return found


def invalid(problems: Sequence[Problem]) -> Refusal:
    """Return the refusal of a request with these problems, at least one (422)."""
    first = problems[0]
    where = first.field if first.row is None else f"{first.field}, row {first.row}"
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return Refusal(422, "invalid", f"{where}: {first.message}{more}", problems)
