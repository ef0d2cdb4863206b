r"""A prior-data fitted network: the posterior predictive of a prior in one forward pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.core.bars import BarDistribution
from understudy.core.errors import UserError
from understudy.models.incontext.encoding import Encoding
from understudy.models.incontext.heads import Bars, Binary, Classes, Gaussian, Head, HeadName
from understudy.models.incontext.pretrain import Line, Pretraining, pretrain, sample_borders
from understudy.models.incontext.task import Prior
from understudy.nn.in_context import Architecture, Memory, PFNTransformer

FORMAT = 1


@dataclass(frozen=True)
class Context:
    """Rows that a network has read: what further questions are answered from."""

    memory: Memory
    used: int
    shift: Tensor
    scale: Tensor


@dataclass
class PFN:
    """A transformer trained on draws of a prior, which answers for any data set of that prior.

    Müller et al. 2022, arXiv 2112.10510.

    Parameters
    ----------
    network : PFNTransformer
    encoding : Encoding
    head : Head
    most_context : int
        Rows with outcomes at most, as in training.
    facts : dict
        How it was trained: prior, seed, steps, seconds, device.
    log : list of Line
        Training log.
    """

    network: PFNTransformer
    encoding: Encoding
    head: Head
    most_context: int
    facts: dict[str, Any] = field(default_factory=dict)
    log: list[Line] = field(default_factory=list)

    @classmethod
    def pretrained_on(
        cls,
        prior: Prior,
        plan: Pretraining,
        encoding: Encoding,
        head: HeadName = "bars",
        bars: int = 1000,
        classes: int = 2,
        on_line: Callable[[Line], None] | None = None,
        **sizes: Any,
    ) -> PFN:
        """Make a network and train it on a prior.

        Parameters
        ----------
        prior : Prior
        plan : Pretraining
        encoding : Encoding
        head : {"bars", "binary", "classes", "gaussian"}
        bars, classes : int
            Numbers of bars or classes, for the heads that have them.
        on_line : callable (Line) -> None, optional
            Called with every line of the log.
        **sizes
            ``width``, ``depth``, ``heads`` and ``hidden`` of `Architecture`.

        Returns
        -------
        PFN
        """
        readers: dict[str, Callable[[], Head]] = {
            "bars": lambda: Bars(sample_borders(prior, encoding, plan, bars)),
            "binary": Binary,
            "classes": lambda: Classes(classes),
            "gaussian": Gaussian,
        }
        reader = readers[head]()
        torch.manual_seed(plan.seed)
        network = PFNTransformer(Architecture(encoding.features, reader.outputs, **sizes))
        most = plan.rows - 1 if plan.most_context is None else plan.most_context
        facts = {"prior": repr(prior), "seed": plan.seed, "batch": plan.batch, "rows": plan.rows}
        model = cls(network, encoding, reader, most, facts).fit(prior, plan, on_line)
        last = model.log[-1]
        return model.noted(steps=last.step, data_sets=last.data_sets)

    def fit(
        self, prior: Prior, plan: Pretraining, on_line: Callable[[Line], None] | None = None
    ) -> PFN:
        """Train on a prior, from the present weights: tunes a network to the data sets you expect.

        Parameters
        ----------
        prior : Prior
            For instance a `SimulatorPrior` of your own simulator.
        plan : Pretraining
        on_line : callable (Line) -> None, optional
        """
        if prior.features > self.encoding.features:
            raise UserError(
                f"the prior has {prior.features} inputs, the network {self.encoding.features}"
            )
        self.network.requires_grad_(True)
        lines = pretrain(self.network, prior, self.encoding, self.head, plan, on_line)
        self.network.requires_grad_(False)
        if self.log and lines:
            self.facts = {**self.facts, "tuned_on": repr(prior), "tuned_with": lines[-1].data_sets}
        self.log = [*self.log, *lines]
        return self

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.network.parameters())

    # -- answers ------------------------------------------------------------------------------

    def read(self, x: Tensor, y: Tensor) -> Context:
        r"""Read data sets once, for any number of questions.

        Parameters
        ----------
        x : Tensor (B, n, d)
            Inputs on the scale of the prior.
        y : Tensor (B, n)
            Outcomes.
        """
        self._check(x, y)
        shift, scale = self.encoding.outcome_scale(y)
        weights = next(self.network.parameters())
        rows = self.encoding.rows(x).to(weights)
        memory = self.network.remember(rows, ((y - shift) / scale).to(weights))
        return Context(memory, x.shape[-1], shift, scale)

    def logits(self, context: Context, x: Tensor, chunk: int = 4096) -> Tensor:
        """Outputs of the network (B, q, outputs) for x (B, q, d), in chunks of rows."""
        if x.shape[-1] != context.used:
            raise UserError(f"rows have {x.shape[-1]} inputs, those of the context {context.used}")
        rows = self.encoding.rows(x).to(next(self.network.parameters()))
        parts = [self.network.answer(context.memory, part) for part in rows.split(chunk, dim=1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def answer(self, context: Context, x: Tensor) -> BarDistribution:
        """Predictive distribution at x (B, q, d), in the units of the context's outcomes."""
        if not isinstance(self.head, Bars):
            raise UserError(f"a network with the head {self.head.name!r} predicts no real outcome")
        logits = self.logits(context, x).to(context.scale.dtype)
        return BarDistribution.of(self.head.borders, logits).affine(context.shift, context.scale)

    @torch.no_grad()
    def predict(self, x_context: Tensor, y_context: Tensor, x: Tensor) -> BarDistribution:
        """Predictive distribution of outcomes at x, for a batch of data sets in one pass.

        Parameters
        ----------
        x_context : Tensor (B, n, d)
        y_context : Tensor (B, n)
        x : Tensor (B, q, d)

        Returns
        -------
        BarDistribution
            Of cells (B, q).
        """
        return self.answer(self.read(x_context, y_context), x)

    @torch.no_grad()
    def probability(self, x_context: Tensor, y_context: Tensor, x: Tensor) -> Tensor:
        """Probability of label 1 (B, q), or of every class (B, q, C)."""
        logits = self.logits(self.read(x_context, y_context), x)
        if isinstance(self.head, Binary):
            return logits.squeeze(-1).sigmoid()
        if isinstance(self.head, Classes):
            return logits.softmax(-1)
        raise UserError(f"a network with the head {self.head.name!r} predicts no class")

    def _check(self, x: Tensor, y: Tensor) -> None:
        if x.shape[-1] > self.encoding.features:
            raise UserError(
                f"the data have {x.shape[-1]} inputs; this network was trained for at most "
                f"{self.encoding.features}"
            )
        if x.shape[-2] > self.most_context:
            raise UserError(
                f"the data have {x.shape[-2]} rows; this network was trained for at most "
                f"{self.most_context}"
            )
        if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise UserError("the data hold NaN or infinite numbers")

    # -- files --------------------------------------------------------------------------------

    def to_bytes(self, half: bool = True) -> bytes:
        """Weights, in half precision unless told otherwise, and facts, as a safetensors file."""
        from safetensors.torch import save

        kind = torch.float16 if half else torch.float32
        state = self.network.state_dict()
        tensors = {k: v.detach().cpu().to(kind).contiguous() for k, v in state.items()}
        if isinstance(self.head, Bars):
            tensors["borders"] = self.head.borders.float().contiguous()
        described = {
            "format": FORMAT,
            "architecture": asdict(self.network.architecture),
            "encoding": asdict(self.encoding),
            "head": self.head.name,
            "most_context": self.most_context,
            "facts": self.facts,
        }
        log = json.dumps([asdict(line) for line in self.log])
        return save(tensors, metadata={"pfn": json.dumps(described), "log": log})

    def to_tensor(self) -> Tensor:
        """The bytes of `to_bytes`, without loss of precision, for files that hold tensors."""
        weights = self.network.state_dict().values()
        half = all(torch.equal(v, v.half().to(v)) for v in weights)
        return torch.frombuffer(bytearray(self.to_bytes(half)), dtype=torch.uint8)

    def save(self, path: Path, half: bool = True) -> None:
        """Write a safetensors file, whole or not at all."""
        part = path.with_name(path.name + ".part")
        part.write_bytes(self.to_bytes(half))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> PFN:
        """Read a file that `save` wrote."""
        try:
            return cls.from_bytes(Path(path).read_bytes())
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UserError(f"{path} holds no in-context network: {error}") from error

    @classmethod
    def from_tensor(cls, stored: Tensor) -> PFN:
        """Read what `to_tensor` returned."""
        return cls.from_bytes(stored.numpy().tobytes())

    @classmethod
    def from_bytes(cls, stored: bytes) -> PFN:
        """Read what `to_bytes` returned.

        Raises
        ------
        ValueError
            If these are not the bytes of an in-context network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = {key: value.float() for key, value in load(stored).items()}
            size = int.from_bytes(stored[:8], "little")
            metadata = json.loads(stored[8 : 8 + size]).get("__metadata__", {})
            described = json.loads(metadata["pfn"])
            if described["format"] > FORMAT:
                raise ValueError("it was written by a newer version of Understudy")
            return cls._from_parts(tensors, described, json.loads(metadata["log"]))
        except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    @classmethod
    def _from_parts(
        cls, tensors: dict[str, Tensor], described: dict[str, Any], log: list[dict[str, Any]]
    ) -> PFN:
        borders = tensors.pop("borders") if described["head"] == "bars" else torch.empty(0)
        architecture = Architecture(**described["architecture"])
        readers: dict[str, Callable[[], Head]] = {
            "bars": lambda: Bars(borders),
            "binary": Binary,
            "classes": lambda: Classes(architecture.outputs),
            "gaussian": Gaussian,
        }
        head = readers[described["head"]]()
        network = PFNTransformer(architecture)
        network.load_state_dict(tensors)
        network.eval().requires_grad_(False)
        encoding = Encoding(**described["encoding"])
        lines = [Line(**line) for line in log]
        return cls(network, encoding, head, described["most_context"], described["facts"], lines)

    def noted(self, **facts: Any) -> PFN:
        """Return the same network with further facts about its training."""
        return replace(self, facts={**self.facts, **facts})
