"""Requests a second and latency of `understudy serve`, MLflow's server and BentoML.

The same fitted model answers one row at a time over a loopback socket, to 1, 8 and 64 connections
that each ask again as soon as they are answered. `measure` writes results/benchmarks/serve.json,
`soak` watches the memory of the service for ten minutes, `page` writes docs/benchmarks-serve.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "benchmarks" / "serve.json"
FOLDER = ROOT / ".bench" / "serve"
PEERS = ROOT / "benchmarks" / "peers"
CONNECTIONS = (1, 8, 64)
NAMES = ("rw", "r", "Tu", "Hu", "Tl", "Hl", "L", "Kw")
BOUNDS = np.array(
    [
        *((0.05, 0.15), (100, 50_000), (63_070, 115_600), (990, 1_110)),
        *((63.1, 116), (700, 820), (1_120, 1_680), (9_855, 12_045)),
    ]
)
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def borehole(X: np.ndarray) -> np.ndarray:
    """Water through a borehole, m3 a year."""
    rw, r, tu, hu, tl, hl, length, kw = X.T
    log = np.log(r / rw)
    return 2 * np.pi * tu * (hu - hl) / (log * (1 + 2 * length * tu / (log * rw**2 * kw) + tu / tl))


def points(rows: int, seed: int) -> np.ndarray:
    low, high = BOUNDS.T
    return np.random.default_rng(seed).uniform(low, high, (rows, len(NAMES)))


def make_model(folder: Path) -> tuple[Path, Path]:
    """A `.us` file and its graph, in a folder; those that are there are kept."""
    if (folder / "borehole.onnx").exists():
        return folder / "borehole.us", folder / "borehole.onnx"
    import pandas as pd

    import understudy
    from understudy.serve.graphs.files import export

    X = points(200, 0)
    table = pd.DataFrame(X, columns=list(NAMES))
    table["flow"] = borehole(X)
    members = ["polynomial", "exact-gp", "deep-ensemble"]
    model = understudy.fit(table, targets=["flow"], members=members, budget=20)
    path = model.save(folder / "borehole.us")
    export(path, folder / "borehole.onnx")
    return path, folder / "borehole.onnx"


# -- load -----------------------------------------------------------------------------------------


def request(port: int, path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> bytes:
    """Send a request and read its answer: a known length, or chunks."""
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    fields = head.lower()
    if b"content-length:" in fields:
        length = int(fields.split(b"content-length:")[1].split(b"\r\n")[0])
        return await reader.readexactly(length)
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


async def closed_loop(
    port: int, messages: list[bytes], connections: int, warm: float, seconds: float
) -> dict[str, float]:
    """Ask over connections that each wait for their answer, and time it."""
    taken: list[float] = []
    sent = 0
    began = time.perf_counter()

    async def client(at: int) -> None:
        nonlocal sent
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (now := time.perf_counter()) < began + warm + seconds:
            await ask(reader, writer, messages[at % len(messages)])
            at += connections
            sent += 1
            if now > began + warm:
                taken.append(time.perf_counter() - now)
        writer.close()

    await asyncio.gather(*(client(at) for at in range(connections)))
    p50, p95, p99 = np.quantile(taken, [0.5, 0.95, 0.99]) * 1e3
    return {
        "requests_per_second": len(taken) / seconds,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "requests": len(taken),
        "sent": sent,
    }


# -- servers --------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait_for(port: int, path: str, process: subprocess.Popen[bytes], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError("the server ended")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
            return
        time.sleep(0.2)
    raise RuntimeError("the server did not start")


@contextmanager
def server(system: str, model: Path, folder: Path) -> Iterator[tuple[int, str, Any, int]]:
    """Start a server; port, path, body of a row, and process."""
    port, environment = free_port(), {**os.environ, **THREADS, "PYTHONUNBUFFERED": "1"}
    log_file = folder / f"{system}-{port}.log"
    log = log_file.open("wb")
    onnx = model.with_suffix(".onnx")
    if system.startswith("understudy"):
        engine = "--onnx" if system.endswith("onnx") else "--no-onnx"
        command = [sys.executable, "-m", "understudy", "serve", str(model.with_suffix(".us"))]
        command += ["--port", str(port), "--max-requests", "256", engine]
        path, ready = "/v1/models/borehole/predict?levels=0.9", "/healthz"
        body: Any = lambda row: {"rows": [dict(zip(NAMES, row, strict=True))]}  # noqa: E731
    elif system.startswith("mlflow"):
        served = onnx if system.endswith("onnx") else model
        saved, python = folder / system, ROOT / ".bench/mlflow/bin/python"
        shutil.rmtree(saved, ignore_errors=True)
        make = [python, PEERS / "serve_mlflow.py", served, saved]
        subprocess.run(list(map(str, make)), env=environment, check=True, stdout=log, stderr=log)
        environment["PATH"] = f"{python.parent}:{environment['PATH']}"
        command = [str(python), "-m", "mlflow", "models", "serve", "-m", str(saved)]
        command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
        path, ready = "/invocations", "/ping"
        body = lambda row: {"dataframe_split": {"columns": list(NAMES), "data": [row]}}  # noqa: E731
    else:
        served = onnx if "onnx" in system else model
        environment |= {"SERVED_MODEL": str(served), "BENTOML_DO_NOT_TRACK": "1"}
        environment["BATCHING"] = "1" if system.endswith("batching") else "0"
        environment["BENTOML_HOME"] = str(folder / "bentoml")
        python = ROOT / ".bench/bentoml/bin/python"
        command = [str(python), "-m", "bentoml", "serve", "serve_bentoml:Served"]
        command += ["--working-dir", str(PEERS), "--port", str(port), "--host", "127.0.0.1"]
        path, ready = "/predict", "/readyz"
        body = lambda row: {"rows": [row]}  # noqa: E731
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        wait_for(port, ready, process)
        if system == "understudy-onnx":
            wait_for_graph(log_file)
        yield port, path, body, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def wait_for_graph(log: Path, seconds: float = 900) -> None:
    until = time.monotonic() + seconds
    while '"event": "graph"' not in log.read_text():
        if time.monotonic() > until:
            raise RuntimeError("the service did not switch to its graph")
        time.sleep(0.5)


SYSTEMS = (
    *("understudy-onnx", "mlflow-onnx", "bentoml-onnx", "bentoml-onnx-batching"),
    *("understudy-torch", "mlflow-torch", "bentoml-torch"),
)


def measure(seconds: float, rounds: int, systems: list[str]) -> None:
    """All servers at once, asked in turn in short bursts: what else runs slows them alike."""
    model, _ = make_model(FOLDER)
    rows = points(1000, 5).tolist()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    answers: dict[str, list[float]] = {}
    with ExitStack() as stack:
        running = started(systems, model, stack)
        messages = {}
        for system, (port, path, body, _) in running.items():
            answers[system] = first_answer(port, path, body(rows[0]))
            messages[system] = [request(port, path, json.dumps(body(r)).encode()) for r in rows]
        for system, (port, *_) in running.items():  # warm
            asyncio.run(closed_loop(port, messages[system], 8, 0.0, 1.0))
        for at in range(rounds):
            for connections in CONNECTIONS:
                for system in sorted(running, key=lambda name: hash((at, name))):
                    port = running[system][0]
                    burst = closed_loop(port, messages[system], connections, 0.0, seconds)
                    before = processor_seconds(running[system][3])
                    run = {**asyncio.run(burst), "load": os.getloadavg()[0]}
                    spent = processor_seconds(running[system][3]) - before
                    run["processor_ms"] = 1e3 * spent / max(run["sent"], 1)
                    found.setdefault(system, {}).setdefault(str(connections), []).append(run)
                    shown = {key: round(value, 1) for key, value in run.items()}
                    print(system, connections, shown, flush=True)
            keep({name: found[name] for name in systems if name in found}, answers, seconds, at + 1)


def processor_seconds(pid: int) -> float:
    """Processor time of a server and its workers so far."""
    import psutil

    parent = psutil.Process(pid)
    times = [each.cpu_times() for each in (parent, *parent.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def started(systems: list[str], model: Path, stack: ExitStack) -> dict[str, tuple[Any, ...]]:
    """Start servers beside one another; one that does not start is left out, and said."""
    contexts = {system: server(system, model, FOLDER) for system in systems}
    running = {}
    with ThreadPoolExecutor(len(contexts)) as pool:
        entering = {name: pool.submit(each.__enter__) for name, each in contexts.items()}
        for name, future in entering.items():
            try:
                running[name] = future.result()
                stack.push(contexts[name].__exit__)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                print(name, "failed:", error, flush=True)
    return running


def keep(
    found: dict[str, dict[str, list[dict[str, float]]]],
    answers: dict[str, list[float]],
    seconds: float,
    rounds: int,
) -> None:
    """Write down what is measured so far."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    ran = {
        "one_row": {
            system: {n: median(runs) for n, runs in by.items()} for system, by in found.items()
        },
        "answers": answers,
        "seconds": seconds,
        "rounds": rounds,
        "machine": machine,
        "load": os.getloadavg()[0],
    }
    merge(ran)


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.median([run[key] for run in runs])) for key in runs[0]}


def first_answer(port: int, path: str, body: Any) -> list[float]:
    """Mean and deviation of the first row: all systems must say the same."""
    kind = {"Content-Type": "application/json"}
    sent = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), kind)
    found = json.loads(urllib.request.urlopen(sent, timeout=60).read())
    if isinstance(found, list):
        return found[0][:2]
    row = found["predictions"][0]
    return list(row.values())[:2]


def bulk(rows: int = 100_000, repeats: int = 3) -> None:
    """Rows a second of one request of many rows: Arrow, and the peers' own formats."""
    import pyarrow as pa

    folder = FOLDER
    model, _ = make_model(folder)
    X = points(rows, 6)
    table = pa.table({name: X[:, j] for j, name in enumerate(NAMES)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = sink.getvalue().to_pybytes()
    csv = table.to_pandas().to_csv(index=False).encode()
    split = json.dumps({"rows": X.tolist()}).encode()
    sent = {
        "understudy-onnx": ("application/vnd.apache.arrow.stream", arrow),
        "mlflow-onnx": ("text/csv", csv),
        "bentoml-onnx": ("application/json", split),
    }
    found = {}
    for system, (kind, body) in sent.items():
        with server(system, model, folder) as (port, path, _, _):
            taken = []
            for _ in range(repeats):
                began = time.perf_counter()
                message = urllib.request.Request(
                    f"http://127.0.0.1:{port}{path}", body, {"Content-Type": kind}
                )
                urllib.request.urlopen(message, timeout=300).read()
                taken.append(time.perf_counter() - began)
            found[system] = {"kind": kind, "rows_per_second": rows / float(np.median(taken))}
            print(system, found[system], flush=True)
    merge({"bulk": {"rows": rows, **found}})


def soak(minutes: float) -> None:
    """Memory of the service under ten minutes of mixed requests, good and bad."""
    import psutil

    folder = FOLDER
    model, _ = make_model(folder)
    rows = points(1000, 5).tolist()
    with server("understudy-onnx", model, folder) as (port, path, body, pid):
        good = [request(port, path, json.dumps(body(row)).encode()) for row in rows]
        bad = request(port, path, b'{"rows": [{"rw": null}]}')
        asyncio.run(closed_loop(port, good, 8, 0.0, 20.0))
        process, samples, sent = psutil.Process(pid), [], 0
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            sent += int(asyncio.run(closed_loop(port, good, 8, 0.0, 8.0))["requests"])
            for _ in range(50):
                with contextlib.suppress(RuntimeError):
                    asyncio.run(once(port, bad))
            samples.append(process.memory_info().rss / 2**20)
        quarter = max(1, len(samples) // 4)
        early, late = np.median(samples[:quarter]), np.median(samples[-quarter:])
    record = {
        "minutes": minutes,
        "requests": sent,
        "first_quarter_mib": float(early),
        "last_quarter_mib": float(late),
        "growth_mib": float(late - early),
    }
    print(record)
    merge({"soak": record})


async def once(port: int, message: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await ask(reader, writer, message)
    finally:
        writer.close()


def merge(record: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    whole = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**whole, **record}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["model", "measure", "bulk", "soak"])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if given.what == "model":
        print(make_model(FOLDER))
    elif given.what == "measure":
        measure(given.seconds, given.rounds, given.systems)
    elif given.what == "bulk":
        bulk()
    else:
        soak(given.minutes)


if __name__ == "__main__":
    main()
