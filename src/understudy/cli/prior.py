"""``understudy prior``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import Device, Json, Quiet, Seed, check_device, saved, writable
from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.models.inverse.prior_training import TrainedPrior

EXAMPLE = "[bold]Example[/]\n\nunderstudy prior photographs/ --sigma 0.1 -o prior.us"
STOPPED = 130
_UNFIT = "it leaves more noise than there was, so it cannot be used yet; train it for more --steps"


def prior(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder of clean images.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File (.us) to write.", show_default=False)
    ],
    sigma: Annotated[
        float, typer.Option(help="Deviation of the noise it learns to remove; images are 0 to 1.")
    ] = 0.1,
    size: Annotated[
        int, typer.Option(help="Height and width of what it sees, a multiple of 4.")
    ] = 32,
    color: Annotated[bool, typer.Option("--color", help="Three channels instead of grey.")] = False,
    hidden: Annotated[int, typer.Option(min=1, help="Features of each layer.")] = 16,
    steps: Annotated[
        int, typer.Option(min=2, help="Steps; half with absolute error, half proximal matching.")
    ] = 8000,
    batch: Annotated[int, typer.Option(min=1, help="Patches of a step.")] = 64,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="Mirror and turn patches at random.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File of the state; where it exists, training goes on from it."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Page (.html) to write; beside the output by default."),
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Learn a prior of images, as an exact proximal operator."""
    output = writable(output, "--output", force)
    if checkpoint is not None:
        checkpoint = writable(checkpoint, "--checkpoint", others=[output])
    page = _page(report or output.with_suffix(".html"), force)
    check_device(device)
    from understudy.cli.inverting import PriorDisplay
    from understudy.models.inverse.prior_training import prior_schedule, train_prior
    from understudy.report.image_prior import write_prior_report

    channels = 3 if color else 1
    schedule = prior_schedule(channels * size * size, steps)
    with PriorDisplay(schedule, quiet or json) as display:
        found = train_prior(
            *(folder, sigma),
            size=size,
            channels=channels,
            hidden=hidden,
            schedule=schedule,
            batch_size=batch,
            symmetric=symmetric,
            checkpoint=checkpoint,
            device=device,
            seed=seed,
            listener=display,
        )
    saved(lambda path: found.lpn.save(path, found.facts), output)
    write_prior_report(found, page, source=folder.resolve().name, model=output.name)
    _print(found, output, page, json, quiet)
    return STOPPED if found.facts["interrupted"] else 0


def _page(path: Path, force: bool) -> Path:
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--report {path}: can write .html, found {path.suffix or 'no suffix'}")
    return writable(path, "--report", force)


def _print(found: TrainedPrior, output: Path, page: Path, json: bool, quiet: bool) -> None:
    from understudy.cli.console import print_json, say
    from understudy.cli.summary import print_file

    facts: dict[str, Any] = found.facts
    said = [_UNFIT] if facts["psnr"] <= facts["psnr_noisy"] else []
    if json:
        print_json({"output": str(output), "report": str(page), **facts, "warnings": said})
        return
    for text in said:
        say(f"warning: {text}", stderr=True)
    if quiet:
        return
    if facts["interrupted"]:
        say("training was interrupted; the best state up to then is kept", stderr=True)
    say(
        f"{facts['images']} images, {facts['steps']:,} steps; on unseen patches PSNR "
        f"{facts['psnr_noisy']:.2f} dB noisy, {facts['psnr']:.2f} dB denoised"
    )
    print_file(output)
    print_file(page)
