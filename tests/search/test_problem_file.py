"""A problem file is read into a problem, or refused in one sentence; its objective is run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from understudy.core.errors import UserError
from understudy.core.objective import RunError, parse_printed
from understudy.core.search import Constraint, Objective
from understudy.core.space import Categorical, Continuous, Integer
from understudy.search.problem_file import read_problem

INPUTS = """
[inputs]
angle = { type = "continuous", lower = -2, upper = 8, unit = "deg" }
ribs = { type = "integer", lower = 2, upper = 12 }
skin = { type = "categorical", choices = ["thin", "thick"] }
"""
OBJECTIVES = '[objectives]\ndrag = "minimize"\n'
PYTHON = '[run]\npython = "wing:drag"\n'
WING = """
def drag(angle, ribs, skin):
    print("flying")
    return angle**2 + ribs

def both(config):
    return {"drag": config["angle"], "lift": 2.0}

def broken(angle, ribs, skin):
    raise ValueError("no lift")

def wrong(span, chord):
    return 0.0
"""
CONFIG = {"angle": 1.5, "ribs": 3, "skin": "thin"}


@pytest.fixture
def problem(tmp_path, monkeypatch):
    """Return a function that writes a problem file and reads it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "wing", raising=False)
    (tmp_path / "wing.py").write_text(WING)

    def read(*parts: str):
        path = tmp_path / "problem.toml"
        path.write_text("\n".join(parts))
        return read_problem(path)

    return read


def test_inputs_objectives_and_constraints_are_read(problem) -> None:
    read = problem(
        INPUTS,
        '[objectives]\ndrag = "minimize"\nlift = { direction = "maximize", reference = 2 }\n',
        "[constraints]\nstress = { upper = 250 }\nlift = { lower = 1, upper = 9.5 }\n",
        '[run]\npython = "wing:both"\ntimeout = "2m"\n',
    )
    assert read.name == "problem"
    assert read.problem.space.inputs == (
        Continuous("angle", -2, 8, unit="deg"),
        Integer("ribs", 2, 12),
        Categorical("skin", ("thin", "thick")),
    )
    assert read.problem.objectives == (Objective("drag"), Objective("lift", "maximize", 2.0))
    assert read.problem.constraints == (
        Constraint("stress", upper=250.0),
        Constraint("lift", 1.0, 9.5),
    )
    assert read.run.timeout == 120.0
    assert read.run.outcomes == ("drag", "lift", "stress")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((INPUTS, OBJECTIVES), r"there is no section \[run\]"),
        ((INPUTS.replace("8,", "-8,"), OBJECTIVES, PYTHON), "lower bound -2.0 must be below"),
        ((INPUTS.replace("8,", "inf,"), OBJECTIVES, PYTHON), "bounds must be finite"),
        ((INPUTS.replace("12 }", "inf }"), OBJECTIVES, PYTHON), "bounds must be finite"),
        ((INPUTS.replace("12 }", "11.5 }"), OBJECTIVES, PYTHON), "must be whole numbers"),
        ((INPUTS.replace("8,", "'high',"), OBJECTIVES, PYTHON), "upper must be a number.*'high'"),
        ((INPUTS.replace("lower = 2, ", ""), OBJECTIVES, PYTHON), "'ribs' has no lower bound"),
        ((INPUTS.replace('"integer"', '"integr"'), OBJECTIVES, PYTHON), "did you mean 'integer'"),
        ((INPUTS.replace('"integer"', '"float"'), OBJECTIVES, PYTHON), "mean 'continuous'"),
        ((INPUTS.replace('type = "integer", ', ""), OBJECTIVES, PYTHON), "'ribs' has no type"),
        ((INPUTS.replace("unit", "units"), OBJECTIVES, PYTHON), "no key 'units'; did you mean"),
        ((INPUTS.replace(', "thick"', ""), OBJECTIVES, PYTHON), "at least two distinct choices"),
        ((INPUTS, 'angle = { type = "integer" }', OBJECTIVES), "a name is given twice"),
        ((INPUTS, "[objectives]\nangle = 'minimize'\n", PYTHON), "'angle' is an input and an out"),
        ((INPUTS, "[objectives]\ndrag = {}\n", PYTHON), "objective 'drag' has no direction"),
        (
            (INPUTS, "[objectives]\ndrag = {direction = 'minimize', reference = 'x'}\n", PYTHON),
            "reference must be a number, found 'x'",
        ),
        (
            (INPUTS, "[objectives]\ndrag = {direction = 'minimize', reference = nan}\n", PYTHON),
            "reference must be finite",
        ),
        ((INPUTS, '[objectives]\ndrag = "minimise"\n', PYTHON), "did you mean 'minimize'"),
        ((INPUTS, "[objectives]\n", PYTHON), "at least one objective"),
        ((INPUTS, OBJECTIVES, "[constraints]\nstress = 3\n", PYTHON), "constraint 'stress' is {"),
        ((INPUTS, OBJECTIVES, "[constraints]\ng = { upper = 'x' }\n", PYTHON), "must be a number"),
        ((INPUTS, OBJECTIVES, PYTHON, "[runs]\n"), "no key 'runs'; did you mean 'run'"),
        ((INPUTS, OBJECTIVES, "[run]\n"), "found neither"),
        ((INPUTS, OBJECTIVES, PYTHON, 'command = "x"\n'), "found both"),
        ((INPUTS, OBJECTIVES, '[run]\npython = "wing"\n'), "python is 'module:function'"),
        ((INPUTS, OBJECTIVES, '[run]\npython = "wing:darg"\n'), "'darg'; did you mean 'drag'"),
        ((INPUTS, OBJECTIVES, '[run]\npython = "wings:drag"\n'), "'wings'; did you mean 'wing'"),
        ((INPUTS, OBJECTIVES, '[run]\npython = "wing:wrong"\n'), "takes neither the inputs"),
        ((INPUTS, OBJECTIVES, PYTHON, "timeout = 'soon'\n"), "timeout is a positive time"),
        ((INPUTS, OBJECTIVES, PYTHON, "timeout = 0\n"), "timeout is a positive time"),
        ((INPUTS, OBJECTIVES, "[run]\ncommand = 'true {angel}'\n"), "mean 'angle'"),
        ((INPUTS, OBJECTIVES, "[run]\ncommand = 'true {angle}'\n"), "input 'ribs' is not used"),
        ((INPUTS, OBJECTIVES, "[run]\ncommand = 'true {angle'\n"), "brace"),
        ((INPUTS, OBJECTIVES, "[run]\ncommand = './absent {input_file}'\n"), "no program"),
        ((INPUTS, OBJECTIVES, '[run]\ncommand = ""\n'), "command is empty"),
        (("this is not TOML",), "is not valid TOML"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(problem, parts, words: str) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        problem(*parts)
    assert "problem.toml: " in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_function_gets_the_inputs_by_name_and_its_print_is_kept(problem, tmp_path) -> None:
    run = problem(INPUTS, OBJECTIVES, PYTHON).run
    assert run(CONFIG, "00001") == {"drag": 5.25}
    kept = tmp_path / "problem-trials" / "00001"
    assert (kept / "stdout.txt").read_text() == "flying\n"
    assert not (kept / "stderr.txt").exists()


def test_a_function_of_one_argument_gets_a_dict(problem) -> None:
    objectives = '[objectives]\ndrag = "minimize"\nlift = "maximize"\n'
    run = problem(INPUTS, objectives, '[run]\npython = "wing:both"\n').run
    assert run(CONFIG, "1") == {"drag": 1.5, "lift": 2.0}


def test_a_function_that_raises_says_what_and_leaves_its_traceback(problem, tmp_path) -> None:
    run = problem(INPUTS, OBJECTIVES, '[run]\npython = "wing:broken"\nfolder = "kept"\n').run
    with pytest.raises(RunError, match=r"^raised ValueError: no lift$"):
        run(CONFIG, "1")
    assert "no lift" in (tmp_path / "kept" / "1" / "stderr.txt").read_text()


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("float('nan')", "returned nan as 'drag'"),
        ("float('inf')", "returned inf as 'drag'"),
        ("None", "returned None as 'drag', which is not a number"),
        ("'12'", "which is not a number"),
        ("[1.0, 2.0, 3.0]", r"returned \[1.0, 2.0, 3.0\] as 'drag'"),
        ("__import__('numpy').zeros((2, 2))", r"an array of shape \(2, 2\)"),
        ("{'darg': 1.0}", "returned no 'drag'; it returned 'darg'"),
    ],
)
def test_a_value_of_the_wrong_kind_or_shape_fails_the_run(
    problem, tmp_path, returned: str, words: str
) -> None:
    (tmp_path / "wing.py").write_text(f"def drag(**inputs):\n    return {returned}\n")
    with pytest.raises(RunError, match=words):
        problem(INPUTS, OBJECTIVES, PYTHON).run(CONFIG, "1")


PROGRAM = """
import json, os, sys
print("solver starts")
print("warning: cold", file=sys.stderr)
{body}
"""


@pytest.fixture
def solver(problem, tmp_path):
    """Return a function that makes a run of a program with a body."""

    def make(body: str, arguments: str, more: str = ""):
        (tmp_path / "solve.py").write_text(PROGRAM.format(body=body))
        command = f"command = '{{python}} {{here}}/solve.py {arguments}'"
        return problem(INPUTS, OBJECTIVES, "[run]", command, more).run

    return make


def test_inputs_come_on_the_command_line_and_outcomes_as_the_last_json_line(solver) -> None:
    body = (
        'print(json.dumps({"drag": 0}))\n'
        'print(json.dumps({"drag": float(sys.argv[1]) + int(sys.argv[2]), "skin": sys.argv[3]}))\n'
        'print("done")'
    )
    assert solver(body, "{angle} {ribs} {skin}")(CONFIG, "1") == {"drag": 4.5}


def test_inputs_come_in_a_file_and_outcomes_go_to_one(solver, tmp_path) -> None:
    body = (
        "inputs = json.load(open(sys.argv[1]))\n"
        'json.dump({"drag": inputs["angle"] * inputs["ribs"]}, open(sys.argv[2], "w"))'
    )
    run = solver(body, "{input_file} {output_file}")
    assert run(CONFIG, "00007") == {"drag": 4.5}
    kept = tmp_path / "problem-trials" / "00007"
    assert json.loads((kept / "inputs.json").read_text()) == CONFIG
    assert (kept / "stdout.txt").read_text() == "solver starts\n"
    assert (kept / "stderr.txt").read_text() == "warning: cold\n"
    assert json.loads((kept / "outputs.json").read_text()) == {"drag": 4.5}


def test_files_may_have_names_of_their_own_and_runs_are_where_they_are(solver) -> None:
    body = (
        'inputs = json.load(open("in.json"))\n'
        'json.dump({"drag": inputs["angle"]}, open("out.json", "w"))'
    )
    run = solver(body, "{input_file}", "input_file = 'in.json'\noutput_file = 'out.json'")
    assert run(CONFIG, "1") == {"drag": 1.5}


def test_the_environment_is_set_and_words_are_not_split_again(solver) -> None:
    body = (
        'assert sys.argv[1:] == ["a thick skin", "1.500", "3"], sys.argv\n'
        'print("drag =", os.environ["MESH"])'
    )
    run = solver(body, '"a {skin} skin" {angle:.3f} {ribs}', "environment = { MESH = 40 }")
    assert run({**CONFIG, "skin": "thick"}, "1") == {"drag": 40.0}


def test_a_program_that_fails_says_how_and_its_last_words(solver) -> None:
    run = solver("sys.exit('mesh: inverted element')", "{input_file}")
    with pytest.raises(RunError, match="ended with exit code 1; its last line: mesh: inverted"):
        run(CONFIG, "1")
    run = solver("os.kill(os.getpid(), 11)", "{input_file}")
    with pytest.raises(RunError, match="was killed by SIGSEGV"):
        run(CONFIG, "2")


def test_a_program_without_an_outcome_says_what_is_accepted(solver) -> None:
    with pytest.raises(RunError, match="printed no 'drag'; accepted are JSON"):
        solver("pass", "{input_file}")(CONFIG, "1")
    with pytest.raises(RunError, match=r"wrote no file outputs\.json"):
        solver("pass", "{input_file} {output_file}")(CONFIG, "2")


def test_a_repeated_run_gets_a_folder_of_its_own(problem, tmp_path) -> None:
    run = problem(INPUTS, OBJECTIVES, PYTHON).run
    run(CONFIG, "00001")
    run(CONFIG, "00001")
    kept = tmp_path / "problem-trials"
    assert sorted(path.name for path in kept.iterdir()) == ["00001", "00001.2"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"drag": 1}\nbye', {"drag": 1}),
        ('{\n  "drag": 2\n}', {"drag": 2}),
        ("drag = 1\nlift: 3e2\ndrag = 4.5", {"drag": 4.5, "lift": 300.0}),
        ("  drag : 1.5D-01,", {"drag": 0.15}),
        ('{"other": 1}\ndrag=7', {"drag": 7.0}),
        ("drag = much", {"drag": "much"}),
    ],
)
def test_outcomes_are_found_in_what_is_printed(text: str, found: dict) -> None:
    assert parse_printed(text, ("drag", "lift")) == found


def test_a_bare_number_is_the_only_outcome() -> None:
    assert parse_printed("iterations\n12\n0.25\nbye", ("drag",)) == 0.25
    with pytest.raises(RunError, match="printed no 'drag', 'lift'"):
        parse_printed("0.25", ("drag", "lift"))


def test_the_example_is_read_and_can_be_run(tmp_path) -> None:
    example = Path(__file__).parents[2] / "examples" / "optimize" / "problem.toml"
    file = read_problem(example)
    run = replace(file.run, folder=tmp_path)
    config = {"width": 100.0, "height": 150.0, "wall": 5.0, "material": "steel"}
    assert file.problem.feasible(run(config, "1"))
