"""The model of the benchmark as a model of MLflow: written to the folder that is named.

The ONNX graph of the model in ONNX Runtime, or the `.us` file in PyTorch; a table of the inputs,
an answer of mean, deviation and the 90 % interval by column.
"""

from __future__ import annotations

import sys

import mlflow
import pandas as pd


class Served(mlflow.pyfunc.PythonModel):
    def load_context(self, context) -> None:
        path = context.artifacts["model"]
        if path.endswith(".onnx"):
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            providers = ["CPUExecutionProvider"]
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
            self._surrogate = None
        else:
            import understudy

            self._surrogate = understudy.load(path)

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        rows = model_input.to_numpy(dtype="float64")
        if self._surrogate is not None:
            return pd.DataFrame(self._surrogate.columns(rows, (0.9,)))
        mean, sd, lower, upper = self._session.run(None, {"inputs": rows})
        columns = {"mean": mean[:, 0], "sd": sd[:, 0]}
        return pd.DataFrame({**columns, "lower": lower[:, 0, 2], "upper": upper[:, 0, 2]})


if __name__ == "__main__":
    model, folder = sys.argv[1:]
    mlflow.pyfunc.save_model(
        folder, python_model=Served(), artifacts={"model": model}, pip_requirements=[]
    )
