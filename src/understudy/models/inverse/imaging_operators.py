r"""Linear measurements of images, with their adjoints.

Images are ``(B, channels, height, width)``, measurements have a shape of their own. An operator A
knows its product, the product with its adjoint, tested by

.. math:: \langle A u, v \rangle = \langle u, A^\top v \rangle

for random u and v, and its norm, the root of the largest eigenvalue of :math:`A^\top A`, by power
iteration. All measurements of a batch are made together.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.core.errors import UserError

_AGREEMENT = 1e-4
"""Largest difference of both products, over the product of the norms."""


class LinearOperator(ABC):
    """A linear measurement.

    Attributes
    ----------
    image_shape : tuple of int
        Channels, height and width of what is measured.
    measurement_shape : tuple of int
        Of one measurement, without the batch.
    """

    image_shape: tuple[int, ...]
    measurement_shape: tuple[int, ...]

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Measurements ``(B, *measurement_shape)`` of images ``(B, *image_shape)``."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Images ``(B, *image_shape)`` of measurements ``(B, *measurement_shape)``."""

    def __call__(self, x: Tensor) -> Tensor:
        """Measure, after a check of shapes and numbers."""
        return self.apply(_checked(x, self.image_shape, "the image"))

    def checked_measurement(self, y: Tensor) -> Tensor:
        """Return the measurements if they can be some of this operator."""
        return _checked(y, self.measurement_shape, "the measurement")

    def start(self, y: Tensor) -> Tensor:
        r"""First guess of images; :math:`A^\top y` unless an operator knows better."""
        return self.adjoint(y)

    def picture(self, y: Tensor) -> Tensor | None:
        """Measurements as images ``(B, channels, height, width)``, where they are some."""
        return y if len(self.measurement_shape) == 3 else None

    def in_view(self) -> Tensor:
        """Pixels ``(*image_shape)``, bool, that lie in the field of view; all of them as a rule.

        Of the others, such as the corners that no ray of a tomograph crosses, nothing is measured
        and nothing can be said. A hole in a picture is in view: to fill it is the task.
        """
        return torch.ones(self.image_shape, dtype=torch.bool)

    def normal(self, x: Tensor) -> Tensor:
        r""":math:`A^\top A x`."""
        return self.adjoint(self.apply(x))

    @torch.no_grad()
    def norm(self, iterations: int = 100, seed: int = 0) -> float:
        r"""Largest singular value, from below, by power iteration on :math:`A^\top A`."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1, *self.image_shape, generator=generator)
        squared = 0.0
        for _ in range(iterations):
            x = x / x.norm().clamp_min(1e-30)
            x = self.normal(x)
            before, squared = squared, float(x.norm())
            if abs(squared - before) <= 1e-6 * squared:
                break
        return math.sqrt(squared)

    @torch.no_grad()
    def check_adjoint(self, trials: int = 3, seed: int = 0) -> float:
        """Largest difference of both products, over the product of the norms.

        Raises
        ------
        UserError
            If shapes are not those that are promised, or the adjoint is not one.
        """
        generator = torch.Generator().manual_seed(seed)
        u = torch.randn(trials, *self.image_shape, generator=generator)
        v = torch.randn(trials, *self.measurement_shape, generator=generator)
        Au, Av = self.apply(u), self.adjoint(v)
        name = type(self).__name__
        if Au.shape != v.shape or Av.shape != u.shape:
            raise UserError(
                f"{name}: measurements have the shape {tuple(Au.shape[1:])} and images "
                f"{tuple(Av.shape[1:])}; said were {self.measurement_shape} and {self.image_shape}"
            )
        difference = (Au * v).flatten(1).sum(1) - (u * Av).flatten(1).sum(1)
        size = Au.flatten(1).norm(dim=1) * v.flatten(1).norm(dim=1)
        worst = float((difference.abs() / size.clamp_min(1e-30)).max())
        if not worst <= _AGREEMENT:
            raise UserError(
                f"{name}: the adjoint is not that of the operator: the products differ by "
                f"{worst:.2g} of their size, more than {_AGREEMENT:g}"
            )
        return worst


class FunctionOperator(LinearOperator):
    """A measurement given by two functions; they are tested.

    Parameters
    ----------
    apply, adjoint : callable
        ``(B, *image_shape) -> (B, *measurement_shape)`` and back.
    image_shape, measurement_shape : tuple of int
    """

    def __init__(
        self,
        apply: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
        image_shape: tuple[int, ...],
        measurement_shape: tuple[int, ...],
    ) -> None:
        self._apply, self._adjoint = apply, adjoint
        self.image_shape, self.measurement_shape = tuple(image_shape), tuple(measurement_shape)
        self.check_adjoint()

    def apply(self, x: Tensor) -> Tensor:
        """Measurements of images."""
        return self._apply(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Images of measurements."""
        return self._adjoint(y)


class Identity(LinearOperator):
    """The image itself, for denoising."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self.image_shape = self.measurement_shape = tuple(image_shape)

    def apply(self, x: Tensor) -> Tensor:
        """Return the images."""
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the measurements."""
        return y


class GaussianBlur(LinearOperator):
    """Convolution with a Gaussian, where the kernel lies wholly within the image.

    Parameters
    ----------
    image_shape : tuple of int
    sigma : float, positive
        Deviation, in pixels. The kernel has the larger of 5 and 3 sigma points along a side, one
        more where that is even, as in the paper.
    """

    def __init__(self, image_shape: tuple[int, ...], sigma: float) -> None:
        if not 0.0 < sigma < math.inf:
            raise UserError(f"sigma of a blur must be positive, found {sigma}")
        width = blur_width(sigma)
        channels, height, across = image_shape
        if min(height, across) < width:
            raise UserError(
                f"a blur of sigma {sigma:g} has a kernel of {width} points; the image has "
                f"{height} x {across}"
            )
        t = torch.arange(width, dtype=torch.float64) - width // 2
        line = torch.exp(-0.5 * (t / sigma) ** 2)
        kernel = torch.outer(line, line)
        self._kernel = (kernel / kernel.sum()).float().expand(channels, 1, width, width)
        self._channels = channels
        self.image_shape = tuple(image_shape)
        self.measurement_shape = (channels, height - width + 1, across - width + 1)

    def apply(self, x: Tensor) -> Tensor:
        """Blurred images, smaller by the width of the kernel."""
        return F.conv2d(x, self._kernel.to(x), groups=self._channels)

    def adjoint(self, y: Tensor) -> Tensor:
        """Correlation with the kernel."""
        return F.conv_transpose2d(y, self._kernel.to(y), groups=self._channels)

    def start(self, y: Tensor) -> Tensor:
        """Blurred image, continued to the sides; the adjoint would be dark there."""
        height, width = self.image_shape[1:]
        top, left = (height - y.shape[2]) // 2, (width - y.shape[3]) // 2
        sides = (left, width - y.shape[3] - left, top, height - y.shape[2] - top)
        return F.pad(y, sides, mode="replicate")


def blur_width(sigma: float) -> int:
    """Points along a side of the kernel of a Gaussian blur."""
    return max(5, int(3 * sigma)) | 1


class Inpainting(LinearOperator):
    """Images of which some pixels are missing (zero in the measurement).

    Parameters
    ----------
    mask : Tensor (height, width)
        Not zero where a pixel is known.
    channels : int
    """

    def __init__(self, mask: Tensor, channels: int = 1) -> None:
        if mask.ndim != 2:
            raise UserError(f"a mask is (height, width), found {tuple(mask.shape)}")
        known = mask != 0
        if not bool(known.any()):
            raise UserError("the mask leaves no pixel that is known")
        self._known = known.float()
        self.image_shape = self.measurement_shape = (channels, *mask.shape)

    def apply(self, x: Tensor) -> Tensor:
        """Known pixels."""
        return x * self._known.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Known pixels."""
        return y * self._known.to(y)


class CompressedSensing(LinearOperator):
    r"""Some values of a circular convolution with random signs.

    :math:`y = S\, (c \circledast x)` with c of :math:`\pm 1/\sqrt n`, and S a choice of m of the n
    values of each channel, :math:`\sqrt{n/m}` times as large, so that norms are kept on average.

    Parameters
    ----------
    image_shape : tuple of int
    measurements : int
        m, of each channel.
    seed : int
        Of the signs and of the choice.
    """

    def __init__(self, image_shape: tuple[int, ...], measurements: int, seed: int = 0) -> None:
        channels, height, width = image_shape
        n = height * width
        if not 1 <= measurements <= n:
            raise UserError(f"of {n} pixels between 1 and {n} can be measured, not {measurements}")
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (n,), generator=generator, dtype=torch.float64) * 2.0 - 1.0
        self._spectrum = torch.fft.rfft(signs / math.sqrt(n))
        self._chosen = torch.randperm(n, generator=generator)[:measurements].sort().values
        self._n, self._scale = n, math.sqrt(n / measurements)
        self.image_shape, self.measurement_shape = tuple(image_shape), (channels, measurements)

    def apply(self, x: Tensor) -> Tensor:
        """Measurements ``(B, channels, m)``."""
        whole = self._convolved(x.flatten(2), self._spectrum)
        return self._scale * whole[..., self._chosen]

    def adjoint(self, y: Tensor) -> Tensor:
        """Images."""
        whole = y.new_zeros(*y.shape[:2], self._n)
        whole[..., self._chosen] = self._scale * y
        return self._convolved(whole, self._spectrum.conj()).unflatten(2, self.image_shape[1:])

    def _convolved(self, x: Tensor, spectrum: Tensor) -> Tensor:
        # torch.fft gives complex64 of float32, complex128 of float64
        transformed = torch.fft.rfft(x)
        return torch.fft.irfft(transformed * spectrum.to(transformed), self._n)


class MatrixOperator(LinearOperator):
    """Any matrix.

    Parameters
    ----------
    matrix : Tensor (m, n), dense or sparse (COO)
        On images whose n values are in a row: channels, then rows, then columns.
    image_shape : tuple of int
    """

    def __init__(self, matrix: Tensor, image_shape: tuple[int, ...]) -> None:
        n = math.prod(image_shape)
        if matrix.ndim != 2 or matrix.shape[1] != n:
            raise UserError(
                f"the matrix has the shape {tuple(matrix.shape)}; images of {tuple(image_shape)} "
                f"need {n} columns"
            )
        matrix = matrix.coalesce().float() if matrix.is_sparse else matrix.float()
        values = matrix.values() if matrix.is_sparse else matrix
        if not bool(torch.isfinite(values).all()):
            raise UserError("the matrix has values that are not finite numbers")
        seen = matrix.indices()[1, values != 0] if matrix.is_sparse else matrix.nonzero()[:, 1]
        if not len(seen):
            raise UserError("the matrix has no value but zero, so that nothing is measured")
        self._seen = torch.zeros(n, dtype=torch.bool)
        self._seen[seen] = True
        self._matrix, self._transposed = _by_rows(matrix), _by_rows(matrix.t())
        self.image_shape, self.measurement_shape = tuple(image_shape), (matrix.shape[0],)

    def apply(self, x: Tensor) -> Tensor:
        """Measurements ``(B, m)``."""
        return (self._matrix.to(x.dtype) @ x.flatten(1).t()).t()

    def adjoint(self, y: Tensor) -> Tensor:
        """Images."""
        return (self._transposed.to(y.dtype) @ y.t()).t().reshape(-1, *self.image_shape)

    def in_view(self) -> Tensor:
        """Pixels whose column is not zero."""
        return self._seen.reshape(self.image_shape)


def _by_rows(matrix: Tensor) -> Tensor:
    """Sparse matrix in compressed rows, with which products take a tenth of the time or less."""
    if not matrix.is_sparse:
        return matrix
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return matrix.coalesce().to_sparse_csr()


class Radon(MatrixOperator):
    """Tomography with parallel rays: sums along lines at some angles.

    The image is rotated by linear interpolation and summed along its columns, as scikit-image's
    ``radon(image, circle=True)`` does, of which this is the matrix; only what is in the circle
    within the image is seen. The adjoint is exact, which the back-projection of ``iradon`` is not.

    Parameters
    ----------
    size : int
        Height and width of the image, of one channel.
    angles : int or sequence of float
        How many, evenly over 180 degrees, or which, in degrees.
    """

    def __init__(self, size: int, angles: int | list[float]) -> None:
        if isinstance(angles, int):
            if angles < 1:
                raise UserError(f"tomography needs at least 1 angle, found {angles}")
            angles = [180.0 * k / angles for k in range(angles)]
        if not angles or not all(math.isfinite(a) for a in angles):
            raise UserError("angles must be finite numbers, in degrees")
        self.angles = tuple(float(a) for a in angles)
        super().__init__(_radon_matrix(size, self.angles), (1, size, size))
        self.sinogram_shape = (len(self.angles), size)

    def picture(self, y: Tensor) -> Tensor:
        """Sinograms ``(B, 1, angles, size)``."""
        return y.reshape(-1, 1, *self.sinogram_shape)

    def start(self, y: Tensor) -> Tensor:
        """Filtered back-projection, by scikit-image."""
        try:
            from skimage.transform import iradon
        except ModuleNotFoundError:
            return self.adjoint(y) / self.norm() ** 2
        sinograms = y.reshape(-1, *self.sinogram_shape).mT.double().cpu().numpy()
        images = [iradon(s, theta=np.asarray(self.angles), circle=True) for s in sinograms]
        return torch.as_tensor(np.stack(images)).unsqueeze(1).to(y)


def _radon_matrix(size: int, angles: tuple[float, ...]) -> Tensor:
    """Sparse matrix ``(angles * size, size * size)``: bilinear weights of rotated pixels."""
    theta = torch.tensor(angles, dtype=torch.float64).deg2rad()[:, None, None]
    centre = size // 2
    row, column = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    down, right = row - centre, column - centre
    x = theta.cos() * right + theta.sin() * down + centre
    y = -theta.sin() * right + theta.cos() * down + centre
    ray = torch.arange(len(angles))[:, None, None] * size + column.long()
    inside = down.square() + right.square() <= centre**2
    x0, y0 = x.floor().long(), y.floor().long()
    rows, columns, weights = [], [], []
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        px, py = x0 + dx, y0 + dy
        weight = (1.0 - (x - px).abs()) * (1.0 - (y - py).abs())
        keep = (px >= 0) & (px < size) & (py >= 0) & (py < size) & (weight > 1e-12)
        rows.append(ray[keep])
        columns.append((py * size + px)[keep])
        weights.append(weight[keep])
    seen = torch.cat(columns)
    weight = torch.cat(weights) * inside.flatten()[seen]
    index = torch.stack([torch.cat(rows), seen])
    shape = (len(angles) * size, size * size)
    return torch.sparse_coo_tensor(index, weight, shape, check_invariants=False)


def _checked(x: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    if tuple(x.shape[1:]) != shape or x.ndim != len(shape) + 1:
        raise UserError(
            f"{what} has the shape {tuple(x.shape)}; the operator takes (B, "
            f"{', '.join(map(str, shape))})"
        )
    if not bool(torch.isfinite(x).all()):
        raise UserError(f"{what} has values that are not finite numbers")
    return x
