"""``understudy calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import Json, Model, Quiet, Seed, readable, writable
from understudy.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from understudy.core.progress import Progress
    from understudy.search.approximation_error import ApproximationError
    from understudy.search.calibrate import Calibration, Ranks, SurrogateModel
    from understudy.search.field_calibration import FieldCalibration
    from understudy.search.priors import PriorFile

EXAMPLE = (
    "[bold]Example[/]\n\nunderstudy calibrate cell.us measured.csv --prior prior.toml -o cell.html"
)
_PAGES = (".html", ".htm")
_TABLES = (".csv", ".tsv", ".parquet", ".pq")


def calibrate(
    model: Model,
    measurement: Annotated[
        Path,
        typer.Argument(
            metavar="MEASUREMENT",
            help="Table with measured outputs and the inputs that are known; of an operator, with "
            "columns x, y and u.",
            show_default=False,
        ),
    ],
    prior: Annotated[
        Path | None,
        typer.Option(
            "--prior",
            "-p",
            help="TOML file with a prior of each parameter, and noise; not for an operator.",
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Deviation of the readings, of an operator that infers fields."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="map, vi or hmc, of an operator that infers fields.")
    ] = "hmc",
    checks: Annotated[
        Path | None,
        typer.Option(
            "--checks",
            help="Table of 8 or more further runs of the solver at the measured conditions: the "
            "surrogate's error is then part of the likelihood.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Page with plots (.html) or table of the draws (.csv) to write."
        ),
    ] = None,
    chains: Annotated[int, typer.Option(min=1, help="Chains, from starts of their own.")] = 4,
    samples: Annotated[int, typer.Option(min=4, help="Draws of each chain to keep.")] = 500,
    burn_in: Annotated[int, typer.Option(min=0, help="Draws of each chain before those.")] = 200,
    file: Annotated[
        Path | None,
        typer.Option(
            "--chains-file",
            help="File (.us) of the chains; an interrupted run goes on from it.",
        ),
    ] = None,
    check: Annotated[
        int,
        typer.Option(
            "--check",
            min=0,
            help="Also calibrate so many simulated measurements and rank truths.",
        ),
    ] = 0,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Infer parameters from a measurement, or a field from sensors."""
    model, measurement = readable(model), readable(measurement)
    if _holds_operator(model):
        if output is not None:
            output = _output(output, (model, measurement))
        if prior is not None or checks is not None or check or file is not None:
            raise UserError(
                "--prior, --checks, --check and --chains-file are of surrogates, not of operators"
            )
        field = _field(model, measurement, noise, method, (chains, burn_in, samples, seed))
        _tell_field(field, output, measurement.name, model.name, json, quiet)
        return
    if prior is None or noise is not None:
        raise UserError("a surrogate needs --prior, a TOML file, which says the noise as well")
    read: tuple[Path, ...] = (model, measurement, prior := readable(prior))
    if checks is not None:
        read = (*read, checks := readable(checks))
    if output is not None:
        output = _output(output, read)
    if file is not None:
        file = writable(file, "--chains-file", others=read)
    import understudy
    from understudy.search.calibrate import (
        FieldPrior,
        read_measurement,
        simulation_based_calibration,
    )
    from understudy.search.calibrate import calibrate as infer
    from understudy.search.priors import read_priors

    priors = read_priors(prior)
    if priors.density is not None and check:
        raise UserError("--check draws from priors of single parameters, not from a [field]")
    table = understudy.read_table(measurement)
    of, y = read_measurement(_surrogate(model), table, list(priors.parameters))
    field_prior = None
    if priors.density is not None:
        field_prior = FieldPrior.load(priors.density, len(priors.parameters))
    error = None if checks is None else _error(of, checks, priors)
    listener = None if quiet or json else _Said()
    found = infer(
        *(of, y, priors.parameters, priors.noise, chains, burn_in, samples, seed),
        file=file,
        listener=listener,
        log_prior=field_prior,
        error=error,
    )
    ranks = None
    if check:
        given = {name: priors.noise.get(name, found.noise[name]) for name in of.outputs}
        known = {n: found.noise[n] if isinstance(v, str) else v for n, v in given.items()}
        ranks = simulation_based_calibration(
            of, priors.parameters, known, check, seed=seed, listener=listener, error=error
        )
    if output is not None:
        _write(found, output, measurement.name, model.name, of, table)
    if json:
        _print_json(found, ranks, output)
    elif not quiet:
        _print(found, ranks, output)


def _holds_operator(path: Path) -> bool:
    from understudy.core.artifact import kind_of

    return kind_of(path) == "operator"


def _field(
    model: Path,
    measurement: Path,
    noise: float | None,
    method: str,
    sampling: tuple[int, int, int, int],
) -> FieldCalibration:
    """Field behind readings of sensors."""
    import understudy
    from understudy.models.operators.dgno import DeepGenerativeNeuralOperator
    from understudy.search.field_calibration import calibrate_field, read_sensors

    operator = understudy.load_operator(model)
    if not isinstance(operator, DeepGenerativeNeuralOperator):
        raise UserError(
            f"{model} holds an operator of the kind {operator.model!r}, which infers nothing; a "
            "'dgno' does"
        )
    if noise is None:
        raise UserError("an operator needs --noise, the deviation of the readings")
    if method not in ("map", "vi", "hmc"):
        raise UserError(f"--method must be map, vi or hmc, found {method!r}")
    sensors = read_sensors(understudy.read_table(measurement))
    return calibrate_field(operator, sensors, noise, method, *sampling)  # type: ignore[arg-type]


def _tell_field(
    found: FieldCalibration, output: Path | None, source: str, model: str, json: bool, quiet: bool
) -> None:
    from understudy.cli.console import percent, print_json, say
    from understudy.cli.summary import print_file

    if output is not None:
        if output.suffix.lower() in _TABLES:
            from understudy.data.readers import write_table

            write_table(found.table(), output)
        else:
            from understudy.report.field_calibration import write_field_report

            write_field_report(found, output, source=source, model=model)
    if json:
        record = {
            "sensors": len(found.sensors.y),
            "noise": found.noise,
            "explained_90": found.explained,
            "decided": found.decided,
            "mean": found.mean.tolist(),
            "sd": found.sd.tolist(),
            "warnings": found.warnings(),
            "output": output and str(output),
        }
        print_json(record)
    elif not quiet:
        low, high = found.range
        if found.phases is None:
            say(f"the field goes from {low:.4g} to {high:.4g} in the mean")
        else:
            share = float((found.mean - low).mean()) / (high - low)
            say(f"{percent(share)} of the field is {high:g}, the rest {low:g}, in the mean")
        say(f"{percent(found.decided)} of the cells are decided: {found.criterion}")
        say(f"{percent(found.explained)} of the readings are within their 90 % intervals")
        for text in found.warnings():
            say(f"warning: {text}", stderr=True)
        if output is not None:
            print_file(output)


def _surrogate(path: Path) -> Any:
    """Surrogate of a table, or network of a cell's equations."""
    import understudy
    from understudy.core.artifact import kind_of
    from understudy.models.physics.battery import KIND
    from understudy.models.physics.stored import load_network

    return load_network(path) if kind_of(path) == KIND else understudy.load(path)


def _error(model: SurrogateModel, path: Path, priors: PriorFile) -> ApproximationError:
    """Error of the surrogate in a table of further runs."""
    import understudy
    from understudy.search.approximation_error import ApproximationError
    from understudy.search.measurement import read_checks

    table = understudy.read_table(path)
    try:
        return ApproximationError.of(model, read_checks(model, table, priors.parameters))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


class _Said:
    """Says each quarter of the sampling on the error stream."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        from understudy.cli.console import say

        stage, _, rest = progress.message.partition(" ")
        done, _, of = rest.split(",")[0].partition(" of ")
        quarter = f"{stage} {4 * int(done) // max(int(of), 1)}"
        if quarter != self._last:
            self._last = quarter
            say(f"{progress.elapsed:6.1f} s  {progress.message}", stderr=True)


def _output(path: Path, others: tuple[Path, ...]) -> Path:
    if path.suffix.lower() not in (*_PAGES, *_TABLES):
        raise UserError(
            f"--output {path}: can write .html, .csv, .tsv, .parquet, found "
            f"{path.suffix or 'no suffix'}"
        )
    return writable(path, "--output", others=others)


def _write(
    found: Calibration,
    path: Path,
    source: str,
    model: str,
    of: SurrogateModel,
    table: pd.DataFrame,
) -> None:
    if path.suffix.lower() in _TABLES:
        import pandas as pd

        from understudy.data.readers import write_table

        flat = found.draws.reshape(-1, len(found.names))
        write_table(pd.DataFrame(flat.numpy(), columns=list(found.names)), path)
        return
    from understudy.report.calibration import write_calibration_report

    names = [name for name in table.columns if str(name).lower().startswith("time")]
    along = (str(names[0]), table[names[0]].astype(float).tolist()) if names else None
    write_calibration_report(
        found, path, source=source, model=model, outputs=of.outputs, along=along
    )


def _print_json(found: Calibration, ranks: Ranks | None, output: Path | None) -> None:
    from understudy.cli.console import print_json, records

    record: dict[str, Any] = {
        "parameters": records(found.table()),
        "correlations": found.correlations.tolist(),
        "noise": found.noise,
        "coverage_90": found.coverage,
        "p_value": found.p_value,
        "error": found.error or None,
        "warnings": found.warnings(),
        "check": None if ranks is None else records(ranks.table()),
        "output": output and str(output),
    }
    print_json(record)


def _print(found: Calibration, ranks: Ranks | None, output: Path | None) -> None:
    from understudy.cli.console import percent, print_table, records, say
    from understudy.cli.summary import print_file

    lines = records(found.table())
    for line in lines:
        line["sd_of_prior"] = percent(line["sd_of_prior"])
        line["ess"] = f"{line['ess']:.0f}"
        line["r_hat"] = f"{line['r_hat']:.3f}"
        line["sd"] = f"{line['sd']:.3g}"
    headings = {
        "parameter": "parameter",
        "mean": "mean",
        "sd": "sd",
        "lower_90": "5 %",
        "upper_90": "95 %",
        "sd_of_prior": "prior",
        "r_hat": "R-hat",
        "ess": "ESS",
    }
    print_table(lines, headings, left=("parameter",))
    noise = ", ".join(f"{name} {value:.4g}" for name, value in found.noise.items())
    say(f"noise: {noise}")
    if found.error:
        say(found.error)
    say(
        f"{percent(found.coverage)} of the measured values are within their 90 % intervals; "
        f"posterior predictive p = {found.p_value:.2f}"
    )
    for text in found.warnings():
        say(f"warning: {text}", stderr=True)
    if ranks is not None:
        say()
        columns = {
            "parameter": "parameter",
            "chi_square": "chi-square",
            "p_value": "p",
            "coverage_90": "covered by 90 %",
        }
        print_table(records(ranks.table()), columns, left=("parameter",))
        say(f"{len(ranks.ranks)} simulated measurements; a small p says that posteriors are wrong")
    if output is not None:
        print_file(output)
