"""The program ``understudy``: its commands, and what it says and returns when one fails.

Exit codes: 0 done, 1 failed, 2 refused (a wrong option, file or column), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated

import typer

from understudy import __version__
from understudy.cli import (
    calibrate,
    compress,
    demo,
    emulate,
    export,
    extrapolate,
    fit,
    hear,
    invert,
    optimize,
    precondition,
    predict,
    prior,
    report,
    reproduce,
    sensitivity,
    serve,
    show,
    simulate,
    systems,
)
from understudy.core.errors import UserError

FAILED, REFUSED, STOPPED = 1, 2, 130
_DEBUG = "--debug"
_EXAMPLE = (
    "[bold]Example[/]\n\nunderstudy fit runs.csv --targets drag,lift -o wing.us\n\n"
    "understudy predict wing.us new.csv -o predictions.csv"
)

app = typer.Typer(
    name="understudy",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=_EXAMPLE,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    fit,
    predict,
    report,
    serve,
    export,
    show,
    sensitivity,
    optimize,
    extrapolate,
    calibrate,
    demo,
    emulate,
    prior,
    invert,
    precondition,
    hear,
    simulate,
    systems,
    compress,
    reproduce,
):
    name = command.__name__.rpartition(".")[2]
    app.command(name, epilog=command.EXAMPLE)(getattr(command, name))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"understudy {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and stop."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option(_DEBUG, help="On failure, show the traceback.")] = False,
) -> None:
    """Turn something expensive into something cheap that can be trusted."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


def main() -> None:
    """Run the program on the arguments of this process and exit."""
    arguments = [argument for argument in sys.argv[1:] if argument != _DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    code = run(arguments, debug)
    sys.exit(_flushed(code))


def run(arguments: list[str], debug: bool = False) -> int:
    """Run the program and return its exit code; a failure becomes one sentence.

    Parameters
    ----------
    arguments : list of str
        What follows the program's name.
    debug : bool
        Let a failure through, with its traceback and Python's warnings.
    """
    if not debug and not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        result = typer.main.get_command(app).main(
            arguments, prog_name="understudy", standalone_mode=False
        )
        code = result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        if debug:
            raise
        return _complain(error)
    if code == STOPPED:
        _say("stopped")
    return code


def _complain(error: Exception) -> int:
    if isinstance(error, UserError):
        _say(f"error: {error}")
        return REFUSED
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a wrong option
        _say(f"error: {error.format_message().rstrip('.')}.{_help_hint(error)}")
        return int(error.exit_code)
    text = " ".join(str(error).split())
    said = text if _is_a_sentence(error) else f"{type(error).__name__}: {text}".rstrip(": ")
    _say(f"error: {said} (run again with {_DEBUG} to see the traceback)")
    return FAILED


def _help_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f" Try '{context.command_path} --help'." if context is not None else ""


def _is_a_sentence(error: Exception) -> bool:
    """Whether an error of ours explains itself."""
    return type(error).__module__.startswith("understudy.")


def _say(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _flushed(code: int) -> int:
    """Exit code after the last output; a reader that has gone away is no failure to talk about."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or FAILED
    return code


if __name__ == "__main__":
    main()
