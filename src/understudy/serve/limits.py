"""What a request may take at most."""

from __future__ import annotations

from dataclasses import dataclass, fields

from understudy.core.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Limits of the service; beyond each a request is refused with the status code named.

    Parameters
    ----------
    body_bytes : int
        Bytes of a request's body (413).
    rows : int
        Rows of a prediction (413).
    seconds : float
        From the whole request to the answer (504).
    body_seconds : float
        Between the head of a request and the end of its body (408); as long may the head take.
    in_flight : int
        Requests worked on at a time, of all clients (503).
    per_client : int
        Requests worked on at a time, of one token, or of one address where there are no
        tokens (429).
    batch_rows : int
        Rows that are predicted together.
    batch_seconds : float
        Wait for more requests to be predicted together, counted from the first.
    points : int
        Points that one search proposes (422).
    samples : int
        Base samples of sensitivities (422).
    steps : int
        Of a rollout (422).
    numbers : int
        Of the fields that an answer holds (422); JSON answers hold a 32nd of them.
    """

    body_bytes: int = 32 * 2**20
    rows: int = 100_000
    seconds: float = 30.0
    body_seconds: float = 10.0
    in_flight: int = 64
    per_client: int = 32
    batch_rows: int = 4096
    batch_seconds: float = 0.002
    points: int = 16
    samples: int = 8192
    steps: int = 1000
    numbers: int = 2**23

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0 and field.name != "batch_seconds":
                raise UserError(f"the limit {field.name} must be positive, got {value}")
