"""Training while runs stream: simulations feed a network without a data set on disk.

- :class:`OnlineTrainer`, :class:`OnlineSettings`, :class:`OnlineReport`, :class:`OnlineProgress`:
  the study, how it is run, what it did, what it says meanwhile; :func:`validation_batch`.
- :class:`FIFOBuffer`, :class:`FIROBuffer`, :class:`ReservoirBuffer`: bounded memory;
  :class:`BufferDataset` for training loops of one's own.
- :class:`UniformSampler`, :class:`HaltonSampler`, :class:`LatinHypercubeSampler`,
  :class:`BreedSampler`: parameters of the next runs.
- :class:`Windows`, :class:`Batch`, :class:`DirectLoss`, :class:`NextStepLoss`, :func:`halving`:
  what is learned from, and how.
- :class:`ExternalSolver`: any program that writes frames, see `understudy.stream`.
- :class:`VirtualClock`: one thread, reproducible.
"""

from understudy.simulate.stream.breed import BreedSampler
from understudy.simulate.stream.buffers import (
    Buffer,
    BufferClosedError,
    FIFOBuffer,
    FIROBuffer,
    ReservoirBuffer,
)
from understudy.simulate.stream.dataset import BufferDataset
from understudy.simulate.stream.external import ExternalSolver
from understudy.simulate.stream.ledger import DroppedRun
from understudy.simulate.stream.losses import DirectLoss, NextStepLoss, halving
from understudy.simulate.stream.reports import Listener, OnlineProgress, OnlineReport, Score
from understudy.simulate.stream.samplers import (
    HaltonSampler,
    LatinHypercubeSampler,
    ParameterSampler,
    UniformSampler,
)
from understudy.simulate.stream.samples import Batch, Sample, Windows
from understudy.simulate.stream.settings import OnlineSettings
from understudy.simulate.stream.solver import StreamingSolver
from understudy.simulate.stream.trainer import OnlineTrainer
from understudy.simulate.stream.validation import validation_batch
from understudy.simulate.stream.virtual import VirtualClock

__all__ = [
    "Batch",
    "BreedSampler",
    "Buffer",
    "BufferClosedError",
    "BufferDataset",
    "DirectLoss",
    "DroppedRun",
    "ExternalSolver",
    "FIFOBuffer",
    "FIROBuffer",
    "HaltonSampler",
    "LatinHypercubeSampler",
    "Listener",
    "NextStepLoss",
    "OnlineProgress",
    "OnlineReport",
    "OnlineSettings",
    "OnlineTrainer",
    "ParameterSampler",
    "ReservoirBuffer",
    "Sample",
    "Score",
    "StreamingSolver",
    "UniformSampler",
    "VirtualClock",
    "Windows",
    "halving",
    "validation_batch",
]
