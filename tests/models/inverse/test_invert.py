"""Images and operators by name, patches to learn from, and one image from its file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from understudy.core.errors import UserError
from understudy.models.inverse.icnn import ConvexConvNet, InputConvexNet
from understudy.models.inverse.image_patches import ImagePatches
from understudy.models.inverse.imaging_operators import (
    CompressedSensing,
    GaussianBlur,
    Identity,
    Inpainting,
    MatrixOperator,
    Radon,
)
from understudy.models.inverse.invert import invert_file, write_result, write_side_by_side
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.named_operators import named_operator, read_measurement
from understudy.models.inverse.prior_training import image_network, prior_schedule, train_prior
from understudy.models.inverse.proximal_matching import ProximalMatchingLoss, Stage

SHAPE = (1, 8, 8)


@pytest.fixture
def model(tmp_path):
    """A prior that shrinks by a fifth: f(y) = 0.8 y."""
    lpn = LearnedProximalNetwork(ConvexConvNet(size=8, hidden=2, alpha=0.4), 0.1)
    with torch.no_grad():
        for p in lpn.parameters():
            p.zero_()
    return lpn.save(tmp_path / "prior.us")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, np.random.default_rng(0).random((8, 8), dtype=np.float32))
    return path


@pytest.mark.parametrize(
    ("text", "measured", "kind", "shape"),
    [
        ("denoise", (8, 9), Identity, (1, 8, 9)),
        ("blur:sigma=1", (8, 9), GaussianBlur, (1, 12, 13)),
        ("cs:ratio=4", (16,), CompressedSensing, SHAPE),
        ("cs:measurements=10,seed=3", (10,), CompressedSensing, SHAPE),
        ("radon:angles=6", (6, 12), Radon, (1, 12, 12)),
    ],
)
def test_operators_have_names(text, measured, kind, shape):
    A = named_operator(text, SHAPE, measured=measured)
    assert type(A) is kind and A.image_shape == shape


def test_operators_are_read_from_files(tmp_path):
    mask, matrix = tmp_path / "mask.npy", tmp_path / "A.npz"
    np.save(mask, np.eye(8))
    np.savez(matrix, A=np.ones((3, 64)))
    assert type(named_operator(f"inpaint:{mask}", SHAPE, measured=(8, 8))) is Inpainting
    assert type(named_operator(f"matrix:{matrix}", SHAPE, measured=(3,))) is MatrixOperator
    with pytest.raises(UserError, match=r"has 8 x 8 points, the image 9 x 8"):
        named_operator(f"inpaint:{mask}", SHAPE, measured=(9, 8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blurr:sigma=1", "did you mean 'blur'"),
        ("blur", "blur needs sigma="),
        ("blur:sigma=wide", "sigma must be a number"),
        ("blur:width=3", "blur takes sigma=, found 'width=3'"),
        ("blur:sigma=0", "sigma of a blur must be positive"),
        ("denoise:sigma=1", "denoise takes no options"),
        ("cs:ratio=0.5", "must be at least 1"),
        ("cs:measurements=2.5", "must be a whole number"),
        ("cs:measurements=65", "between 1 and 64"),
        ("inpaint", "inpaint needs a file"),
        ("radon:angles=0", "at least 1 angle"),
    ],
)
def test_operators_that_cannot_be_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        named_operator(text, SHAPE, measured=(8, 8))


def test_measurements_that_are_no_numbers_are_refused(tmp_path):
    two, text, bad = (tmp_path / name for name in ("two.npz", "text.npy", "bad.npy"))
    np.savez(two, a=np.ones(2), b=np.ones(2))
    text.write_text("hello")
    np.save(bad, np.array([1.0, np.nan]))
    for path, message in ((two, "must hold one array"), (text, "no array"), (bad, "not finite")):
        with pytest.raises(UserError, match=message):
            read_measurement(path)


def test_an_image_is_denoised_as_the_schemes_say(model, image):
    # with f(y) = 0.8 y the prior is |x|^2 / 8; pgd minimises |x - y|^2 / 2 + |x|^2 / 8 eta
    y = torch.as_tensor(np.load(image))
    found = invert_file(model, image, "denoise", scheme="pgd", step=0.5, tolerance=1e-6)
    torch.testing.assert_close(found.image[0], y / 1.5, atol=1e-4, rtol=1e-4)
    assert found.facts["converged"] and found.facts["objective_rises"] == 0
    admm = invert_file(model, image, "denoise", rho=0.1, scale=0.05, tolerance=1e-6)
    torch.testing.assert_close(admm.image[0], y / 1.25, atol=1e-3, rtol=1e-3)


def test_a_clean_image_is_measured_first_if_asked(model, image, tmp_path):
    found = invert_file(model, image, "blur:sigma=1", noise=0.01, simulate=True, iterations=5)
    assert found.true is not None and set(found.facts) >= {"psnr", "psnr_start"}
    again = invert_file(model, image, "blur:sigma=1", noise=0.01, simulate=True, iterations=5)
    assert torch.equal(found.image, again.image)
    write_result(found, tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), found.image.numpy())
    pytest.importorskip("skimage")
    write_side_by_side(found, tmp_path / "x.png")
    assert read_measurement(tmp_path / "x.png").shape == (1, 8, 3 * 8 + 2 * 2)


def test_what_no_ray_sees_does_not_count(model, tmp_path):
    """Two images that differ in the corners only have the same measurement and the same PSNR."""
    scores, view = [], Radon(8, 6).in_view()[0].numpy()
    for corner in (0.0, 1.0):
        path = tmp_path / f"{corner}.npy"
        inside = np.random.default_rng(0).random((8, 8), dtype=np.float32)
        np.save(path, np.where(view, inside, np.float32(corner)))
        found = invert_file(model, path, "radon:angles=6", simulate=True, iterations=3)
        scores.append((found.facts["psnr_start"], found.facts["psnr"]))
        error = (found.image - found.true)[0][torch.as_tensor(view)].square().mean()
        assert found.facts["psnr"] == pytest.approx(-10 * float(error.log10()), abs=1e-3)
        assert found.facts["in_view"] == pytest.approx(view.mean())
        assert found.facts["in_view"] < 0.8
    assert scores[0] == pytest.approx(scores[1])


def test_larger_images_are_done_in_patches(model, tmp_path):
    path = tmp_path / "large.npy"
    np.save(path, np.random.default_rng(0).random((13, 10), dtype=np.float32))
    found = invert_file(model, path, "denoise", scheme="pgd", step=0.5, tolerance=1e-6)
    torch.testing.assert_close(
        found.image[0], torch.as_tensor(np.load(path)) / 1.5, atol=1e-4, rtol=1e-4
    )
    assert "objective_rises" not in found.facts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "fista"}, "no scheme is called 'fista'"),
        ({"noise": 0.0}, "the noise must be positive"),
        ({"noise": -1.0}, "the noise must be positive"),
        ({"rho": 0.0}, "rho must be positive"),
        ({"scale": 0.0}, "weight of the data must be positive"),
        ({"operator": "cs:ratio=8"}, "the operator gives"),
    ],
)
def test_settings_that_cannot_be_are_refused(model, image, options, message):
    options = {"operator": "denoise"} | options
    with pytest.raises(UserError, match=message):
        invert_file(model, image, options.pop("operator"), **options)


def test_images_and_priors_that_do_not_fit_are_refused(model, tmp_path):
    small, colour, vectors = (tmp_path / n for n in ("small.npy", "colour.npy", "v.us"))
    np.save(small, np.ones((7, 9)))
    np.save(colour, np.ones((3, 8, 8)))
    LearnedProximalNetwork(InputConvexNet(), 1.0).save(vectors)
    with pytest.raises(UserError, match="the prior needs 8 x 8 at least"):
        invert_file(model, small, "denoise")
    with pytest.raises(UserError, match="3 channels, the prior is of 1"):
        invert_file(model, colour, "denoise")
    with pytest.raises(UserError, match="a prior of vectors"):
        invert_file(vectors, small, "denoise")


# -- learning -------------------------------------------------------------------------------


def test_patches_are_parts_of_their_images():
    images = [torch.arange(30.0).reshape(1, 5, 6), 100 + torch.arange(20.0).reshape(1, 4, 5)]
    patches = ImagePatches(images, 3)(400, torch.Generator().manual_seed(0))
    assert patches.shape == (400, 1, 3, 3)
    corners = set(patches[:, 0, 0, 0].tolist())
    # every place of both: 3 x 4 of the first, 2 x 3 of the second
    expected = {6.0 * r + c for r in range(3) for c in range(4)}
    assert corners == expected | {100.0 + 5 * r + c for r in range(2) for c in range(3)}
    width = torch.where(patches[:, 0, 0, 0] < 100, 6.0, 5.0)
    torch.testing.assert_close(patches[:, 0, 2, 1], patches[:, 0, 0, 0] + 2 * width + 1)


def test_symmetric_patches_have_all_eight_forms():
    image = torch.arange(9.0).reshape(1, 3, 3)
    patches = ImagePatches([image], 3, symmetric=True)(300, torch.Generator().manual_seed(0))
    assert len({tuple(p.flatten().tolist()) for p in patches}) == 8
    torch.testing.assert_close(patches.flatten(1).sort(1).values[7], torch.arange(9.0))


def test_half_of_the_steps_are_of_absolute_error():
    assert [stage.steps for stage in prior_schedule(64, 9)] == [5, 1, 1, 1, 1]


def test_networks_of_images_fit_their_size():
    assert image_network(1, 28, 4).settings["strides"] == [1, 2, 1, 2]
    assert image_network(3, 32, 4).settings["strides"] == [1, 2, 1, 2, 1, 2]
    with pytest.raises(UserError, match="a multiple of 4, found 30"):
        image_network(1, 30, 4)
    with pytest.raises(UserError, match="3 x 3 points"):
        ImagePatches([torch.ones(1, 2, 9)], 3)


@pytest.mark.slow
def test_a_prior_is_learnt_from_a_folder_and_denoises(tmp_path):
    io = pytest.importorskip("skimage.io")
    draw = np.random.default_rng(0)
    for k in range(4):  # vertical stripes
        line = (255 * (draw.random(24) > 0.5)).astype(np.uint8)
        io.imsave(tmp_path / f"{k}.png", np.tile(line, (24, 1)), check_contrast=False)
    schedule = (Stage(nn.L1Loss(), 300, 1e-2), Stage(ProximalMatchingLoss(2.0), 50, 1e-3))
    found = train_prior(tmp_path, 0.3, size=8, hidden=8, schedule=schedule, batch_size=32)
    assert found.facts["images"] == 4 and found.facts["interrupted"] is False
    assert found.facts["psnr"] > found.facts["psnr_noisy"] + 1.0
