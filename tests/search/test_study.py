"""Studies: every trial is run, none twice, whatever becomes of processes and machines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.samplers import RandomSampler

from understudy.core.errors import UserError
from understudy.core.executor import executor
from understudy.core.search import Constraint, Objective, Problem
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.search import coordinator
from understudy.search.coordinator import Coordinator
from understudy.search.problem_file import read_problem
from understudy.search.storage import Storage
from understudy.search.study import open_study

optuna.logging.set_verbosity(optuna.logging.ERROR)

PROBLEM = """
[inputs]
x = { type = "continuous", lower = -1, upper = 1 }
k = { type = "integer", lower = 1, upper = 4 }
c = { type = "categorical", choices = ["a", "b"] }

[objectives]
y = "minimize"

[run]
python = "MODULE:run"
"""
WRITES = """
import os
from pathlib import Path
def run(x, k, c):
    with open(Path(__file__).parent / "begun.txt", "a") as file:
        file.write(f"{os.getpid()} {x!r} {k} {c}\\n")
    BODY
    return x**2 + k
"""


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """Let SQLite not wait until each of its writes is on the disk."""

    def hurry(connection, record) -> None:
        if "sqlite3" in type(connection).__module__:
            connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hurry)


@pytest.fixture
def problem(tmp_path):
    """Return a function that makes a problem whose objective has a body."""

    def make(body: str = "pass", more: str = ""):
        module = "m" + tmp_path.name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(WRITES.replace("BODY", body))
        path = tmp_path / "problem.toml"
        path.write_text(PROBLEM.replace("MODULE", module) + more)
        return read_problem(path)

    return make


def begun(folder: Path) -> list[str]:
    """Configurations that any process has begun to run."""
    path = folder / "begun.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split(" ", 1)[1] for line in lines]


def until(true, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def work(file, where, trials, workers=1, resume=False, sampler=None, listener=None, stop=None):
    storage = Storage(str(where), heartbeat=1, grace=4)
    sampler = sampler or RandomSampler(seed=0)
    study = open_study(storage, file.name, file.problem, resume=resume, sampler=sampler)
    with executor("local", workers) as running:
        more = {} if stop is None else {"stop": stop}
        Coordinator(study, file.run, running, trials, listener, **more).work()
    return study


def test_a_study_runs_its_budget_and_finds_the_best(problem, tmp_path) -> None:
    moments = []
    study = work(problem(), tmp_path / "study.db", 6, workers=2, listener=moments.append)
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.state for trial in trials} == {"done"}
    assert all(t.outcomes["y"] == t.config["x"] ** 2 + t.config["k"] for t in trials)
    assert study.best().outcomes["y"] == min(trial.outcomes["y"] for trial in trials)
    assert len(begun(tmp_path)) == 6
    assert moments[-1].count("done") == 6
    assert moments[-1].suggestion_seconds > 0
    assert any(moment.news.startswith("trial 0: y ") for moment in moments)


def test_the_same_seed_gives_the_same_trials(problem, tmp_path) -> None:
    file = problem()
    configs = [
        [trial.config for trial in work(file, tmp_path / f"{n}.db", 4).trials()] for n in range(2)
    ]
    assert configs[0] == configs[1]


BROKEN = """
    if k == 1: raise ValueError("no mesh")
    if k == 2: os._exit(3)
    if k == 3: return float("nan")
"""


class Scripted(RandomSampler):
    """Suggests k = 1, 2, 3, 4 in turn."""

    def sample_independent(self, study, trial, name, distribution):
        if name == "k":
            return 1 + trial.number % 4
        return super().sample_independent(study, trial, name, distribution)


def test_failures_are_recorded_with_their_reason_and_not_fatal(problem, tmp_path) -> None:
    study = work(problem(BROKEN.strip()), tmp_path / "study.db", 8, sampler=Scripted(seed=0))
    trials = study.trials()
    assert [trial.state for trial in trials] == ["failed", "failed", "failed", "done"] * 2
    assert [trial.reason for trial in trials[:4]] == [
        "raised ValueError: no mesh",
        "its process ended with exit code 3",
        "returned nan as 'y'",
        "",
    ]
    assert study.best().config["k"] == 4


@pytest.mark.slow
def test_a_trial_that_takes_too_long_fails_and_the_next_is_run(problem, tmp_path) -> None:
    body = "import time; time.sleep(60 if k == 1 else 0)"
    file = problem(body, 'timeout = "2s"\n')
    study = work(file, tmp_path / "study.db", 2, sampler=Scripted(seed=0))
    assert [trial.reason for trial in study.trials()] == ["took longer than 2 s", ""]


def test_stopping_gives_running_trials_back_and_resuming_runs_them(problem, tmp_path) -> None:
    file = problem(
        "import time; time.sleep(60 if not os.path.exists(GO) else 0)".replace(
            "GO", repr(str(tmp_path / "go"))
        )
    )
    stop = threading.Event()
    threading.Thread(
        target=lambda: (until(lambda: len(begun(tmp_path)) == 2), stop.set()), daemon=True
    ).start()
    study = work(file, tmp_path / "study.db", 4, workers=2, stop=stop)
    given_back = study.trials()
    assert [trial.state for trial in given_back] == ["waiting"] * 2
    (tmp_path / "go").touch()
    study = work(file, tmp_path / "study.db", 4, resume=True, sampler=RandomSampler(seed=1))
    trials = study.trials()
    assert [trial.state for trial in trials] == ["done"] * 4
    assert [t.config for t in trials[:2]] == [t.config for t in given_back]
    assert Counter(begun(tmp_path)).most_common(1)[0][1] == 2


def test_resuming_a_study_that_is_done_runs_nothing(problem, tmp_path) -> None:
    file = problem()
    work(file, tmp_path / "study.db", 2)
    study = work(file, tmp_path / "study.db", 2, resume=True)
    assert len(study.trials()) == 2
    assert len(begun(tmp_path)) == 2


@pytest.mark.slow
def test_a_trial_enqueued_by_hand_is_run_with_its_values(problem, tmp_path) -> None:
    file = problem()
    work(file, tmp_path / "study.db", 1)
    study = optuna.load_study(study_name=file.name, storage=f"sqlite:///{tmp_path}/study.db")
    study.enqueue_trial({"x": 0.25, "k": 2})
    trials = work(file, tmp_path / "study.db", 2, resume=True).trials()
    assert trials[1].config == {"x": 0.25, "k": 2, "c": trials[1].config["c"]}
    assert trials[1].outcomes == {"y": 2.0625}


def test_a_result_outlasts_a_storage_that_is_out_of_reach(monkeypatch) -> None:
    waited, attempts = [], iter([True, True, False])

    def write() -> str:
        if next(attempts):
            raise optuna.exceptions.StorageInternalError("the server is gone")
        return "written"

    monkeypatch.setattr(coordinator.time, "sleep", waited.append)
    assert coordinator._patiently(write) == "written"
    assert waited == [1.0, 2.0]


# -- studies of others ----------------------------------------------------------------------------

SPACE = (Continuous("x", 0, 1), Integer("k", 1, 4), Categorical("c", ("a", "b")))
OBJECTIVES = (Objective("y"), Objective("cost", "maximize"))


def same(space=SPACE, objectives=OBJECTIVES, constraints=()):
    return Problem(Space(space), objectives, constraints)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (same(), "exists already; --resume"),
        (same((Continuous("x", 0, 2), *SPACE[1:])), "input 'x' has upper 1.0 there and 2.0 in"),
        (same((Continuous("xx", 0, 1), *SPACE[1:])), "its input 'x' is not in the file; did you"),
        (same((*SPACE, Integer("l", 1, 2))), "it has no input 'l'"),
        (same((SPACE[1], SPACE[0], SPACE[2])), "its inputs are in another order"),
        (same((Integer("x", 0, 1), *SPACE[1:])), "'x' has type continuous there and integer"),
        (same((*SPACE[:2], Categorical("c", ("a", "d")))), r"choices \[a, b\] there and \[a, d\]"),
        (same(objectives=OBJECTIVES[:1]), "its objective 'cost' is not in the file"),
        (same(objectives=(Objective("y", "maximize"), OBJECTIVES[1])), "direction minimize there"),
        (same(constraints=(Constraint("g", upper=1.0),)), "it has no constraint 'g'"),
    ],
)
def test_a_study_of_another_problem_is_refused_with_the_difference(
    tmp_path, other, words: str
) -> None:
    storage = Storage(f"sqlite:///{tmp_path}/study.db")
    open_study(storage, "wing", same())
    with pytest.raises(UserError, match=words):
        open_study(storage, "wing", other)


def test_a_study_of_another_program_is_refused(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="wing")
    with pytest.raises(UserError, match="made by another program"):
        open_study(Storage(url), "wing", same())


def test_a_resumed_study_that_is_not_there_is_begun(tmp_path) -> None:
    study = open_study(Storage(f"{tmp_path}/study.db"), "wing", same(), resume=True)
    assert study.trials() == []


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("sqlite:///absent/study.db", "there is no folder absent"),
        ("sqlite://", "names no file"),
        ("sqlite:///text.db", "is not an SQLite database"),
        ("://", "is no URL"),
        ("postgresql://nobody:secret@127.0.0.1:1/x", "cannot be reached"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_without_its_password(
    tmp_path, monkeypatch, where: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("this is a text, not a database")
    with pytest.raises(UserError, match=words) as refusal:
        Storage(where)
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


# -- best and front -------------------------------------------------------------------------------


def told(study, outcomes) -> None:
    trial = study.optuna.ask(study.problem.space.distributions())
    trial.set_user_attr("outcomes", outcomes)
    study.optuna.tell(trial, [outcomes[part.name] for part in study.problem.objectives])


@pytest.mark.filterwarnings("ignore:Heartbeat")
def test_best_and_front_are_of_feasible_trials(tmp_path) -> None:
    problem = same(constraints=(Constraint("g", upper=1.0),))
    study = open_study(Storage(f"{tmp_path}/study.db"), "wing", problem)
    points = [(1, 1, 0), (2, 3, 0), (2, 2, 0), (0, 9, 5), (3, 3, 0), (0.5, 0, 1), (2, 3, 0)]
    for y, cost, g in points:
        told(study, {"y": float(y), "cost": float(cost), "g": float(g)})
    assert study.best().number == 5
    assert [trial.number for trial in study.front()] == [5, 0, 1]
    assert [trial.feasible for trial in study.trials()] == [True] * 3 + [False] + [True] * 3


# -- speed ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_thousand_trials_do_not_slow_down_the_next(problem, tmp_path) -> None:
    file = problem()
    storage = Storage(f"{tmp_path}/study.db")
    study = open_study(storage, file.name, file.problem, sampler=RandomSampler(seed=0))
    distributions = file.problem.space.distributions()
    finished = [
        optuna.trial.create_trial(
            params={"x": 0.001 * (i % 900), "k": 1 + i % 4, "c": "ab"[i % 2]},
            distributions=distributions,
            values=[float(i)],
        )
        for i in range(2000)
    ]
    now = finished[0].datetime_start
    kinds = {n: optuna.distributions.distribution_to_json(d) for n, d in distributions.items()}
    with storage.rdb.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, "
            "datetime_complete) VALUES (?, ?, 1, 'COMPLETE', ?, ?)",
            [(i + 1, i, str(now), str(now)) for i in range(2000)],
        )
        connection.exec_driver_sql(
            "INSERT INTO trial_values (trial_id, objective, value, value_type) "
            "VALUES (?, 0, ?, 'FINITE')",
            [(i + 1, float(i)) for i in range(2000)],
        )
        connection.exec_driver_sql(
            "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
            "VALUES (?, ?, ?, ?)",
            [
                (i + 1, name, d.to_internal_repr(trial.params[name]), kinds[name])
                for i, trial in enumerate(finished)
                for name, d in distributions.items()
            ],
        )
    started = time.monotonic()
    assert len(study.trials()) == 2000
    first = time.monotonic() - started
    moments = []
    with executor("local", 1) as running:
        Coordinator(study, file.run, running, 2005, moments.append).work()
    assert moments[-1].count("done") == 2005
    assert first < 10.0
    assert moments[-1].suggestion_seconds < 0.25


# -- processes that are killed ---------------------------------------------------------------------

COORDINATOR = """
import sys

def main(path, where, trials, seed):
    import optuna
    from understudy.core.executor import executor
    from understudy.search.coordinator import Coordinator
    from understudy.search.problem_file import read_problem
    from understudy.search.storage import Storage
    from understudy.search.study import open_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = read_problem(path)
    storage = Storage(where, heartbeat=1, grace=8)
    sampler = optuna.samplers.RandomSampler(seed=int(seed))
    study = open_study(storage, file.name, file.problem, resume=True, sampler=sampler)
    with executor("local", 1) as running:
        Coordinator(study, file.run, running, int(trials)).work()

if __name__ == "__main__":  # not in the workers, which need none of it
    main(*sys.argv[1:])
"""
# The first trial of the coordinator that is killed hangs; others wait until all have one.
WAITS = """
    import time
    mark = Path(os.environ["MARK"])
    if os.environ.get("VICTIM") and not mark.exists():
        mark.touch()
        time.sleep(600)
    text = Path(__file__).parent / "begun.txt"
    while len({line.split()[0] for line in text.read_text().splitlines()}) < COUNT:
        time.sleep(0.1)
"""


def coordinators(folder: Path, where: str, trials: int, numbers):
    """Start processes that share a study; number 0 is to be killed."""
    script = folder / "coordinator.py"
    script.write_text(COORDINATOR)
    environment = {**os.environ, "MARK": str(folder / "mark")}
    return [
        subprocess.Popen(
            [sys.executable, str(script), str(folder / "problem.toml"), where, str(trials), str(i)],
            env=environment | ({"VICTIM": "yes"} if i == 0 else {}),
            stderr=subprocess.PIPE,
        )
        for i in numbers
    ]


def check_that_no_trial_is_lost_and_none_run_twice(
    file, folder: Path, where: str, trials: int, count: int
) -> None:
    first = coordinators(folder, where, trials, [0])
    until((folder / "mark").exists, 90)
    victim_ran = begun(folder)[-1]
    running = first + coordinators(folder, where, trials, range(1, count))
    running[0].send_signal(signal.SIGKILL)
    for process in running[1:]:
        _, said = process.communicate(timeout=150)
        assert process.returncode == 0, said.decode()
    running[0].communicate()
    study = open_study(Storage(where), file.name, file.problem, resume=True)
    found = study.trials()
    assert [trial.state for trial in found] == ["done"] * trials
    runs = Counter(begun(folder))
    assert runs.pop(victim_ran) == 2  # once by the process that was killed
    assert set(runs.values()) == {1}
    assert len(runs) == trials - 1
    workers = {trial.user_attrs["worker"] for trial in study.optuna.get_trials()}
    assert len(workers) == count - 1


@pytest.mark.slow
def test_a_killed_coordinator_loses_no_trial_in_an_sqlite_file(problem, tmp_path) -> None:
    file = problem(WAITS.strip().replace("COUNT", "3"))
    where = f"sqlite:///{tmp_path}/study.db"
    check_that_no_trial_is_lost_and_none_run_twice(file, tmp_path, where, 24, 3)


# -- a PostgreSQL server of our own ----------------------------------------------------------------


def postgres_program(name: str) -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    return found or ""


@pytest.fixture(scope="module")
def postgres():
    """Return the URL of an empty database on a server that ends with the tests."""
    if not postgres_program("initdb"):
        pytest.skip("PostgreSQL is not installed, so no study is shared through it")
    pytest.importorskip("psycopg", reason="psycopg is not installed, so PostgreSQL is not tried")
    with tempfile.TemporaryDirectory(prefix="understudy-postgres-") as folder:
        yield from served(Path(folder))


def served(folder: Path):
    """Yield the URL of a server whose files are in an empty folder; it stops in the end."""
    user = {} if os.geteuid() else {"user": "nobody", "group": "nogroup"}
    if user:  # initdb refuses root
        shutil.chown(folder, **user)
    common = {"cwd": folder, "check": True, "capture_output": True, **user, "timeout": 100}
    data, port = folder / "data", 20_000 + os.getpid() % 20_000
    subprocess.run(
        [postgres_program("initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync"],
        **common,
    )
    options = f"-p {port} -k {folder} -c fsync=off -c listen_addresses=127.0.0.1"
    control = [postgres_program("pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
    subprocess.run(
        [*control, "-o", options, "start"],
        **common | {"capture_output": False, "stdout": subprocess.DEVNULL},
    )
    yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], **common)


def test_a_killed_coordinator_loses_no_trial_in_postgresql(problem, tmp_path, postgres) -> None:
    file = problem(WAITS.strip().replace("COUNT", "4"))
    check_that_no_trial_is_lost_and_none_run_twice(file, tmp_path, postgres, 30, 4)
