"""A simulator as a prior: tune a network to the data sets that you expect."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.simulator import Simulator
from understudy.core.space import nearest
from understudy.models.incontext.draws import uniform
from understudy.models.incontext.task import TaskBatch


@dataclass(frozen=True)
class SimulatorPrior:
    """Data sets that a simulator gives while some of its inputs are unknown but fixed.

    A data set draws the hidden inputs once; its rows are runs at random values of the others. A
    network trained on them answers for a system whose hidden inputs nobody has measured, from the
    runs that were made with it. Runs are made when they are asked for: a simulator with a fast
    `run_many` serves best.

    Parameters
    ----------
    simulator : Simulator
    inputs : sequence of str
        Inputs that the rows of a data set vary; the others are hidden.
    output : str, optional
        Output that is predicted; the only one where there is one.
    noise : float
        Standard deviation of noise added to outcomes, in units of the output.
    """

    simulator: Simulator
    inputs: tuple[str, ...]
    output: str | None = None
    noise: float = 0.0
    _columns: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = self.simulator.space.names
        object.__setattr__(self, "inputs", tuple(self.inputs))
        for name in self.inputs:
            if name not in names:
                raise UserError(f"the simulator has no input {name!r}{nearest(name, names)}")
        if not self.inputs:
            raise UserError("a data set needs at least one input that varies")
        outputs = self.simulator.outputs
        if self.output is None and len(outputs) > 1:
            raise UserError(f"the simulator has several outputs: name one of {list(outputs)}")
        if self.output is not None and self.output not in outputs:
            raise UserError(
                f"the simulator has no output {self.output!r}{nearest(self.output, list(outputs))}"
            )
        object.__setattr__(self, "_columns", tuple(names.index(name) for name in self.inputs))

    @property
    def features(self) -> int:
        """Number of inputs that vary."""
        return len(self.inputs)

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows, with inputs in the unit cube."""
        space = self.simulator.space
        u = uniform(generator, batch, 1, len(space)).expand(-1, rows, -1).clone()
        u[..., self._columns] = uniform(generator, batch, rows, self.features)
        codes = space.from_unit(u.reshape(-1, len(space)).double().cpu())
        inputs = space.to_unit(codes)[:, self._columns]  # whole numbers and choices are rounded
        table = self.simulator.run_many(space.decode(codes))
        values = table[self.output or self.simulator.outputs[0]].to_numpy(dtype=np.float64)
        failed = ~np.isfinite(values)
        if failed.any():
            row = int(np.flatnonzero(failed)[0])
            raise UserError(f"run {row} of the simulator gave {values[row]}: {codes[row].tolist()}")
        f = torch.from_numpy(np.array(values)).reshape(batch, rows)
        y = f + self.noise * torch.randn(batch, rows, generator=_like(generator))
        x = inputs.reshape(batch, rows, -1)
        return TaskBatch(*(_single(t, generator) for t in (x, y, y)))


def _like(generator: torch.Generator) -> torch.Generator:
    """A generator on the CPU that follows from one on any device."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def _single(values: Tensor, generator: torch.Generator) -> Tensor:
    return values.float().to(generator.device)
