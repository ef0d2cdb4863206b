"""What a running service predicts with: PyTorch at first, ONNX Runtime where that proves faster."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from understudy.serve.hosted import HostedModel
from understudy.serve.records import log

if TYPE_CHECKING:
    from understudy.serve.graphs.faster import Making

NEEDED = ("onnx", "onnxruntime", "onnxscript")
"""Packages without which PyTorch predicts everything."""


class Engines:
    """A thread that gives each model its graph, one model after the other.

    Parameters
    ----------
    models : mapping of str to HostedModel
        Those without a file are passed over.
    """

    def __init__(self, models: Mapping[str, HostedModel]) -> None:
        self._models, self._closed = models, threading.Event()
        self._making: Making | None = None
        self._thread = threading.Thread(target=self._work, name="engines", daemon=True)
        if all(find_spec(name) is not None for name in NEEDED):
            self._thread.start()

    def _work(self) -> None:
        for name, model in self._models.items():
            if self._closed.is_set():
                return
            try:
                self._switch(name, model)
            except Exception:
                log("no graph", logging.WARNING, exception=True, model=name)

    def _switch(self, name: str, model: HostedModel) -> None:
        from understudy.serve.graphs.faster import FasterGraph, Making, beside

        if model.path is None:
            return
        session = beside(model.path)
        if session is None:
            self._making = Making(model.path)
            session = self._making.session()
        if session is None:
            if not self._closed.is_set():
                log("no graph", model=name)
            return
        graph = FasterGraph.of(model.surrogate, session)
        if graph.rows and not self._closed.is_set():
            model.graph = graph
        gc.collect()
        gc.freeze()  # see `server.serve`; by now the packages of ONNX are loaded, too
        speedup = [round(ratio, 2) for ratio in graph.speedup]
        log("graph", model=name, rows=graph.rows, speedup=speedup)

    def close(self) -> None:
        """Stop making graphs."""
        self._closed.set()
        if self._making is not None:
            self._making.stop()
