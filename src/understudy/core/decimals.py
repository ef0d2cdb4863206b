r"""Numbers with a fixed count of significant digits, as sign, whole mantissa and exponent.

.. math:: x = s\, m\, 10^e, \qquad s \in \{-1, 1\}, \quad 10^{k-1} \le m < 10^k

for k digits: 3.14159 with three is :math:`+314 \cdot 10^{-2}`. Zero has :math:`m = e = 0`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.errors import UserError

LARGEST_EXPONENT = 10
"""Exponents lie within plus and minus this; smaller numbers are zero, larger ones refused."""


def decimal_parts(values: Tensor, digits: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Sign, mantissa and exponent of the nearest number with so many digits.

    Parameters
    ----------
    values : Tensor (...)
        Finite.
    digits : int in 1 .. 6

    Returns
    -------
    sign, mantissa, exponent : LongTensor (...)
        Sign is -1 or 1, mantissa in 0 .. 10**digits - 1.

    Raises
    ------
    UserError
        If a number is not finite or needs an exponent above 10.
    """
    x = values.double().abs()
    if not bool(torch.isfinite(x).all()):
        raise UserError("a number of an equation must be finite, found NaN or infinity")
    positive = x > 0
    exponent = torch.where(positive, x, 1.0).log10().floor().long() - (digits - 1)
    mantissa = _scaled(x, -exponent).round()
    # the logarithm of 1000 may be a hair below 3, and 9.999 rounds up to 1000
    carry = mantissa >= 10**digits
    exponent = exponent + carry
    mantissa = torch.where(carry, _scaled(x, -exponent).round(), mantissa)
    zero = ~positive | (exponent < -LARGEST_EXPONENT)
    if bool((exponent[~zero] > LARGEST_EXPONENT).any()):
        limit = f"{10**digits - 1}e{LARGEST_EXPONENT}"
        raise UserError(f"a number of an equation may be at most {limit}, found {float(x.max()):g}")
    sign = torch.where((values < 0) & ~zero, -1, 1)
    return sign, torch.where(zero, 0, mantissa.long()), torch.where(zero, 0, exponent)


def from_decimal_parts(sign: Tensor, mantissa: Tensor, exponent: Tensor) -> Tensor:
    """Numbers (...) in float64 of what :func:`decimal_parts` gave, correctly rounded."""
    return sign * _scaled(mantissa.double(), exponent)


def round_significant(values: Tensor, digits: int = 3) -> Tensor:
    """Nearest numbers (...) with so many significant digits, float64."""
    return from_decimal_parts(*decimal_parts(values, digits))


def _scaled(x: Tensor, exponent: Tensor) -> Tensor:
    """Times a power of ten; a division where it is negative, for 10**-2 is no double."""
    power = torch.pow(10.0, exponent.abs().double())
    return torch.where(exponent >= 0, x * power, x / power)
