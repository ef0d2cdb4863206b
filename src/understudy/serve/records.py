"""What the service measures and writes down: Prometheus metrics and JSON logs without payloads."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LOGGER = "understudy.serve"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)


@dataclass(frozen=True)
class Metrics:
    """Counts and times of one service, with names as Prometheus has them."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        made = {
            "requests": Counter(
                "understudy_requests", "Requests answered.", ("route", "status"), **self._here
            ),
            "seconds": Histogram(
                "understudy_request_seconds",
                "Seconds from the head of a request to the end of its answer.",
                ("route",),
                buckets=_SECONDS,
                **self._here,
            ),
            "predicted": Counter("understudy_rows", "Rows predicted.", ("model",), **self._here),
            "batches": Histogram(
                "understudy_batch_rows",
                "Rows predicted together.",
                ("model",),
                buckets=_ROWS,
                **self._here,
            ),
            "in_flight": Gauge("understudy_in_flight", "Requests being worked on.", **self._here),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    requests: Any = field(init=False)
    seconds: Any = field(init=False)
    predicted: Any = field(init=False)
    batches: Any = field(init=False)
    in_flight: Any = field(init=False)

    @property
    def _here(self) -> dict[str, Any]:
        return {"registry": self.registry}

    def batch(self, model: str, rows: int) -> None:
        """Take note of a batch."""
        self.predicted.labels(model).inc(rows)
        self.batches.labels(model).observe(rows)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Take note of an answer."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """A JSON object a line: time, level, event and what belongs to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Line of a record; of an exception its type and where it was raised, not its text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = type(record.exc_info[1]).__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["at"] = [f"{frame.filename}:{frame.lineno}" for frame in frames[-8:]]
        return json.dumps(line, ensure_ascii=True, default=str)


def log_to_stderr() -> None:
    """Write what the service and its server log to the error stream, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in ((LOGGER, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def log(event: str, level: int = logging.INFO, exception: bool = False, **fields: Any) -> None:
    """Write down an event."""
    logging.getLogger(LOGGER).log(level, event, extra={"fields": fields}, exc_info=exception)
