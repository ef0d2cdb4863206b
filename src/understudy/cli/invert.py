"""``understudy invert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import Json, Model, Quiet, Seed, readable, writable
from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.models.inverse.invert import Inverted

EXAMPLE = "[bold]Example[/]\n\nunderstudy invert prior.us blurred.png -a blur:sigma=1 -o sharp.png"
_SUFFIXES = (".png", ".npy")
_PAGES = (".html", ".htm")
STOPPED = 130


def invert(
    model: Model,
    measurement: Annotated[
        Path,
        typer.Argument(
            metavar="MEASUREMENT",
            help="Image, or array (.npy, .npz) of measured values.",
            show_default=False,
        ),
    ],
    operator: Annotated[
        str,
        typer.Option(
            "--operator",
            "-a",
            help="denoise, blur:sigma=1, inpaint:mask.png, cs:ratio=4, radon:angles=60, "
            "matrix:A.npy",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Image (.png or .npy) to write.", show_default=False),
    ],
    noise: Annotated[
        float | None,
        typer.Option(help="Deviation of the noise of the measurement, by which data are weighed."),
    ] = None,
    scheme: Annotated[str, typer.Option(help="admm, pgd or hqs.")] = "admm",
    iterations: Annotated[int, typer.Option("--iterations", "-n", min=1, help="At most.")] = 100,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Relative change at which it is done.")
    ] = 1e-4,
    rho: Annotated[float, typer.Option(help="Of admm and hqs.")] = 0.1,
    scale: Annotated[
        float | None, typer.Option(help="Weight of the data in admm and hqs, instead of --noise.")
    ] = None,
    step: Annotated[
        float | None, typer.Option(help="Step of pgd; just below its bound by default.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Between patches of larger images; half a patch by default."),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate", help="The file is a clean image: measure it first, with --noise."
        ),
    ] = False,
    side_by_side: Annotated[
        Path | None,
        typer.Option(help="Image (.png) to write of the start, the result and the clean image."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Page (.html) to write; beside the output by default."),
    ] = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Reconstruct an image from a measurement, by a learned prior."""
    model, measurement = readable(model), readable(measurement)
    output = _image(output, "--output", _SUFFIXES, force, model, measurement)
    if side_by_side is not None:
        side_by_side = _image(side_by_side, "--side-by-side", (".png",), force, measurement, output)
    page = report or output.with_suffix(".html")
    page = _image(page, "--report", _PAGES, force, model, measurement, output)
    from understudy.cli.inverting import InversionDisplay
    from understudy.models.inverse.invert import invert_file, write_result, write_side_by_side
    from understudy.report.inversion import write_inversion_report

    with InversionDisplay(f"Inverting {operator} by {scheme}", quiet or json) as display:
        found = invert_file(
            *(model, measurement, operator),
            noise=noise,
            scheme=scheme,
            iterations=iterations,
            tolerance=tolerance,
            rho=rho,
            scale=scale,
            step=step,
            stride=stride,
            simulate=simulate,
            seed=seed,
            listener=display,
            interrupt="return",
        )
    write_result(found, output)
    if side_by_side is not None:
        write_side_by_side(found, side_by_side)
    write_inversion_report(
        *(found, page),
        source=measurement.name,
        model=model.name,
        operator=operator,
        scheme=scheme,
    )
    written = {"output": output, "side_by_side": side_by_side, "report": page}
    _print(found, written, json, quiet)
    return STOPPED if found.facts["interrupted"] else 0


def _image(path: Path, option: str, suffixes: tuple[str, ...], force: bool, *others: Path) -> Path:
    if path.suffix.lower() not in suffixes:
        raise UserError(
            f"{option} {path}: can write {', '.join(suffixes)}, found {path.suffix or 'no suffix'}"
        )
    return writable(path, option, force, others)


def _print(found: Inverted, written: dict[str, Path | None], json: bool, quiet: bool) -> None:
    from understudy.cli.console import print_json, say
    from understudy.cli.summary import print_file
    from understudy.report.inversion import warnings

    facts: dict[str, Any] = found.facts
    warned = warnings(facts)
    if json:
        paths = {name: path and str(path) for name, path in written.items()}
        print_json({**paths, **facts, "warnings": warned})
        return
    for text in warned:
        say(f"warning: {text}", stderr=True)
    if quiet:
        return
    say(
        f"{facts['iterations']} iterations, last change {facts['residual']:.1e}, "
        f"misfit of the data {facts['misfit']:.3g}"
    )
    if "psnr" in facts:
        said = f"PSNR {facts['psnr_start']:.2f} dB at the start, {facts['psnr']:.2f} dB at the end"
        part = f", of the {facts['in_view']:.0%} of the image that is in view"
        say(said + (part if facts["in_view"] < 1.0 else ""))
    for path in written.values():
        if path is not None:
            print_file(path)
