r"""Prior beliefs about parameters and noise, in Python or in a TOML file.

.. code-block:: toml

    [parameters]
    exchange = { distribution = "uniform", lower = 0.5, upper = 4 }
    diffusivity = { distribution = "lognormal", median = 3, sigma = 0.5 }
    porosity = { distribution = "normal", mean = 0.3, sd = 0.02 }

    [noise]
    voltage = 0.003

    [field]
    density = "fields.us"

The noise of an output is its standard deviation: a number, a distribution as above, ``"infer"``,
which is log-normal about a tenth of the spread of the data, or ``"bisect"``, see
`understudy.search.calibrate`. Without it, noise is inferred. A field, which need not be there, is a
learned density of all parameters together, which are its values in their order; it multiplies their
priors.

With distribution function :math:`F` and limits :math:`[a, b]` of the surrogate, a parameter is

.. math:: \theta = F^{-1}\big( F(a) + (F(b) - F(a))\, \Phi(z) \big), \qquad z \sim N(0, 1),

so samplers see a standard normal whatever the prior is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Categorical, Space, nearest
from understudy.data.toml_files import read_toml

MOST_OUTSIDE = 0.05
"""Share of a prior that may lie outside the range a surrogate was trained on."""


@dataclass(frozen=True)
class Uniform:
    """Equally likely between two limits.

    Parameters
    ----------
    lower, upper : float
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.upper - self.lower) and self.lower < self.upper):
            raise UserError(f"lower must be below upper, found {self.lower:g} and {self.upper:g}")

    def cdf(self, x: float) -> float:
        """Share below x."""
        return min(1.0, max(0.0, (x - self.lower) / (self.upper - self.lower)))

    def quantile(self, u: Tensor) -> Tensor:
        """Value below which the share u lies."""
        return self.lower + (self.upper - self.lower) * u


@dataclass(frozen=True)
class Normal:
    """Gaussian.

    Parameters
    ----------
    mean : float
    sd : float
        Above 0.
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0.0 < self.sd < math.inf):
            raise UserError(f"sd must be positive and finite, found {self.sd:g}")

    def cdf(self, x: float) -> float:
        """Share below x."""
        return 0.5 * math.erfc((self.mean - x) / (self.sd * math.sqrt(2.0)))

    def quantile(self, u: Tensor) -> Tensor:
        """Value below which the share u lies."""
        return self.mean + self.sd * torch.special.ndtri(u)


@dataclass(frozen=True)
class LogNormal:
    """Its logarithm is Gaussian.

    Parameters
    ----------
    median : float
        Above 0.
    sigma : float
        Deviation of the natural logarithm.
    """

    median: float
    sigma: float

    def __post_init__(self) -> None:
        if not (0.0 < self.median < math.inf and 0.0 < self.sigma < math.inf):
            raise UserError(
                "median and sigma must be positive and finite, found "
                f"{self.median:g} and {self.sigma:g}"
            )

    def cdf(self, x: float) -> float:
        """Share below x."""
        return Normal(math.log(self.median), self.sigma).cdf(math.log(x)) if x > 0.0 else 0.0

    def quantile(self, u: Tensor) -> Tensor:
        """Value below which the share u lies."""
        return self.median * torch.exp(self.sigma * torch.special.ndtri(u))


Prior: TypeAlias = Uniform | Normal | LogNormal
Noise: TypeAlias = float | Uniform | Normal | LogNormal | str

_KINDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "uniform": (Uniform, ("lower", "upper")),
    "normal": (Normal, ("mean", "sd")),
    "lognormal": (LogNormal, ("median", "sigma")),
}
_WORDS = ("infer", "bisect")


@dataclass(frozen=True)
class JointPrior:
    """Independent parameters, cut at the limits of a space.

    Parameters
    ----------
    names : tuple of str
    priors : tuple of Prior
    lower, upper : tuple of float
        Limits; infinite where there are none.
    """

    names: tuple[str, ...]
    priors: tuple[Prior, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @classmethod
    def within(cls, priors: Mapping[str, Prior], space: Space) -> JointPrior:
        """Priors of inputs of a space; refused where they reach beyond it.

        A uniform prior must lie within the range of its input, any other with all but 5 %.
        """
        if not priors:
            raise UserError("there is no prior; name at least one parameter")
        lower, upper = [], []
        for name, prior in priors.items():
            if name not in space:
                raise UserError(
                    f"prior: {name!r} is no input of the surrogate{nearest(name, space.names)}"
                )
            item = space[name]
            if isinstance(item, Categorical):
                raise UserError(f"prior: {name!r} is a choice; only numbers can be calibrated")
            _check_within(name, prior, float(item.lower), float(item.upper))
            lower.append(float(item.lower))
            upper.append(float(item.upper))
        return cls(tuple(priors), tuple(priors.values()), tuple(lower), tuple(upper))

    def values(self, z: Tensor) -> Tensor:
        """Parameters (..., d) of standard normal z (..., d)."""
        u = torch.special.ndtr(z)
        columns = []
        for k, prior in enumerate(self.priors):
            a, b = prior.cdf(self.lower[k]), prior.cdf(self.upper[k])
            share = (a + (b - a) * u[..., k]).clamp(1e-15, 1.0 - 1e-15)
            columns.append(prior.quantile(share))
        return torch.stack(columns, -1)

    def spread(self) -> Tensor:
        """Deviations (d,), from 4001 quantiles."""
        u = (torch.arange(4001, dtype=torch.float64) + 0.5) / 4001
        z = torch.special.ndtri(u).unsqueeze(1).expand(-1, len(self.names))
        return self.values(z).std(0)


def _check_within(name: str, prior: Prior, lower: float, upper: float) -> None:
    outside = 1.0 - (prior.cdf(upper) - prior.cdf(lower))
    if outside <= (1e-9 if isinstance(prior, Uniform) else MOST_OUTSIDE):
        return
    raise UserError(
        f"prior: {100.0 * outside:.1f} % of {name!r} lies outside {lower:g} to {upper:g}, the "
        "range that the surrogate was trained on"
    )


# -- of a whole field ------------------------------------------------------------------------------


class FieldPrior:
    r"""A density of whole fields as a prior of the parameters that they are made of.

    It multiplies the priors of the parameters, such as by :math:`\log p = -R(x)/\sigma^2` up to a
    constant of a learned proximal network (arXiv 2310.14344).

    Parameters
    ----------
    density : object
        With `shape`, that of a field, and ``log_prior(x)``, ``(c,)`` of ``(c, *shape)``,
        differentiable: a learned proximal network (`understudy.models.inverse.lpn`).
    decode : callable (c, d) -> (c, *shape), optional
        Fields of parameters, differentiable. By default the parameters are the values.
    """

    def __init__(self, density: Any, decode: Callable[[Tensor], Tensor] | None = None) -> None:
        self.density, self.decode = density, decode

    def __call__(self, theta: Tensor) -> Tensor:
        """Log densities (c,) of parameters (c, d), up to a constant."""
        shape = tuple(self.density.shape)
        if self.decode is None and theta.shape[1] != math.prod(shape):
            raise UserError(
                f"a field of shape {shape} has {math.prod(shape)} values; there are "
                f"{theta.shape[1]} parameters: give decode"
            )
        x = theta.reshape(-1, *shape) if self.decode is None else self.decode(theta)
        return torch.as_tensor(self.density.log_prior(x))

    @classmethod
    def load(cls, path: str | Path, parameters: int) -> Self:
        """Prior of a learned proximal network in a file, whose values are the parameters.

        Parameters
        ----------
        path : str or Path
        parameters : int
            How many there are.

        Raises
        ------
        UserError
            If there is no such file, it holds something else, or a field of another size.
        """
        from understudy.models.inverse.lpn import LearnedProximalNetwork

        if not Path(path).exists():
            raise UserError(f"{path}: there is no such file, named as the density of a field")
        density = LearnedProximalNetwork.load(path).double()
        values = math.prod(density.shape)
        if values != parameters:
            raise UserError(
                f"{path} is a prior of fields of {values} values; there are {parameters} parameters"
            )
        return cls(density)


# -- the file --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PriorFile:
    """What a prior file says.

    Parameters
    ----------
    parameters : dict of str to Prior
    noise : dict of str to Noise
        By output.
    density : Path or None
        File of a density of all parameters together.
    """

    parameters: dict[str, Prior]
    noise: dict[str, Noise]
    density: Path | None = None


def read_priors(path: str | Path) -> PriorFile:
    """Read a prior file.

    Raises
    ------
    UserError
        One sentence: the file, the key, what was found, what is accepted.
    """
    path = Path(path)
    content = read_toml(path)
    try:
        found = parse_priors(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if found.density is None:
        return found
    return replace(found, density=path.parent / found.density)


def parse_priors(content: Mapping[str, Any]) -> PriorFile:
    """Priors of the parsed content of a file."""
    _check_keys(content, ("parameters", "noise", "field"), "the file")
    for section in ("parameters", "noise", "field"):
        if not isinstance(content.get(section, {}), Mapping):
            raise UserError(f"[{section}] is a table, found {content[section]!r}")
    parameters = content.get("parameters", {})
    if not parameters:
        raise UserError(
            "there is no section [parameters] with a line such as "
            'angle = { distribution = "uniform", lower = 0, upper = 5 }'
        )
    return PriorFile(
        {name: _prior(name, item) for name, item in parameters.items()},
        {name: _noise(name, item) for name, item in content.get("noise", {}).items()},
        _density(content.get("field")),
    )


def _density(section: Mapping[str, Any] | None) -> Path | None:
    if section is None:
        return None
    _check_keys(section, ("density",), "[field]")
    name = section.get("density")
    if not isinstance(name, str) or not name:
        raise UserError(f'[field] needs a file, as density = "fields.us", found {name!r}')
    return Path(name)


def _prior(name: str, item: Any) -> Prior:
    if not isinstance(item, Mapping):
        raise UserError(f"{name!r} is a table with a distribution, found {item!r}")
    kind = item.get("distribution")
    if kind not in _KINDS:
        raise UserError(f"{name!r}: distribution is one of {', '.join(_KINDS)}, found {kind!r}")
    make, keys = _KINDS[kind]
    _check_keys(item, ("distribution", *keys), repr(name))
    for key in keys:
        value = item.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{name!r}: {kind} needs a number {key!r}, found {value!r}")
    try:
        found: Prior = make(*(float(item[key]) for key in keys))
    except UserError as error:
        raise UserError(f"{name!r}: {error}") from error
    return found


def _noise(name: str, item: Any) -> Noise:
    if isinstance(item, Mapping):
        found = _prior(name, item)
        if found.cdf(0.0) > 0.0:
            raise UserError(f"noise of {name!r}: a deviation is above 0; use a lognormal")
        return found
    if item in _WORDS:
        return str(item)
    if isinstance(item, bool) or not isinstance(item, int | float) or not 0.0 < item < math.inf:
        raise UserError(
            f'noise of {name!r} is a number above 0, a distribution, "infer" or "bisect", '
            f"found {item!r}"
        )
    return float(item)


def _check_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise UserError(f"{where}: there is no key {key!r}{nearest(key, known)}")
