"""Measurements have the adjoints and norms that they say they have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.inverse.imaging_operators import (
    CompressedSensing,
    FunctionOperator,
    GaussianBlur,
    Identity,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    Radon,
)

MATRIX = torch.randn(7, 24, generator=torch.Generator().manual_seed(0))
OPERATORS: list[LinearOperator] = [
    Identity((2, 5, 6)),
    GaussianBlur((3, 9, 12), 1.0),
    Inpainting(torch.rand(6, 7) > 0.4, channels=3),
    CompressedSensing((2, 6, 5), 11),
    CompressedSensing((1, 5, 5), 25),  # odd
    MatrixOperator(MATRIX, (1, 4, 6)),
    MatrixOperator(MATRIX.to_sparse(), (1, 4, 6)),
    Radon(9, 5),
]
NAMES = [f"{k}-{type(A).__name__}" for k, A in enumerate(OPERATORS)]


def dense(A: LinearOperator) -> torch.Tensor:
    """Matrix of an operator."""
    n = int(np.prod(A.image_shape))
    return A.apply(torch.eye(n).reshape(n, *A.image_shape)).flatten(1).T


@pytest.mark.parametrize("A", OPERATORS, ids=NAMES)
def test_adjoints_are_transposes(A):
    assert A.check_adjoint() < 1e-5
    m = int(np.prod(A.measurement_shape))
    back = A.adjoint(torch.eye(m).reshape(m, *A.measurement_shape)).flatten(1)
    torch.testing.assert_close(back, dense(A), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("A", OPERATORS, ids=NAMES)
def test_the_norm_is_the_largest_singular_value(A):
    largest = float(torch.linalg.matrix_norm(dense(A), 2))
    assert A.norm(iterations=500) == pytest.approx(largest, rel=2e-3)
    assert A.norm() <= largest * (1.0 + 1e-5)


def test_a_blur_keeps_constants_and_has_the_kernel_of_the_paper():
    A = GaussianBlur((1, 20, 20), 2.0)  # max(5, 6), made odd
    assert A.measurement_shape == (1, 14, 14)
    torch.testing.assert_close(A(torch.ones(1, 1, 20, 20)), torch.ones(1, 1, 14, 14))
    assert GaussianBlur((1, 20, 20), 1.0).measurement_shape == (1, 16, 16)


def test_tomography_is_that_of_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    for n in (16, 17):
        A = Radon(n, [0.0, 20.0, 90.0, 133.0])
        row, column = np.mgrid[:n, :n] - n // 2
        image = np.random.default_rng(0).random((n, n)) * (row**2 + column**2 <= (n // 2) ** 2)
        expected = transform.radon(image, theta=A.angles, circle=True).T
        found = A.apply(torch.as_tensor(image).float()[None, None]).reshape(A.sinogram_shape)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_the_corners_that_no_ray_crosses_are_out_of_view():
    A = Radon(17, 12)
    row, column = torch.meshgrid(*[torch.arange(17) - 8] * 2, indexing="ij")
    assert torch.equal(A.in_view()[0], row.square() + column.square() <= 64)
    outside = torch.randn(1, 1, 17, 17) * ~A.in_view()
    assert float(A.apply(outside).abs().max()) == 0.0


def test_a_matrix_sees_what_has_a_column_and_a_hole_is_in_view():
    rows = torch.zeros(2, 6)
    rows[0, 1], rows[1, 4] = 2.0, -1.0
    for matrix in (rows, rows.to_sparse()):
        seen = MatrixOperator(matrix, (1, 2, 3)).in_view()
        assert torch.equal(seen, torch.tensor([[[0, 1, 0], [0, 1, 0]]]).bool())
    assert bool(Inpainting(torch.eye(4), 1).in_view().all())
    assert bool(GaussianBlur((1, 8, 8), 1.0).in_view().all())


def test_tomography_starts_from_filtered_back_projection():
    pytest.importorskip("skimage.transform")
    A = Radon(24, 40)
    image = torch.zeros(1, 1, 24, 24)
    image[..., 8:14, 9:17] = 1.0
    start = A.start(A(image))
    assert float((start - image).square().mean()) < 0.02


def test_compressed_sensing_keeps_norms_on_average():
    x = torch.randn(200, 1, 8, 8)
    A = CompressedSensing((1, 8, 8), 16, seed=3)
    ratio = A(x).flatten(1).square().sum(1).mean() / x.flatten(1).square().sum(1).mean()
    assert float(ratio) == pytest.approx(1.0, abs=0.15)
    assert not torch.equal(A(x), CompressedSensing((1, 8, 8), 16, seed=4)(x))


def test_two_functions_that_are_no_adjoints_are_refused():
    def make(adjoint):
        return FunctionOperator(lambda x: 2.0 * x, adjoint, (1, 3, 3), (1, 3, 3))

    assert make(lambda y: 2.0 * y).norm() == pytest.approx(2.0)
    with pytest.raises(UserError, match="the adjoint is not that of the operator"):
        make(lambda y: y)
    with pytest.raises(UserError, match="measurements have the shape"):
        make(lambda y: y[..., :2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianBlur((1, 8, 8), 0.0), "sigma of a blur must be positive"),
        (lambda: GaussianBlur((1, 8, 8), 4.0), "kernel of 13 points"),
        (lambda: Inpainting(torch.zeros(4, 4)), "no pixel that is known"),
        (lambda: Inpainting(torch.ones(1, 4, 4)), r"a mask is \(height, width\)"),
        (lambda: CompressedSensing((1, 4, 4), 17), "between 1 and 16"),
        (lambda: CompressedSensing((1, 4, 4), 0), "between 1 and 16"),
        (lambda: Radon(8, 0), "at least 1 angle"),
        (lambda: MatrixOperator(torch.zeros(3, 4), (1, 2, 2)), "nothing is measured"),
        (lambda: Radon(8, []), "finite numbers"),
        (lambda: MatrixOperator(torch.ones(3, 5), (1, 2, 2)), "need 4 columns"),
        (lambda: MatrixOperator(torch.full((3, 4), torch.nan), (1, 2, 2)), "not finite"),
        (lambda: Identity((1, 4, 4))(torch.ones(1, 3, 4, 4)), "the operator takes"),
        (lambda: Identity((1, 2, 2))(torch.full((1, 1, 2, 2), torch.nan)), "not finite"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
