"""The model of the benchmark as a service of BentoML; `benchmarks/serve.py` starts it.

The ONNX graph of the model in ONNX Runtime, or the `.us` file in PyTorch; rows as a list of
numbers, an answer of mean, deviation and the 90 % interval.
"""

from __future__ import annotations

import os

import bentoml
import numpy as np

MODEL, BATCHING = os.environ["SERVED_MODEL"], os.environ.get("BATCHING") == "1"


def load():
    if MODEL.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

        def predict(rows: np.ndarray) -> np.ndarray:
            mean, sd, lower, upper = session.run(None, {"inputs": rows})
            return np.concatenate([mean, sd, lower[:, :, 2], upper[:, :, 2]], axis=1)

        return predict
    import understudy

    surrogate = understudy.load(MODEL)
    return lambda rows: np.stack(list(surrogate.columns(rows, (0.9,)).values()), axis=1)


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 512})
class Served:
    def __init__(self) -> None:
        self._predict = load()

    @bentoml.api(batchable=BATCHING, batch_dim=0, max_batch_size=4096, max_latency_ms=1000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self._predict(np.ascontiguousarray(rows, dtype=np.float64))
