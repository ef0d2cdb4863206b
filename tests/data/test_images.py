"""Images are arrays between 0 and 1, whatever their files hold."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from understudy.core.errors import UserError
from understudy.data.images import handwritten_digits, read_image, read_images, write_image

pytest.importorskip("skimage")


def test_what_is_written_is_read_again(tmp_path):
    grey = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    colour = np.random.default_rng(0).random((3, 5, 6)).astype(np.float32)
    for name, image in (("grey.png", grey), ("colour.png", colour)):
        found = read_image(write_image(tmp_path / name, image))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, image, atol=0.5 / 255 + 1e-6)


def test_values_beyond_the_range_are_cut_when_written(tmp_path):
    image = np.array([[[-1.0, 2.0], [0.0, 1.0]]])
    found = read_image(write_image(tmp_path / "a.png", image))
    np.testing.assert_array_equal(found, [[[0.0, 1.0], [0.0, 1.0]]])


def test_channels_are_changed_to_those_asked_for(tmp_path):
    colour = write_image(tmp_path / "c.png", np.random.default_rng(0).random((3, 4, 4)))
    grey = write_image(tmp_path / "g.png", np.random.default_rng(0).random((1, 4, 4)))
    assert read_image(colour, 1).shape == (1, 4, 4)
    assert read_image(grey, 3).shape == (3, 4, 4)


def test_folders_are_read_in_order_with_those_within(tmp_path):
    (tmp_path / "in").mkdir()
    for name, level in (("b.png", 1.0), ("in/c.png", 0.0), ("a.PNG", 0.0)):
        write_image(tmp_path / name, np.full((1, 4, 4), level))
    (tmp_path / "notes.txt").write_text("no image")
    assert [float(image.mean()) for image in read_images(tmp_path)] == [0.0, 1.0, 0.0]
    with pytest.raises(UserError, match="has 4 x 4 points; 5 x 5 are needed"):
        read_images(tmp_path, at_least=5)


def test_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("hello")
    with pytest.raises(UserError, match="is no image"):
        read_image(path)
    with pytest.raises(UserError, match="is no folder"):
        read_images(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no image"):
        read_images(tmp_path / "empty")


def test_digits_are_those_of_mnist_where_they_are_and_else_of_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.delenv("UNDERSTUDY_DATA", raising=False)
    images, name = handwritten_digits()
    assert name == "digits" and images.shape == (1797, 1, 28, 28)
    assert images.min() >= 0.0 and 0.9 < images.max() <= 1.0
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path))
    (tmp_path / "vision").mkdir()
    values = bytes(16) + bytes([255] * 784 + [0] * 784)
    (tmp_path / "vision/mnist-t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(values))
    images, name = handwritten_digits()
    assert name == "MNIST" and images.mean(axis=(1, 2, 3)).tolist() == [1.0, 0.0]
