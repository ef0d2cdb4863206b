"""Pages of reconstructed images and of priors hold their pictures and curves."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")
from PIL import Image

from understudy.models.inverse.icnn import ConvexConvNet
from understudy.models.inverse.invert import invert_file
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.prior_training import TrainedPrior
from understudy.report.image_prior import write_prior_report
from understudy.report.inversion import warnings, write_inversion_report
from understudy.report.pictures import difference, picture, stretched, tiled

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def lpn():
    """Shrinks by a fifth."""
    lpn = LearnedProximalNetwork(ConvexConvNet(size=8, hidden=2, alpha=0.4), 0.1)
    with torch.no_grad():
        for p in lpn.parameters():
            p.zero_()
    return lpn


@pytest.fixture
def inverted(lpn, tmp_path):
    def make(operator, **options):
        path = tmp_path / "clean.npy"
        np.save(path, np.random.default_rng(0).random((8, 8), dtype=np.float32))
        prior = lpn.save(tmp_path / "prior.us")
        return invert_file(prior, path, operator, noise=0.1, simulate=True, **options)

    return make


def written(found, tmp_path, scheme="admm", source="clean.npy"):
    path = write_inversion_report(
        *(found, tmp_path / "page.html"),
        **{"source": source, "model": "prior.us", "operator": "blur:sigma=1", "scheme": scheme},
    )
    return path.read_text()


def data_of(page):
    return json.loads(re.search(r'id="report-data">(.*?)</script>', page).group(1))


def pictures_of(page):
    pattern = r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)"'
    return {
        title: np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        for content, title in re.findall(pattern, page)
    }


def test_the_page_shows_the_way_from_the_data_to_the_image(inverted, tmp_path):
    found = inverted("blur:sigma=1", iterations=6)
    page = written(found, tmp_path)
    images = pictures_of(page)
    titles = ["measurement", "first guess", "reconstruction", "true image", "error"]
    assert list(images) == titles and images["measurement"].shape == (4, 4)
    expected = np.rint(255 * found.image[0].clamp(0, 1).numpy())
    np.testing.assert_array_equal(images["reconstruction"], expected)
    assert f"{found.facts['psnr']:.2f} dB" in page
    data = data_of(page)
    assert len(data["residuals"]) == len(data["misfits"]) == found.facts["iterations"]
    assert data["residuals"][-1] == pytest.approx(found.facts["residual"], rel=1e-3)
    assert data["objectives"] is None and data["curve"] is None


def test_a_measurement_that_is_no_image_is_a_curve_and_a_sinogram_is_one(inverted, tmp_path):
    page = written(inverted("cs:ratio=4", iterations=2), tmp_path)
    assert len(data_of(page)["curve"]) == 16 and "measurement" not in pictures_of(page)
    found = inverted("radon:angles=5", iterations=2)
    page = written(found, tmp_path)
    assert pictures_of(page)["measurement"].shape == (5, 8)
    assert "What is not in view" in page and "Share of the image in view" in page
    assert np.all(pictures_of(page)["error"][~found.in_view[0].numpy()] == 128)


def test_the_objective_of_a_descent_is_drawn(inverted, tmp_path):
    page = written(inverted("denoise", scheme="pgd", iterations=5, tolerance=0.0), tmp_path, "pgd")
    values = data_of(page)["objectives"]
    assert len(values) == 5 and values[1] < values[0] and max(values[1:]) - values[1] < 1e-5


def test_names_cannot_run_and_nothing_is_loaded(inverted, tmp_path):
    page = written(inverted("denoise", iterations=2), tmp_path, source=HOSTILE)
    assert HOSTILE not in page and "&lt;img src=x" in page
    head = page.split("<style>")[0]
    assert "default-src &#39;none&#39;" in head and "connect-src" not in head


def test_what_went_wrong_is_said_in_sentences():
    facts = {"interrupted": False, "diverged": False, "converged": True}
    assert warnings(facts) == []
    said = warnings(facts | {"converged": False, "iterations": 7, "residual": 0.02})
    assert said == ["not converged after 7 iterations: the last changed the image by 2.0e-02 of it"]
    said = warnings(facts | {"diverged": True, "interrupted": True, "objective_rises": 3})
    assert [text.split(" ")[2] for text in said] == ["was", "diverged;", "raised"]


def test_the_page_of_a_prior_shows_patches_and_how_unlikely_noise_is(lpn, tmp_path):
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(12, 1, 8, 8, generator=generator)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    facts = {"images": 3, "steps": 200, "interrupted": False, "psnr_noisy": 20.0, "psnr": 21.5}
    found = TrainedPrior(lpn, facts, clean, noisy, ((100, 0.5), (200, 0.25)))
    path = tmp_path / "prior.html"
    page = write_prior_report(found, path, source="photos", model="prior.us").read_text()
    images = pictures_of(page)
    assert list(images) == ["clean", "noisy", "denoised"] and images["clean"].shape == (26, 35)
    data = data_of(page)
    assert data["curve"] == {"x": [100, 200], "y": [0.5, 0.25]} and "21.50 dB" in page
    # f(y) = 0.8 y is the proximal operator of |x|^2 / 8
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 1, 8, 8, generator=draws)
    rise = (clean[:8] + 0.3 * noise).square().sum((1, 2, 3)) - clean[:8].square().sum((1, 2, 3))
    np.testing.assert_allclose([line[-1] for line in data["prior"]], rise / 8 / 0.01, rtol=2e-3)
    assert [line[0] for line in data["prior"]] == [0.0] * 8


def test_pictures_are_enlarged_by_whole_numbers_and_shrunk_to_the_page():
    assert [picture("x", torch.zeros(1, 8, n))["width"] for n in (8, 100, 1000)] == [240, 200, 520]
    assert picture("x", torch.zeros(3, 50, 100))["height"] == 100


def test_values_are_stretched_and_errors_are_about_grey():
    torch.testing.assert_close(stretched(torch.tensor([2.0, 4.0, 3.0])), torch.tensor([0, 1, 0.5]))
    torch.testing.assert_close(stretched(torch.ones(2)), torch.full((2,), 0.5))
    gap, largest = difference(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.25]))
    assert largest == 0.5
    torch.testing.assert_close(gap, torch.tensor([1.0, 0.25]))


def test_tiles_are_in_rows_with_white_between():
    tiles = tiled(torch.arange(3.0).reshape(3, 1, 1, 1), columns=2)
    assert tiles.tolist() == [[[0.0, 1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0]]]
