"""Functions run in other processes: in order, on one thread, and whatever becomes of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, wait
from pathlib import Path

import numpy as np
import pytest

from understudy.core.errors import UserError
from understudy.core.executor import (
    Executor,
    LocalExecutor,
    TaskError,
    TaskTimeoutError,
    WorkerLostError,
    executor,
)


def has_ray() -> bool:
    from importlib.util import find_spec

    return find_spec("ray") is not None


def draw(seed: int) -> float:
    return float(np.random.default_rng(seed).normal())


def explode(what: str) -> None:
    raise ValueError(f"no {what}\nleft")


def identity() -> int:
    return os.getpid()


def threads() -> tuple[str | None, int]:
    import torch

    return os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(7)


def start_a_program_and_wait(folder: str) -> None:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (Path(folder) / "pid.part").write_text(f"{os.getpid()} {program.pid}")
    (Path(folder) / "pid.part").rename(Path(folder) / "pids")
    program.wait()


def until(true: object, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids(folder: Path) -> list[int]:
    until((folder / "pids").exists)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


@pytest.fixture(scope="module")
def two() -> Executor:
    with executor("local", 2) as running:
        yield running


def test_results_come_in_the_order_of_the_items(two: Executor) -> None:
    assert two.map(draw, range(6)) == [draw(seed) for seed in range(6)]


def test_a_failure_has_the_message_of_the_exception_and_its_traceback(two: Executor) -> None:
    with pytest.raises(TaskError, match=r"^ValueError: no fuel left$") as failure:
        two.submit(explode, "fuel").result()
    assert "explode" in failure.value.details


def test_the_first_failure_ends_a_map(two: Executor) -> None:
    with pytest.raises(TaskError, match="no fuel"):
        two.map(explode, ["fuel", "food"])
    assert two.map(draw, [1]) == [draw(1)]


def test_workers_are_other_processes_and_compute_on_one_thread(two: Executor) -> None:
    assert two.submit(identity).result() != os.getpid()
    assert two.submit(threads).result() == ("1", 1)


def test_what_cannot_be_sent_to_another_process_is_said(two: Executor) -> None:
    with pytest.raises(TaskError, match="cannot be sent to another process"):
        two.submit(lambda: 1).result()


def test_a_killed_worker_fails_its_task_and_no_other(two: Executor) -> None:
    tasks = [two.submit(kill_itself), *(two.submit(draw, seed) for seed in range(3))]
    wait(tasks)
    with pytest.raises(WorkerLostError, match="its process was killed by SIGKILL"):
        tasks[0].result()
    assert [task.result() for task in tasks[1:]] == [draw(seed) for seed in range(3)]


def test_a_worker_that_leaves_is_a_lost_one(two: Executor) -> None:
    with pytest.raises(WorkerLostError, match="its process ended with exit code 7"):
        two.submit(leave).result()


def test_a_task_that_takes_too_long_is_ended_with_its_programs(
    two: Executor, tmp_path: Path
) -> None:
    task = two.submit(start_a_program_and_wait, str(tmp_path), timeout=4.0)
    with pytest.raises(TaskTimeoutError, match="took longer than 4 s"):
        task.result()
    until(lambda: not any(map(is_alive, pids(tmp_path))))
    assert two.submit(draw, 1).result() == draw(1)


def test_closing_ends_what_runs_and_cancels_what_waits(tmp_path: Path) -> None:
    running = LocalExecutor(1)
    first = running.submit(start_a_program_and_wait, str(tmp_path))
    second = running.submit(draw, 0)
    processes = pids(tmp_path)
    running.close()
    assert not any(map(is_alive, processes))
    with pytest.raises(CancelledError):
        first.result()
    assert second.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        running.submit(draw, 0)


CHILD = """
import signal
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_executor import start_a_program_and_wait
from understudy.core.executor import executor
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in background
    with executor("local", 1) as running:
        running.submit(start_a_program_and_wait, {folder!r}).result()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_and_their_programs_end_with_the_process_that_started_them(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "script.py"
    script.write_text(CHILD.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    with subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL) as parent:
        try:
            processes = pids(tmp_path)
            assert all(map(is_alive, processes))
            parent.send_signal(number)
            parent.wait(30)
        finally:
            parent.kill()
    until(lambda: not any(map(is_alive, processes)))


def test_a_program_that_forgets_to_close_ends_all_the_same() -> None:
    code = (
        "import time; from understudy.core.executor import executor\n"
        "running = executor('local', 1); task = running.submit(abs, -3)\n"
        "print(task.result()); running.submit(time.sleep, 600)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "3\n")


@pytest.mark.parametrize(("kind", "workers", "words"), [("cloud", 1, "'cloud'"), ("local", 0, "0")])
def test_a_wrong_executor_is_refused(kind: str, workers: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        executor(kind, workers)


@pytest.mark.skipif(has_ray(), reason="Ray is installed, so its absence cannot be tried")
def test_without_ray_the_extra_is_named() -> None:
    with pytest.raises(UserError, match=r"understudy\[scale\]"):
        executor("ray")


@pytest.mark.slow
@pytest.mark.skipif(not has_ray(), reason="Ray is not installed, so tasks on Ray are not tried")
def test_ray_gives_the_same_results_and_says_what_failed(tmp_path: Path) -> None:
    with executor("local", 2) as here:
        expected = here.map(draw, range(6))
    with executor("ray", 2) as there:
        assert there.map(draw, range(6)) == expected
        assert there.submit(threads).result()[0] == "1"
        with pytest.raises(TaskError, match=r"^ValueError: no fuel left$"):
            there.submit(explode, "fuel").result()
        with pytest.raises(WorkerLostError):
            there.submit(kill_itself).result()
        with pytest.raises(TaskTimeoutError, match="took longer than 3 s"):
            there.submit(time.sleep, 60, timeout=3.0).result()
        assert there.submit(draw, 3).result() == draw(3)
