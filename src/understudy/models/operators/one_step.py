r"""Operators that go on in time, trained on steps drawn from trajectories.

In units of mean 0 and variance 1 a step maps the last H fields to the next K. With ``difference``
the network gives increments in units of their own spread s,

.. math:: u_{t + k} = u_t + s_k \, N(u_{t - H + 1}, \dots, u_t; p)_k, \qquad k = 1, \dots, K .

:class:`OneStepModel` minimises the mean squared error of that. With a pushforward of P steps
(Brandstetter et al. 2022, arXiv 2202.03376) it is unrolled for 0 to P steps without gradient before
the step that is trained, so that the network sees the errors that it makes itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Required, Self, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.loop import Event, Outcome
from understudy.core.operator import Stepper
from understudy.core.scaling import Scaling
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.training import (
    Listener,
    Stored,
    Training,
    read_operator,
    save_operator,
)

ParameterScaling = Literal["standard", "log", "none"]


class About(TypedDict, total=False):
    """What trajectories are of: their step in time, and perhaps grid and names.

    Attributes
    ----------
    dt : float
        Time between two fields.
    grid : Grid or None
        A periodic unit box unless given.
    channels, parameters : sequence of str or None
        Their names.
    """

    dt: Required[float]
    grid: Grid | None
    channels: Sequence[str] | None
    parameters: Sequence[str] | None


class LearnedStepper(Stepper):
    """A network in steps of time; what all of them share.

    A subclass writes :meth:`_loss` and :meth:`_advance`, has ``model`` as its name in files, and
    lists in ``_options`` the constructor arguments to be stored.

    Parameters
    ----------
    network : FieldNetwork
        Takes ``history`` fields of C channels (and more where the subclass says so).
    history, bundle : int
        Fields seen and fields given by a step.
    parameter_scaling : {"standard", "log", "none"}
        Parameters are standardised, after a logarithm with ``"log"``, or left as they are.
    scale_fields : bool
        Whether fields are standardised channel by channel.

    Attributes
    ----------
    test_errors : tuple of float or None
        Normalised root mean squared error of rollouts at each step, on runs not learnt from, where
        it was measured; it is stored with the operator.
    """

    model: ClassVar[str]
    _options: ClassVar[tuple[str, ...]] = (
        *("history", "bundle", "parameter_scaling", "scale_fields"),
    )

    def __init__(
        self,
        network: FieldNetwork,
        *,
        history: int = 1,
        bundle: int = 1,
        parameter_scaling: ParameterScaling = "standard",
        scale_fields: bool = True,
    ) -> None:
        if history < 1 or bundle < 1:
            raise UserError("history and bundle must be at least 1")
        self.network = network
        self.history, self.bundle = history, bundle
        self.parameter_scaling: ParameterScaling = parameter_scaling
        self.scale_fields = scale_fields
        self.outcome: Outcome | None = None
        self.test_errors: tuple[float, ...] | None = None

    # -- what a subclass writes -----------------------------------------------------------------

    @property
    def _clip_length(self) -> int:
        """Fields in a row that :meth:`_loss` needs."""
        return self.history + self.bundle

    @abstractmethod
    def _loss(
        self, clip: Tensor, p: Tensor | None, generator: torch.Generator, progress: float
    ) -> Tensor:
        """Loss of scaled fields ``(B, _clip_length, C, *space)`` and parameters ``(B, P)``."""

    def _score(self, clip: Tensor, p: Tensor | None, generator: torch.Generator) -> Tensor:
        """What is validated, the smaller the better."""
        return self._loss(clip, p, generator, 1.0)

    def _plan(self, trajectories: Tensor, training: Training | None) -> Training:
        """How to train on trajectories ``(N, T, C, *space)``, taken down where it matters."""
        return training or Training()

    def _require_fit(self) -> None:
        """Refuse a network that does not suit the names that were taken down."""

    # -- learn ----------------------------------------------------------------------------------

    def fit(
        self,
        trajectories: Tensor,
        params: Tensor | None = None,
        *,
        validation: tuple[Tensor, Tensor | None] | None = None,
        training: Training | None = None,
        listener: Listener | None = None,
        **about: Unpack[About],
    ) -> Self:
        """Train on trajectories.

        Parameters
        ----------
        trajectories : Tensor (N, T, C, *space)
            At least ``history + bundle`` times; finite.
        params : Tensor (N, P), optional
        validation : (Tensor (V, T, C, *space), Tensor (V, P) or None), optional
            By which the best weights are chosen.
        training : Training, optional
        listener : callable (Event) -> None, optional
        **about
            `dt`, which is needed, `grid`, `channels` and `parameters`: see :class:`About`.
        """
        plan = self._plan(trajectories, training)
        self.prepare(trajectories, params, device=plan.device, **about)
        device = self._device()
        data = self._fields.forward(trajectories.to(device, torch.float32))
        p = self.scaled_parameters(params, device)
        validate = None if validation is None else self.validator(*validation, plan.seed)
        seen = [0.0]

        def loss(step: int) -> Tensor:
            generator = torch.Generator(device).manual_seed(plan.seed * 1_000_003 + step)
            clip, rows = self._draw(data, plan.batch_size, generator)
            return self._loss(clip, None if p is None else p[rows], generator, seen[0])

        def note(event: Event) -> None:
            seen[0] = event.progress
            if listener is not None:
                listener(event)

        self.outcome = plan.run(self.network, loss, validate, note)
        return self

    def prepare(
        self,
        trajectories: Tensor,
        params: Tensor | None = None,
        *,
        device: str = "cpu",
        **about: Unpack[About],
    ) -> Self:
        """Take down names, grid and units, without training; the arguments are those of `fit`."""
        self._describe(trajectories, params, about)
        self._require_fit()
        self._measure(trajectories.float(), None if params is None else params.float())
        self._to(torch.device(device))
        return self

    @property
    def clip_length(self) -> int:
        """Fields in a row that :meth:`clip_loss` needs."""
        return self._clip_length

    def clip_loss(
        self,
        clip: Tensor,
        params: Tensor | None,
        generator: torch.Generator,
        progress: float = 0.0,
    ) -> Tensor:
        """Training loss of fields in a row, for those who train it in a loop of their own.

        Parameters
        ----------
        clip : Tensor (B, clip_length, C, *space)
        params : Tensor (B, P), optional
        generator : torch.Generator
            On the device of the network.
        progress : float in [0, 1]
        """
        device = self._device()
        scaled = self._fields.forward(clip.to(device, torch.float32))
        return self._loss(scaled, self.scaled_parameters(params, device), generator, progress)

    def _describe(self, trajectories: Tensor, params: Tensor | None, about: About) -> None:
        """Check what is to be learnt, and take down its names."""
        if trajectories.ndim < 4:
            raise UserError(
                "trajectories must be of shape (N, T, C, *space), "
                f"found {tuple(trajectories.shape)}"
            )
        runs, times, count = trajectories.shape[:3]
        space = tuple(trajectories.shape[3:])
        self.grid = about.get("grid") or Grid.of(*space)
        if self.grid.shape != space:
            raise UserError(f"fields have {space} points, the grid has {self.grid.shape}")
        if times < self._clip_length:
            raise UserError(
                f"trajectories have {times} times, at least {self._clip_length} are needed"
            )
        if not bool(trajectories.isfinite().all()):
            lost = int((~trajectories.flatten(1).isfinite().all(1)).sum())
            raise UserError(f"{lost} of {runs} trajectories hold NaN or infinity; leave them out")
        if not about["dt"] > 0:
            raise UserError(f"dt must be positive, found {about['dt']}")
        self.dt = float(about["dt"])
        names = about.get("channels") or (f"u{c}" for c in range(count))
        self.inputs = self.outputs = tuple(names)
        wanted = 0 if params is None else params.shape[1]
        self.parameters = tuple(about.get("parameters") or (f"p{j}" for j in range(wanted)))
        if len(self.inputs) != count or len(self.parameters) != wanted:
            raise UserError("the names of channels or parameters are not as many as these")
        self._checked_parameters(params, runs)

    def _measure(self, trajectories: Tensor, params: Tensor | None) -> None:
        """Take down the units in which the network works."""
        around = (0, 1, *range(3, trajectories.ndim))
        ones = torch.ones(1, 1, trajectories.shape[2], *[1] * (trajectories.ndim - 3))
        plain = Scaling(torch.zeros_like(ones), ones)
        self._fields = Scaling.of(trajectories, around) if self.scale_fields else plain
        scaled = self._fields.forward(trajectories)
        steps = [
            (scaled[:, k:] - scaled[:, :-k]).square().mean(around, keepdim=True).sqrt()
            for k in range(1, self.bundle + 1)
        ]
        self._increment = torch.cat(steps, dim=1).clamp_min(1e-12)
        if params is None:
            self._numbers = Scaling(torch.zeros(1, 0), torch.ones(1, 0))
            return
        if self.parameter_scaling == "log" and bool((params <= 0).any()):
            raise UserError("parameters must be positive where their logarithm is taken")
        of = self._unscaled(params)
        same = Scaling(torch.zeros(1, params.shape[1]), torch.ones(1, params.shape[1]))
        self._numbers = same if self.parameter_scaling == "none" else Scaling.of(of, (0,))

    def _unscaled(self, params: Tensor) -> Tensor:
        return params.log() if self.parameter_scaling == "log" else params

    def scaled_parameters(self, params: Tensor | None, device: torch.device) -> Tensor | None:
        """Parameters ``(B, P)`` in the units of the network."""
        if params is None or not self.parameters:
            return None
        return self._numbers.forward(self._unscaled(params.to(device, torch.float32)))

    def _draw(self, data: Tensor, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Clips ``(batch, _clip_length, C, *space)``, and of which trajectories ``(batch,)``."""
        device, length = data.device, self._clip_length
        rows = torch.randint(len(data), (batch,), generator=generator, device=device)
        starts = data.shape[1] - length + 1
        begin = torch.randint(starts, (batch,), generator=generator, device=device)
        times = begin[:, None] + torch.arange(length, device=device)
        return data[rows[:, None], times], rows

    def validator(
        self, trajectories: Tensor, params: Tensor | None = None, seed: int = 0
    ) -> Callable[[], Tensor]:
        """Score of clips drawn once from trajectories ``(V, T, C, *space)``, as a function."""
        if trajectories.shape[2:] != (len(self.inputs), *self.grid.shape):
            raise UserError(
                "validation trajectories do not have the channels or grid of the others"
            )
        device = self._device()
        data = self._fields.forward(trajectories.to(device, torch.float32))
        generator = torch.Generator(device).manual_seed(seed + 77)
        clip, rows = self._draw(data, min(512, 8 * len(data)), generator)
        p = self.scaled_parameters(self._checked_parameters(params, len(data)), device)
        known = None if p is None else p[rows]

        def validate() -> Tensor:
            self.network.eval()
            fixed = torch.Generator(device).manual_seed(seed + 78)
            score = self._score(clip, known, fixed)
            self.network.train()
            return score

        return validate

    # -- use ------------------------------------------------------------------------------------

    @property
    def field_units(self) -> Scaling:  # noqa: D102
        return self._fields

    @property
    def parameter_units(self) -> Scaling:  # noqa: D102
        return self._numbers

    @property
    def change_units(self) -> Tensor:
        """Root mean square change ``(1, bundle, C, 1, ...)`` after each step, in scaled fields."""
        return self._increment

    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _to(self, device: torch.device) -> None:
        """Put everything on a device."""
        self.network.to(device)
        self._fields, self._numbers = self._fields.to(device), self._numbers.to(device)
        self._increment = self._increment.to(device)

    def to(self, device: str) -> Self:
        """Compute on a device from now on."""
        self._to(torch.device(device))
        return self

    # -- keep -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write to a ``.us`` file, from which :meth:`load` restores it."""
        options = {name: getattr(self, name) for name in self._options}
        settings: dict[str, Any] = {
            **{"options": options, "dt": self.dt, "channels": list(self.inputs)},
            "parameters": list(self.parameters),
        }
        if self.test_errors is not None:
            settings["test_errors"] = list(self.test_errors)
        tensors = {
            **{"fields.shift": self._fields.shift, "fields.scale": self._fields.scale},
            **{"numbers.shift": self._numbers.shift, "numbers.scale": self._numbers.scale},
            "increment": self._increment,
        }
        return save_operator(path, self.model, self.network, self.grid, settings, tensors)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a ``.us`` file."""
        return cls.restore(read_operator(path, cls.model))

    @classmethod
    def restore(cls, stored: Stored) -> Self:
        """Make one of what was stored."""
        settings, tensors = stored.settings, stored.tensors
        new = cls(stored.network, **settings["options"])
        new.grid, new.dt = stored.grid, settings["dt"]
        new.inputs = new.outputs = tuple(settings["channels"])
        new.parameters = tuple(settings["parameters"])
        new._fields = Scaling(tensors["fields.shift"], tensors["fields.scale"])
        new._numbers = Scaling(tensors["numbers.shift"], tensors["numbers.scale"])
        new._increment = tensors["increment"]
        if "test_errors" in settings:
            new.test_errors = tuple(float(error) for error in settings["test_errors"])
        return new


class OneStepModel(LearnedStepper):
    """A network trained to predict the next step, the baseline of all neural solvers.

    Parameters
    ----------
    network : FieldNetwork
        From ``history`` times C channels to ``bundle`` times C.
    history, bundle : int
    difference : bool
        Whether the network gives increments in units of their spread, or the fields themselves.
    pushforward : int
        Largest number P of steps without gradient before the one that is trained.
    noise : float
        Spread of Gaussian noise on what the network sees in training, in units of the fields'.
    loss : callable (predicted, true) -> Tensor (), optional
        Of ``(B, bundle * C, *space)``, increments with ``difference``; mean squared error unless
        given. It is not stored in files.
    parameter_scaling, scale_fields
        See :class:`LearnedStepper`.
    """

    model = "one-step"
    _options = (*LearnedStepper._options, "difference", "pushforward", "noise")

    def __init__(
        self,
        network: FieldNetwork,
        *,
        history: int = 1,
        bundle: int = 1,
        difference: bool = True,
        pushforward: int = 0,
        noise: float = 0.0,
        loss: Callable[[Tensor, Tensor], Tensor] = mse_loss,
        parameter_scaling: ParameterScaling = "standard",
        scale_fields: bool = True,
    ) -> None:
        super().__init__(
            network,
            history=history,
            bundle=bundle,
            parameter_scaling=parameter_scaling,
            scale_fields=scale_fields,
        )
        if pushforward < 0 or noise < 0:
            raise UserError("pushforward and noise cannot be negative")
        self.difference, self.pushforward, self.noise = difference, pushforward, noise
        self.loss = loss

    @property
    def _clip_length(self) -> int:
        return self.history + self.bundle * (self.pushforward + 1)

    def _loss(
        self, clip: Tensor, p: Tensor | None, generator: torch.Generator, progress: float
    ) -> Tensor:
        past, unrolled = clip[:, : self.history], 0
        if self.pushforward:
            drawn = torch.randint(
                self.pushforward + 1, (1,), generator=generator, device=clip.device
            )
            unrolled = int(drawn)
        if self.noise:
            extra = torch.randn(past.shape, generator=generator, device=clip.device)
            past = past + self.noise * extra
        with torch.no_grad():
            for _ in range(unrolled):
                past = torch.cat([past, self._next(past, p)], dim=1)[:, -self.history :]
        at = self.history + unrolled * self.bundle
        true = clip[:, at : at + self.bundle]
        given = self.network(past.flatten(1, 2), p)
        wanted = (true - past[:, -1:]) / self._increment if self.difference else true
        return self.loss(given, wanted.flatten(1, 2))

    def _score(self, clip: Tensor, p: Tensor | None, generator: torch.Generator) -> Tensor:
        past = clip[:, : self.history]
        true = clip[:, self.history : self.history + self.bundle]
        return ((self._next(past, p) - true) / self._increment).square().mean()

    def _next(self, past: Tensor, p: Tensor | None) -> Tensor:
        """Next scaled fields ``(B, bundle, C, *space)`` of ``(B, history, C, *space)``."""
        given = self.network(past.flatten(1, 2), p).unflatten(1, (self.bundle, -1))
        return past[:, -1:] + self._increment * given if self.difference else given

    def _advance(
        self, past: Tensor, params: Tensor | None, generators: list[torch.Generator]
    ) -> Tensor:
        p = self.scaled_parameters(params, past.device)
        return self._fields.inverse(self._next(self._fields.forward(past), p))
