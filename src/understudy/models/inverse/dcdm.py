r"""The deep conjugate direction method (Kaneda et al. 2023, arXiv 2205.10763).

To solve :math:`A x = b` with A symmetric and positive definite, a network f proposes directions of
search, of which only the direction matters:

.. math:: d = f(r/\|r\|) - \sum_{j=1}^{q} p_j\, \frac{f(r/\|r\|) \cdot A p_j}{p_j \cdot A p_j},
    \qquad x^+ = x + d\, \frac{d \cdot r}{d \cdot A d}, \qquad r = b - A x

until :math:`\|r\| < \mathrm{tol}\,\|r_0\|`, with q = 2 former directions. x, r and all products are
in double precision, the network in its own; the step is a line search, so that the error falls in
the norm of A whatever the network says.

The network is trained without solutions, on residuals b of unit length made of Ritz vectors
(:mod:`understudy.models.inverse.ritz`), by what one step leaves of them:

.. math:: L = \mathbb{E}\,\|b - \alpha A y\|^2, \qquad y = f(b), \qquad
    \alpha = \frac{y \cdot b}{y \cdot A y}

which is 1 for a useless direction and 0 for :math:`A^{-1} b`. Gradients flow through
:math:`\alpha`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.core.linear_solver import Array, Callback, Operator, SolveResult, SPDOperator
from understudy.core.loop import Event, Outcome
from understudy.models.inverse.direction_network import DirectionNetwork
from understudy.models.inverse.krylov import conjugate_directions
from understudy.models.inverse.ritz import RitzVectors
from understudy.models.operators.training import Listener, Training

KIND = "linear solver"

Network = Callable[[Tensor], Tensor]
"""From residuals ``(B, 1, *grid)`` of unit length to directions of the same shape."""

_POINTS_AT_ONCE = {"cpu": 2**16, "cuda": 2**22}
"""On a CPU, more than what stays in its caches takes a third longer a point."""
_HELD_OUT, _HELD_OUT_POINTS = 200, 2**22


@dataclass(frozen=True)
class DeepConjugateDirection:
    """Solver whose directions of search a network proposes.

    Parameters
    ----------
    model : Module or callable (B, 1, *grid) -> (B, 1, *grid)
        A :class:`~understudy.models.inverse.direction_network.DirectionNetwork`, or anything; a
        module is called in the precision and on the device of its parameters, another function in
        double precision.
    q : int
        Former directions that the next is made conjugate to; 2 in the paper, 0 is steepest descent
        along f.
    grid_shape : tuple of int, optional
        Grid of the unknowns, last axis fastest. A square or cube of as many points by default.
    tol, maxiter : float, int
        Defaults of :meth:`solve`.
    facts : dict
        JSON that is kept with the solver, such as how it was trained.
    """

    model: Network
    q: int = 2
    grid_shape: tuple[int, ...] | None = None
    tol: float = 1e-4
    maxiter: int = 100
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.q, bool) or not isinstance(self.q, int) or self.q < 0:
            raise UserError(f"q must be a whole number of at least 0, found {self.q!r}")
        if self.grid_shape is not None:
            checked_grid(self.grid_shape)

    def solve(
        self,
        A: Operator,
        b: ArrayLike,
        x0: ArrayLike | None = None,
        tol: float | None = None,
        maxiter: int | None = None,
        callback: Callback | None = None,
    ) -> SolveResult:
        """Solve :math:`A x = b` for one right-hand side or many at once.

        Parameters
        ----------
        A : operator
            Sparse matrix, LinearOperator, function of arrays (n, k), or an
            :class:`~understudy.core.linear_solver.SPDOperator`, which saves checking it anew.
        b : array (n,) or (n, k)
        x0 : array like b, optional
            Zeros by default.
        tol : float in (0, 1), optional
            Norm of the residual over the first.
        maxiter : int, optional
        callback : callable, optional
            Is given x after every iteration.

        Raises
        ------
        UserError
            If A, b or the grid will not do, A is not positive definite along a direction, or the
            network proposes nothing or nonsense.
        """
        operator = SPDOperator.of(A, np.shape(b)[0] if np.ndim(b) else None)
        grid = self.grid_of(operator.n)
        return conjugate_directions(
            operator,
            b,
            lambda r: self._directions(r, grid),
            self.q,
            x0,
            self.tol if tol is None else tol,
            self.maxiter if maxiter is None else maxiter,
            callback,
        )

    def directions(self, r: Array) -> Array:
        """What the network says ``(n, k)`` to residuals ``(n, k)`` of any length."""
        return self._directions(r, self.grid_of(len(r)))

    @torch.no_grad()
    def _directions(self, r: Array, grid: tuple[int, ...]) -> Array:
        length = np.sqrt(np.einsum("nk,nk->k", r, r))
        unit = np.ascontiguousarray((r / np.where(length > 0.0, length, 1.0)).T)
        images = torch.from_numpy(unit).reshape(-1, 1, *grid)
        some = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        if some is not None:
            images = images.to(some.device, some.dtype)
        at_once = max(1, _POINTS_AT_ONCE.get(images.device.type, 2**22) // len(r))
        found = torch.cat([self.model(part) for part in images.split(at_once)])
        if found.shape != images.shape:
            raise UserError(
                f"the network gave the shape {tuple(found.shape)} for residuals of shape "
                f"{tuple(images.shape)}"
            )
        y = found.reshape(len(images), -1).double().cpu().numpy().T
        if not np.isfinite(y).all():
            raise UserError("the network gave directions that are not finite")
        return np.ascontiguousarray(y)

    def grid_of(self, n: int) -> tuple[int, ...]:
        """Grid of n unknowns."""
        if self.grid_shape is not None:
            if math.prod(self.grid_shape) != n:
                raise UserError(
                    f"the grid {self.grid_shape} has {math.prod(self.grid_shape)} points, but A "
                    f"has {n} unknowns"
                )
            return self.grid_shape
        dimensions = getattr(self.model, "dimensions", 2)
        side = round(n ** (1.0 / dimensions))
        if side**dimensions != n:
            raise UserError(
                f"{n} unknowns are no square or cube in {dimensions} dimensions: name grid_shape"
            )
        return (side,) * dimensions

    def on(self, *grid_shape: int) -> Self:
        """Return the same solver for another grid."""
        return replace(self, grid_shape=tuple(grid_shape))

    def in_bfloat16(self) -> Self:
        """Return the same solver with a network that computes in 16 bits.

        Only directions come out of it: the loop stays in double precision and reaches the same
        tolerances in a few more iterations, each of half the time where the processor has
        instructions for it.
        """
        if not isinstance(self.model, nn.Module):
            raise UserError("only a network that is a module has weights to round")
        return replace(self, model=copy.deepcopy(self.model).bfloat16())

    def as_preconditioner(self, A: Operator, steps: int = 1) -> LinearOperator:
        """Some iterations from 0 as what stands for :math:`A^{-1}`.

        It is not linear: use it with :func:`understudy.models.inverse.krylov.flexible_cg`.

        Parameters
        ----------
        A : operator
            A LinearOperator, a matrix or a checked operator; a function does not say its size.
        steps : int
            Iterations, and so evaluations of the network, of one application.
        """
        operator = SPDOperator.of(A)
        if steps < 1:
            raise UserError(f"steps must be at least 1, found {steps}")

        def apply(r: Array) -> Array:
            return self.solve(operator, r, tol=1e-12, maxiter=steps).x

        shape = (operator.n, operator.n)
        return LinearOperator(shape, matvec=apply, matmat=apply, dtype=np.float64)

    # -- files --------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the solver to a ``.us`` file: JSON and tensors, no code."""
        network = self.model
        if not isinstance(network, DirectionNetwork):
            raise UserError("only solvers with a DirectionNetwork can be saved")
        manifest = {
            "kind": KIND,
            "network": network.settings,
            "q": self.q,
            "grid": None if self.grid_shape is None else list(self.grid_shape),
            "tol": self.tol,
            "maxiter": self.maxiter,
            "facts": self.facts,
        }
        return artifact.write(path, manifest, tensors_of(network))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a solver from a ``.us`` file.

        Raises
        ------
        UserError
            If the file holds something else, or parts that do not fit.
        """
        stored = artifact.read(path)
        manifest = stored.manifest
        if manifest["kind"] != KIND:
            raise UserError(f"{path} holds a {manifest['kind']!r}, not a linear solver")
        try:
            grid = manifest["grid"]
            return cls(
                network_of(manifest["network"], stored.tensors),
                manifest["q"],
                None if grid is None else tuple(grid),
                manifest["tol"],
                manifest["maxiter"],
                manifest["facts"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{path} holds a solver whose parts do not fit together "
                f"({type(error).__name__}: {str(error).splitlines()[0][:120]})"
            ) from error


def load_solver(path: str | Path) -> DeepConjugateDirection:
    """Read a solver of linear systems from a ``.us`` file."""
    return DeepConjugateDirection.load(path)


def tensors_of(network: DirectionNetwork) -> dict[str, Tensor]:
    """Weights by name, as files hold them."""
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def network_of(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DirectionNetwork:
    """Network of its settings and weights."""
    network = DirectionNetwork(**settings)
    network.load_state_dict(dict(tensors))
    return network.eval()


def checked_grid(grid: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a grid of two or three dimensions and at least 4 points a side."""
    if len(grid) not in (2, 3) or any(isinstance(n, bool) or int(n) != n or n < 4 for n in grid):
        raise UserError(f"a grid has two or three sides of at least 4 points, found {tuple(grid)}")
    return tuple(int(n) for n in grid)


# -- training -------------------------------------------------------------------------------------


class _Product(torch.autograd.Function):
    """Products of a symmetric A with vectors ``(B, n)``; the gradient is another such product."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, operator: SPDOperator) -> Tensor:
        ctx.operator = operator
        return _applied(operator, y)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        return _applied(ctx.operator, gradient[0]), None


def _applied(operator: SPDOperator, y: Tensor) -> Tensor:
    columns = y.detach().cpu().double().numpy().T
    return torch.from_numpy(operator.apply(columns).T).to(y)


def direction_loss(A: Operator, b: Tensor, y: Tensor) -> Tensor:
    r"""Mean of :math:`\|b - \alpha A y\|^2` with the energy-norm step :math:`\alpha`.

    Parameters
    ----------
    A : operator
        SPD.
    b : Tensor (B, n)
        Residuals of unit length.
    y : Tensor (B, n)
        Directions of any length.

    Returns
    -------
    Tensor ()
        0 where y is along :math:`A^{-1} b`, 1 where it does not help; it can be more.
    """
    Ay = _Product.apply(y, SPDOperator.of(A, b.shape[1]))
    alpha = (y * b).sum(1, keepdim=True) / (y * Ay).sum(1, keepdim=True)
    return (b - alpha * Ay).square().sum(1).mean()


DEFAULT_TRAINING = Training(
    steps=2000,
    batch_size=10,
    learning_rate=3e-3,
    warmup=0.02,
    floor=0.01,
    ema_decay=None,
    clip_norm=None,
    optimizer="soap-kernels",
)
"""SOAP with kernels as matrices (:mod:`understudy.nn.soap`), from 3e-3 down along half a cosine.

The paper has Adam, at 1e-4 for up to 1000 epochs. ``replace(DEFAULT_TRAINING, optimizer="adam",
learning_rate=1e-3)`` leaves four to nine times the loss of SOAP after as many seconds of one core.
"""


def train_direction_network(
    A: Operator,
    ritz: RitzVectors,
    network: nn.Module,
    grid_shape: Sequence[int],
    training: Training = DEFAULT_TRAINING,
    listener: Listener | None = None,
) -> Outcome:
    """Train a network on fresh residuals of the Ritz law, and keep the best weights.

    The weights that are kept are the best on held-out residuals of the same law. The official code
    stores 20,000 residuals and goes through them up to 1000 times; here every batch is new, which
    needs no store and cannot be learnt by heart.

    Parameters
    ----------
    A : operator
        That of `ritz`.
    ritz : RitzVectors
    network : Module (B, 1, *grid) -> (B, 1, *grid)
    grid_shape : tuple of int
    training : Training
        With a checkpoint, a run that was cut off goes on.
    listener : callable, optional

    Returns
    -------
    Outcome
        Its score is the held-out loss.
    """
    grid = checked_grid(grid_shape)
    n = ritz.vectors.shape[0]
    if math.prod(grid) != n:
        raise UserError(f"the grid {grid} has {math.prod(grid)} points, but A has {n} unknowns")
    operator = SPDOperator.of(A, n)
    network.to(training.device)
    seeds = torch.Generator().manual_seed(training.seed)
    count = max(20, min(_HELD_OUT, _HELD_OUT_POINTS // n))
    held_out = ritz.draw(count, seeds).to(training.device)

    def loss_of(b: Tensor) -> Tensor:
        y = network(b.reshape(-1, 1, *grid))
        return direction_loss(operator, b, y.reshape(len(b), -1))

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed((training.seed << 32) + step + 1)
        return loss_of(ritz.draw(training.batch_size, generator).to(training.device))

    def validate() -> Tensor:
        parts = held_out.split(training.batch_size)
        return torch.stack([loss_of(part) * len(part) for part in parts]).sum() / len(held_out)

    return training.run(network, loss, validate, listener)


def learn_solver(
    A: Operator,
    grid_shape: Sequence[int],
    training: Training = DEFAULT_TRAINING,
    num_ritz: int | None = None,
    network: DirectionNetwork | None = None,
    q: int = 2,
    boost: float = 9.0,
    listener: Listener | None = None,
    ritz_listener: Callable[[int, int], None] | None = None,
) -> DeepConjugateDirection:
    """Learn a solver for an operator of one's own: Ritz vectors, then training.

    Parameters
    ----------
    A : operator
        SPD; on the grid, neighbours should have something to do with each other.
    grid_shape : tuple of int
        Two or three sides; the last axis is the fastest.
    training : Training
        Its seed is also that of the Ritz vectors and of the first weights.
    num_ritz : int, optional
        By default 800, or as many as fit into 2 GiB.
    network : DirectionNetwork, optional
        The paper's for 64 points a side by default.
    q : int
        Of the solver.
    boost : float
        Of the law of training residuals, see :class:`~understudy.models.inverse.ritz.RitzVectors`.
    listener : callable, optional
        Is told of every step.
    ritz_listener : callable (done, total), optional
        Is told of every Ritz vector.

    Returns
    -------
    DeepConjugateDirection
        With ``facts``: held-out ``loss``, ``steps``, ``seconds``, ``reason``, ``log`` of
        (step, seconds, best loss) and what it was trained on.
    """
    grid = checked_grid(grid_shape)
    operator = SPDOperator.of(A, math.prod(grid))
    num_ritz = ritz_count(operator.n) if num_ritz is None else num_ritz
    ritz = RitzVectors.of(
        operator, num_ritz, boost=boost, seed=training.seed, listener=ritz_listener
    )
    torch.manual_seed(training.seed)
    network = DirectionNetwork(len(grid)) if network is None else network
    log: list[list[float]] = []

    def listen(event: Event) -> None:
        if event.score is not None and event.step % training.validate_every == 0:
            log.append([event.step, round(event.seconds, 1), round(float(event.score), 6)])
        if listener is not None:
            listener(event)

    outcome = train_direction_network(operator, ritz, network, grid, training, listen)
    facts = {
        "loss": math.nan if outcome.score is None else float(outcome.score),
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "reason": outcome.reason,
        "grid": list(grid),
        "ritz_vectors": len(ritz.values),
        "seed": training.seed,
        "batch": training.batch_size,
        "optimizer": training.optimizer,
        "log": log,
    }
    if outcome.score is None:
        del facts["loss"]  # cut off before the first validation
    return DeepConjugateDirection(network, q, grid, facts=facts)


def ritz_count(n: int) -> int:
    """How many Ritz vectors of n unknowns are worth their memory: 800 in 2 GiB at most."""
    return max(1, min(800, n, 2**28 // n))
