r"""PROSE: operators and equations by one transformer (Liu, Zhang & Schaeffer 2023, 2309.16816).

Given the first samples of a trajectory, with noise, and a guess of its equation, which may lack its
numbers or have a term too many or too few, a network answers with the solution at any later times
and with the complete equation,

.. math:: (u(t_1), \dots, u(t_m);\ \text{guess}) \mapsto (t \mapsto \hat u(t);\ \text{equation}) .

It is trained on whole families of equations, see :mod:`understudy.models.operators.prose_training`.
The network is in :mod:`understudy.models.operators.prose_network`, the language of tokens in
:mod:`understudy.models.operators.equation_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.core.expressions import ExpressionList
from understudy.core.loop import Outcome
from understudy.data.trajectories import TrajectorySet, check_times
from understudy.models.operators.equation_tokens import ExpressionTokenizer
from understudy.models.operators.prose_network import Fused, PROSEArchitecture, PROSENetwork
from understudy.models.operators.prose_training import PROSETraining, train
from understudy.models.operators.training import Listener
from understudy.models.operators.writing import write_equations

KIND = "prose"
_CHUNK = 128

Guess = str | ExpressionList
"""An equation, complete or with masked numbers, or its text."""


@dataclass(frozen=True)
class PROSEPrediction:
    """What a PROSE says.

    Parameters
    ----------
    u : Tensor (B, q, d_max), optional
        Solutions at the times asked for; None of a network without a data decoder.
    expression : tuple of ExpressionList or None
        Equation of each trajectory, None where the tokens written are none; empty where the network
        writes none.
    valid : Tensor (B,), optional
        Which equations were ones.
    """

    u: Tensor | None
    expression: tuple[ExpressionList | None, ...]
    valid: Tensor | None

    def equation(self, i: int = 0) -> str:
        """Equation of a trajectory in LaTeX, a line a component."""
        if not self.expression:
            raise UserError("this network writes no equations: it has no symbol decoder")
        written = self.expression[i]
        return "invalid expression" if written is None else written.latex()


class PROSE:
    """Forecasts trajectories of a family of systems and writes down their equations.

    Parameters
    ----------
    tokenizer : ExpressionTokenizer
    architecture : PROSEArchitecture
        Whose number of tokens is the tokeniser's.
    guess : {"skeleton", "numbers"}
        Whether guesses are trained on with numbers masked or known.
    units : {"data", "trajectory"}
        Whether the network's solutions are in one unit for all data or in that of the root mean
        square of their own input. The paper has no units; the second learns sooner where systems
        differ in size.
    """

    def __init__(
        self,
        tokenizer: ExpressionTokenizer,
        architecture: PROSEArchitecture,
        guess: Literal["skeleton", "numbers"] = "skeleton",
        units: Literal["data", "trajectory"] = "data",
    ) -> None:
        if architecture.num_tokens != len(tokenizer):
            raise UserError(
                f"the network is made for {architecture.num_tokens} tokens, the tokeniser has "
                f"{len(tokenizer)}"
            )
        if guess not in ("skeleton", "numbers"):
            raise UserError(f"guess must be 'skeleton' or 'numbers', found {guess!r}")
        if units not in ("data", "trajectory"):
            raise UserError(f"units must be 'data' or 'trajectory', found {units!r}")
        self.tokenizer, self.guess, self.units = tokenizer, guess, units
        self.network = PROSENetwork(architecture)
        self.scale, self.given, self.span, self.trees = 1.0, (), (0.0, 0.0), ()
        self.outcome: Outcome | None = None

    model: ClassVar[str] = KIND
    scale: float
    """Unit of states in the network: geometric mean of the sizes of the training trajectories."""
    given: tuple[int, ...]
    """Numbers of points that an input may have."""
    span: tuple[float, float]
    """First and last time of the training trajectories."""
    trees: tuple[str, ...]
    """Equations of the training, numbers masked, as :meth:`ExpressionList.parse` reads them."""

    # -- training -----------------------------------------------------------------------------

    def fit(
        self,
        data: TrajectorySet,
        given: int | Sequence[int] = 64,
        training: PROSETraining | None = None,
        listener: Listener | None = None,
    ) -> Self:
        """Train on trajectories and their equations.

        Parameters
        ----------
        data : TrajectorySet
        given : int or sequence of int
            Points of a trajectory that are the input; of several, steps take one after the other.
            The solution is learnt after the largest of them.
        training : PROSETraining, optional
        listener : callable (Event) -> None, optional
        """
        self.prepared(data, given)
        self.outcome = train(self, data, training or PROSETraining(), listener)
        return self

    def prepared(self, data: TrajectorySet, given: int | Sequence[int]) -> Self:
        """Take units and times from the data of a training, which :meth:`fit` does first."""
        self.given = (given,) if isinstance(given, int) else tuple(given)
        self._check(data)
        self.span = (float(data.t[0]), float(data.t[-1]))
        self.trees = tuple(map(str, data.skeletons))
        squares = data.u.square().sum((1, 2)) / (data.dims * len(data.t))
        self.scale = float(squares.clamp_min(1e-12).log().mean().div(2).exp())
        return self

    def _check(self, data: TrajectorySet) -> None:
        sizes = self.network.architecture
        if data.u.shape[2] != sizes.max_dim:
            raise UserError(
                f"the network is made for {sizes.max_dim} components, trajectories have "
                f"{data.u.shape[2]}"
            )
        if not self.given or min(self.given) < 1 or max(self.given) >= len(data.t):
            raise UserError(
                f"between 1 and {len(data.t) - 1} of {len(data.t)} points can be given, "
                f"found {', '.join(map(str, self.given)) or 'none'}"
            )

    # -- prediction ---------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self,
        t: Tensor,
        u: Tensor,
        symbols: Guess | Sequence[Guess] | None = None,
        t_query: Tensor | None = None,
        beams: int = 1,
    ) -> PROSEPrediction:
        """Solution and equation of trajectories.

        Parameters
        ----------
        t : Tensor (T,)
            Times of the samples, as many as the network was trained on.
        u : Tensor (B, T, d) or (T, d)
            d at most the components of the largest system.
        symbols : equation or sequence of B equations, optional
            Guesses, or one for all; text is read by :meth:`ExpressionList.parse`. Needed by a
            network that reads symbols, ignored by one that does not.
        t_query : Tensor (q,), optional
            Times asked for; needed by a network that forecasts.
        beams : int
            Width of the beam search; 1 is greedy, as in the paper.

        Raises
        ------
        UserError
            If there are too many or too few samples, times do not increase or were never trained
            on, a guess is missing or has words that the tokeniser does not know.
        """
        u, sizes = self._checked(t, u), self.network.architecture
        if beams < 1:
            raise UserError(f"a beam search has at least one beam, found {beams}")
        queries = self._queries(t_query) if sizes.writes_data else None
        solutions: list[Tensor] = []
        equations: list[ExpressionList | None] = []
        for fused, units in self._encoded(t, u, symbols):
            if queries is not None:
                solutions.append((units * self.network.solution(fused, queries)).cpu())
            if sizes.writes_symbols:
                equations += write_equations(self.network, self.tokenizer, fused, beams)
        valid = torch.tensor([e is not None for e in equations]) if sizes.writes_symbols else None
        return PROSEPrediction(torch.cat(solutions) if solutions else None, tuple(equations), valid)

    @torch.no_grad()
    def forecast(
        self,
        t: Tensor,
        u: Tensor,
        symbols: Guess | Sequence[Guess] | None = None,
        t_query: Tensor | None = None,
    ) -> Tensor:
        """Solutions ``(B, q, d_max)`` alone, without writing equations; see :meth:`predict`."""
        if not self.network.architecture.writes_data:
            raise UserError("this network does not forecast: it has no data decoder")
        u, queries = self._checked(t, u), self._queries(t_query)
        parts = [
            (units * self.network.solution(fused, queries)).cpu()
            for fused, units in self._encoded(t, u, symbols)
        ]
        return torch.cat(parts)

    def _encoded(
        self, t: Tensor, u: Tensor, symbols: Guess | Sequence[Guess] | None
    ) -> Iterator[tuple[Fused, Tensor]]:
        """Fused features and units of the solutions, some trajectories at a time."""
        reads = self.network.architecture.reads_symbols
        guesses = self._guesses(symbols, len(u)) if reads else None
        for i in range(0, len(u), _CHUNK):
            some = u[i : i + _CHUNK]
            units = self.units_of(some, some.ne(0).any(dim=1)).to(self._device)
            yield self._fused(t, some, guesses, i), units

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def units_of(self, given: Tensor, mask: Tensor) -> Tensor:
        """Units of solutions (B, 1, 1), of inputs (B, T, d) whose real components are (B, d)."""
        if self.units == "data":
            return given.new_full((len(given), 1, 1), self.scale)
        count = mask.sum(1).clamp_min(1) * given.shape[1]
        size = (given.square().sum((1, 2)) / count).sqrt()
        return size.clamp_min(1e-6 * self.scale)[:, None, None]

    def _fused(self, t: Tensor, u: Tensor, guesses: Tensor | None, start: int) -> Fused:
        device = self._device
        guess = None if guesses is None else guesses[start : start + len(u)].to(device)
        return self.network.encode(t.to(device), u.to(device) / self.scale, guess)

    def _checked(self, t: Tensor, u: Tensor) -> Tensor:
        if not self.given:
            raise UserError("this PROSE is not trained: call fit or load one")
        u = u[None] if u.ndim == 2 else u
        largest = self.network.architecture.max_dim
        if u.ndim != 3 or not 1 <= u.shape[2] <= largest:
            raise UserError(
                f"trajectories must be (B, T, d) with at most {largest} components, "
                f"found {tuple(u.shape)}"
            )
        check_times(t, "times of samples")
        wanted = " or ".join(map(str, self.given))
        if u.shape[1] != len(t) or len(t) not in self.given:
            raise UserError(
                f"this PROSE takes {wanted} samples of a trajectory, found {u.shape[1]} at "
                f"{len(t)} times"
            )
        if not bool(torch.isfinite(u).all()):
            raise UserError("samples of a trajectory must be finite, found NaN or infinity")
        return F.pad(u.float(), (0, largest - u.shape[2]))

    def _queries(self, t_query: Tensor | None) -> Tensor:
        if t_query is None:
            raise UserError("t_query is missing: at which times is the solution wanted?")
        first, last = self.span
        low, high = float(t_query.min()), float(t_query.max())
        if t_query.ndim != 1 or not first <= low <= high <= last + 1e-9:
            raise UserError(
                f"times asked for must be a row within {first:g} .. {last:g}, on which the "
                f"network was trained, found {low:g} .. {high:g}"
            )
        return t_query

    def _guesses(self, symbols: Guess | Sequence[Guess] | None, count: int) -> Tensor:
        if symbols is None or (not isinstance(symbols, ExpressionList) and not len(symbols)):
            raise UserError(
                "this PROSE reads a guess of the equation: give symbols, with ? for numbers that "
                "are not known"
            )
        some = [symbols] * count if isinstance(symbols, str | ExpressionList) else list(symbols)
        if len(some) != count:
            raise UserError(f"{count} trajectories need as many guesses, found {len(some)}")
        read = [ExpressionList.parse(s) if isinstance(s, str) else s for s in some]
        tokens = self.tokenizer.encode_all(read, placeholders=self.guess == "skeleton")
        longest = self.network.architecture.max_tokens
        if tokens.shape[1] > longest:
            raise UserError(f"a guess has {tokens.shape[1]} tokens, at most {longest} are read")
        return tokens

    # -- files --------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write to a ``.us`` file, from which :meth:`load` restores it: JSON and tensors."""
        manifest = {
            "kind": KIND,
            "architecture": self.network.describe(),
            "tokenizer": self.tokenizer.describe(),
            "guess": self.guess,
            "units": self.units,
            "scale": self.scale,
            "given": list(self.given),
            "span": list(self.span),
            "trees": list(self.trees),
        }
        return artifact.write(path, manifest, self.network.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a ``.us`` file.

        Raises
        ------
        UserError
            If it holds something else, or parts that do not fit.
        """
        stored = artifact.read(path)
        what = stored.manifest
        if what.get("kind") != KIND:
            raise UserError(f"{path} holds a {what.get('kind')!r}, not a {KIND!r}")
        try:
            tokenizer = ExpressionTokenizer(**what["tokenizer"])
            sizes = PROSEArchitecture(**what["architecture"])
            new = cls(tokenizer, sizes, what["guess"], what["units"])
            new.scale, new.given = float(what["scale"]), tuple(map(int, what["given"]))
            first, last = map(float, what["span"])
            new.span, new.trees = (first, last), tuple(map(str, what["trees"]))
            new.network.load_state_dict(stored.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path} is damaged: its parts do not fit ({error})") from error
        new.network.eval()
        return new
