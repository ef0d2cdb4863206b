r"""Pulses of sound, what was recorded of them, and impulse responses as WAV files.

A source is a pulse that is let go at rest, :math:`p(x, 0) = e^{-|x - x_0|^2/\sigma^2}`, 1 Pa at its
centre. It holds frequencies up to about :math:`f_{max}` with

.. math:: \sigma = \frac{c}{\pi f_{max}/2}

(Borrel-Jensen et al. 2024, arXiv 2308.05141, and its code).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.data.rooms import Room

SPEED_OF_SOUND = 343.0
"""Metres a second, in air at 20 degrees Celsius."""


@dataclass(frozen=True)
class GaussianPulse:
    """Shape of a source.

    Parameters
    ----------
    f_max : float
        Highest frequency in Hz.
    speed : float
        Of sound, c, in m/s.
    """

    f_max: float
    speed: float = SPEED_OF_SOUND

    def __post_init__(self) -> None:
        if not (0.0 < self.f_max < math.inf and 0.0 < self.speed < math.inf):
            raise UserError(
                f"f_max and speed must be positive, found {self.f_max:g} Hz and {self.speed:g} m/s"
            )

    @property
    def width(self) -> float:
        """Sigma, in metres."""
        return 2.0 * self.speed / (math.pi * self.f_max)

    @property
    def wavelength(self) -> float:
        """The shortest, in metres."""
        return self.speed / self.f_max

    def at(self, sources: Tensor, points: Tensor) -> Tensor:
        """Pressure ``(B, M)`` in Pa at points ``(M, 2)`` of pulses at ``(B, 2)``."""
        far = (sources[:, None] - points[None]).square().sum(-1)
        return torch.exp(-far / self.width**2)

    def at_walls(self, room: Room, source: tuple[float, float]) -> float:
        """Pressure in Pa at the wall that is nearest to a source, when it is let go.

        Walls that yield make it another source unless that is next to nothing.
        """
        return math.exp(-((float(room.clearance(source)) / self.width) ** 2))


@dataclass(frozen=True)
class PulseResponses:
    """Pressure that followed pulses in a room.

    Parameters
    ----------
    room : Room
    pulse : GaussianPulse
    sources : Tensor (N, 2)
        Centres of pulses in metres.
    points : Tensor (M, 2)
        Where pressure is known, in metres.
    times : Tensor (T,)
        In seconds.
    pressure : Tensor (N, T, M), float32
        In Pa.
    """

    room: Room
    pulse: GaussianPulse
    sources: Tensor
    points: Tensor
    times: Tensor
    pressure: Tensor

    def __post_init__(self) -> None:
        expected = (len(self.sources), len(self.times), len(self.points))
        if tuple(self.pressure.shape) != expected or min(expected) < 1:
            raise UserError(
                f"pressure must be of shape {expected} (sources, times, points), "
                f"found {tuple(self.pressure.shape)}"
            )
        if not bool(self.pressure.isfinite().all()):
            raise UserError("pressure must be finite; a NaN or infinity was found")
        self.room.require(self.sources.numpy(), "source")
        self.room.require(self.points.numpy(), "point")

    def __len__(self) -> int:
        return len(self.sources)

    def select(self, rows: Tensor) -> PulseResponses:
        """Those of some sources, by number or mask."""
        return PulseResponses(
            *(self.room, self.pulse, self.sources[rows], self.points, self.times),
            self.pressure[rows],
        )


@dataclass(frozen=True)
class ImpulseResponse:
    """Pressure at receivers, equally spaced in time from the moment of the pulse on.

    Parameters
    ----------
    pressure : Tensor (R, T), float32
        In Pa.
    rate : float
        Samples a second.
    """

    pressure: Tensor
    rate: float

    @property
    def times(self) -> Tensor:
        """Seconds ``(T,)``, float64."""
        return torch.arange(self.pressure.shape[1], dtype=torch.float64) / self.rate

    def resampled(self, rate: int) -> ImpulseResponse:
        """At another rate, low-pass filtered by a polyphase filter."""
        from scipy.signal import resample_poly

        if rate < 1:
            raise UserError(f"the rate must be at least 1 Hz, found {rate}")
        ratio = Fraction(rate) / Fraction(self.rate).limit_denominator(1000)
        samples = resample_poly(self.pressure.numpy(), ratio.numerator, ratio.denominator, axis=1)
        return ImpulseResponse(torch.from_numpy(np.float32(samples)), float(rate))

    def write(self, path: str | Path) -> Path:
        """Write a WAV file of 32-bit floats in Pa, one channel a receiver, whole or not at all.

        Raises
        ------
        UserError
            If the rate is no whole number, which such a file needs, or it cannot be written.
        """
        from scipy.io import wavfile

        rate = round(self.rate)
        if abs(rate - self.rate) > 1e-6 * self.rate:
            raise UserError(
                f"a WAV file has a whole number of samples a second, not {self.rate:g}; "
                "use resampled first"
            )
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            wavfile.write(part, rate, self.pressure.detach().numpy().T.astype(np.float32))
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        return path
