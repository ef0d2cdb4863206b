"""`understudy prior` learns from a folder; `understudy invert` reconstructs an image with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from understudy.cli.inverting import InversionDisplay, PriorDisplay, sparkline
from understudy.core.loop import Event
from understudy.models.inverse.plug_and_play import Moment

from .conftest import Program

pytest.importorskip("skimage")
from understudy.data.images import read_image, write_image

SMALL = ("--size", 8, "--hidden", 4, "--batch", 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(3):
        rows = draw.random(12) > 0.5
        write_image(tmp_path / f"images/{k}.png", np.tile(rows[:, None], (1, 12))[None])
    return tmp_path / "images"


@pytest.fixture
def model(program: Program, folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "prior.us"
    assert program("prior", folder, "-o", path, "--steps", 12, "-q", *SMALL).code == 0
    return path


def test_a_prior_is_learnt_shown_and_used(program: Program, folder: Path, tmp_path: Path) -> None:
    model, out, row = (tmp_path / name for name in ("prior.us", "out.png", "row.png"))
    done = program("prior", folder, "-o", model, "--steps", 12, *SMALL)
    assert done.code == 0
    assert "3 images, 12 steps; on unseen patches PSNR" in done.out
    assert "step 12 of 12, proximal matching" in done.err
    done = program(
        *("invert", model, folder / "0.png", "-a", "blur:sigma=1", "--simulate"),
        *("--noise", 0.05, "-n", 4, "-o", out, "--side-by-side", row),
    )
    assert done.code == 0
    assert "PSNR" in done.out and "iteration 4 of 4" in done.err
    assert "not converged after 4 iterations" in done.err
    assert "warning: the result is farther from the clean image" in done.err
    assert "in view" not in done.out
    assert "Image from 0.png" in out.with_suffix(".html").read_text()
    assert "Prior of images" in model.with_suffix(".html").read_text()
    assert read_image(out).shape == (1, 12, 12) and read_image(row).shape == (1, 12, 40)


def test_it_is_said_which_part_of_an_image_is_scored(
    program: Program, model: Path, folder: Path
) -> None:
    options = ("-a", "radon:angles=5", "--simulate", "-n", 2, "-o", model.with_name("x.npy"))
    done = program("invert", model, folder / "0.png", *options)
    assert "dB at the end, of the 77% of the image that is in view" in done.out
    record = program("invert", model, folder / "0.png", *options, "--json", "--force").record
    assert record["in_view"] == pytest.approx(111 / 144)  # 6 points around the centre


def test_results_are_one_json_object(program: Program, model: Path, folder: Path) -> None:
    out = model.with_name("x.npy")
    done = program("invert", model, folder / "0.png", "-a", "denoise", "-o", out, "-n", 2, "--json")
    assert done.record["iterations"] == 2 and done.record["output"] == str(out)
    assert done.record["report"] == str(out.with_suffix(".html"))
    assert done.record["warnings"][0].startswith("not converged after 2 iterations")
    assert done.err == "" or "warning" not in done.err
    assert np.load(out).shape == (1, 12, 12)
    again = model.with_name("again.us")
    record = program("prior", folder, "-o", again, "--steps", 4, "--json", *SMALL).record
    assert record["steps"] == 4 and record["interrupted"] is False
    assert record["psnr"] < record["psnr_noisy"]
    assert record["warnings"][0].startswith("it leaves more noise than there was")


def test_a_prior_is_shown(program: Program, model: Path) -> None:
    record = program("show", model, "--json").record
    assert record["shape"] == [1, 8, 8] and record["sigma"] == 0.1 and record["steps"] == 12
    assert "  shape: 1 x 8 x 8\n  sigma: 0.1\n" in program("show", model).out


def test_training_goes_on_from_its_state(program: Program, folder: Path, tmp_path: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "prior.us"
    options = ("prior", folder, "-o", path, "--checkpoint", state, "--json", "--force", *SMALL)
    first = program(*options, "--steps", 4).record
    assert state.exists() and first["steps"] == 4
    # a longer one starts where the shorter ended; one of the same length has nothing left to do
    assert program(*options, "--steps", 6).record["seconds"] >= first["seconds"]
    assert program(*options, "--steps", 6).record["steps"] == 6


def test_ctrl_c_keeps_the_iterations_that_are_done(
    program: Program, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(display: InversionDisplay, moment: Moment) -> None:
        if moment.iteration == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(InversionDisplay, "__call__", press)
    out, page = model.with_name("x.png"), model.with_name("page.html")
    done = program("invert", model, folder / "0.png", "-a", "denoise", "-o", out, "--report", page)
    assert done.code == 130 and "the iteration was interrupted" in done.err
    assert "3 iterations" in done.out and read_image(out).shape == (1, 12, 12)
    assert "The iteration was interrupted" in page.read_text()


def test_ctrl_c_keeps_the_prior_up_to_then(
    program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(display: PriorDisplay, event: Event) -> None:
        if event.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(PriorDisplay, "__call__", press)
    path = folder.parent / "prior.us"
    done = program("prior", folder, "-o", path, *SMALL)
    assert done.code == 130 and "5 steps" in done.out
    assert "Training was interrupted" in path.with_suffix(".html").read_text()
    assert program("show", path, "--json").record["steps"] == 5


def test_a_measurement_is_inverted_from_its_array(
    program: Program, model: Path, tmp_path: Path
) -> None:
    values, out = tmp_path / "y.npz", tmp_path / "x.png"
    np.savez(values, y=np.random.default_rng(0).random(16))
    done = program("invert", model, values, "-a", "cs:ratio=4", "-o", out, "-n", 3)
    assert done.code == 0 and read_image(out).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-a", "blurr:sigma=1"), "no operator is called 'blurr'"),
        (("-a", "blur:sigma=0"), "sigma of a blur must be positive"),
        (("-a", "denoise", "--noise", "0"), "the noise must be positive"),
        (("-a", "denoise", "--rho", "-1"), "rho must be positive"),
        (("-a", "denoise", "--scheme", "newton"), "no scheme is called 'newton'"),
        (("-a", "denoise", "--scheme", "pgd", "--step", "0"), "the step must be positive"),
        (("-a", "inpaint:none.png"), "none.png"),
    ],
)
def test_inversions_are_refused_in_one_sentence(
    program: Program, model: Path, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = model.with_name("x.png")
    done = program("invert", model, folder / "0.png", "-o", out, *arguments)
    assert done.code == 2 and message in done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sigma", "0"), "sigma, the noise a proximal network is trained with"),
        (("--size", "30"), "a multiple of 4, found 30"),
        (("--size", "16"), "16 x 16 are needed"),
        (("--device", "tpu"), "--device is cpu or cuda"),
    ],
)
def test_trainings_are_refused_in_one_sentence(
    program: Program, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = folder.parent / "prior.us"
    done = program("prior", folder, "-o", out, *arguments)
    assert done.code == 2 and message in done.err
    assert not out.exists()


def test_files_that_would_be_replaced_or_cannot_be_written_are_refused(
    program: Program, model: Path, folder: Path
) -> None:
    image = folder / "0.png"
    done = program("invert", model, image, "-a", "denoise", "-o", image, "--force")
    assert done.code == 2 and "would replace a file that is read" in done.err
    done = program("invert", model, image, "-a", "denoise", "-o", model.with_name("x.gif"))
    assert done.code == 2 and "can write .png, .npy" in done.err
    done = program("prior", folder, "-o", model, *SMALL)
    assert done.code == 2 and "--force replaces it" in done.err
    out = model.with_name("x.png")
    done = program("invert", model, image, "-a", "denoise", "-o", out, "--report", "x.pdf")
    assert done.code == 2 and "can write .html" in done.err
    done = program("prior", folder, "-o", model, "--force", "--report", "x.pdf", *SMALL)
    assert done.code == 2 and "can write .html" in done.err
    done = program("predict", model, model)
    assert done.code == 2


def test_a_sparkline_is_logarithmic() -> None:
    assert sparkline([1.0, 1e-1, 1e-2]) in ("█▅▁", "█▄▁")
    assert sparkline([0.5]) == "▁"
