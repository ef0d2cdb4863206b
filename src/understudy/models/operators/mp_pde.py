r"""Message-passing solver of differential equations (Brandstetter et al. 2022, arXiv 2202.03376).

Points of a field are nodes of a graph, near ones are joined. With u the last fields at a point, x
its place and :math:`\theta` the parameters of the equation,

.. math::

    f_i &= \epsilon(u_i, x_i, \theta) \\
    m_{ij} &= \phi(f_i, f_j, u_i - u_j, x_i - x_j, \theta) \\
    f_i &\leftarrow \mathrm{IN}\Bigl(f_i + \psi\bigl(f_i, \tfrac{1}{|N_i|}\sum_{j \in N_i} m_{ij},
        \theta\bigr)\Bigr) \\
    d_i &= \delta(f_i), \qquad u_i^{t + k} = u_i^t + k\,\Delta t\,d_i^k, \quad k = 1, \dots, K

where :math:`\epsilon, \phi, \psi` are perceptrons of two layers with SiLU after each, IN normalises
a channel over the points of one field, and :math:`\delta` is two convolutions along the features.
Giving K times at once is the paper's temporal bundling; its pushforward is a matter of training,
see :class:`~understudy.models.operators.one_step.OneStepModel`.

The first layer of :math:`\phi` is affine, so it is applied to points before they are paired: a pair
costs one sum there and one matrix product in the second layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.models.operators.fno import check_inputs
from understudy.models.operators.network import FieldNetwork

_PAPER_DECODERS = {20: (15, 4, 10), 25: (16, 3, 14), 50: (12, 2, 10)}
"""Kernel, stride and second kernel for 128 features, by the times of a bundle."""


@dataclass(frozen=True)
class Graph:
    """Which points tell which, in the order of the receivers.

    Parameters
    ----------
    positions : Tensor (N, d)
        In units of the longest side of the box.
    senders, receivers : LongTensor (E,)
    displacement : Tensor (E, d)
        Position of the receiver minus that of the sender; across the end on a periodic grid.
    degree : int, optional
        Senders of every point where it is the same for all.
    """

    positions: Tensor
    senders: Tensor
    receivers: Tensor
    displacement: Tensor
    degree: int | None

    @classmethod
    def of(cls, positions: Tensor, senders: Tensor, receivers: Tensor, shift: Tensor) -> Graph:
        """Sort the pairs by receiver and count them."""
        order = torch.argsort(receivers, stable=True)
        counts = torch.bincount(receivers, minlength=len(positions))
        if int(counts.min()) == 0:
            raise UserError("a point has no neighbour; the radius of the graph is too small")
        degree = int(counts[0]) if bool((counts == counts[0]).all()) else None
        return cls(positions, senders[order], receivers[order], shift[order], degree)

    def to(self, like: Tensor) -> Graph:
        """Same graph with the device and the type of numbers of a tensor."""
        return replace(
            self,
            positions=self.positions.to(like),
            senders=self.senders.to(like.device),
            receivers=self.receivers.to(like.device),
            displacement=self.displacement.to(like),
        )

    def pairs(self, sent: Tensor, received: Tensor, of_pair: Tensor) -> Tensor:
        """Sum of what the sender, the receiver ``(B, N, H)`` and the pair ``(E, H)`` give."""
        along = sent.index_select(1, self.senders)
        if self.degree is None:
            return along + received.index_select(1, self.receivers) + of_pair
        size = (-1, self.degree)
        return along.unflatten(1, size) + (received.unsqueeze(2) + of_pair.unflatten(0, size))

    def mean(self, messages: Tensor) -> Tensor:
        """Mean ``(B, N, H)`` of what each point receives."""
        if self.degree is not None:
            return messages.mean(2)
        total = messages.new_zeros(len(messages), len(self.positions), messages.shape[2])
        counts = torch.bincount(self.receivers, minlength=len(self.positions))
        return total.index_add(1, self.receivers, messages) / counts.to(total)[:, None]


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept must serve a gradient later
def grid_graph(shape: tuple[int, ...], reach: float, periodic: bool) -> Graph:
    """Points of a regular grid, joined up to a distance of `reach` spacings.

    Parameters
    ----------
    shape : tuple of int
        Points along each axis.
    reach : float
        At least 1; 3 in one dimension gives six neighbours, 1 in two gives four.
    periodic : bool
        Whether the ends of each axis meet.

    Raises
    ------
    UserError
        If a periodic axis has no more than 2 `reach` points, so that a pair would meet twice.
    """
    steps = int(reach)
    if periodic and min(shape) <= 2 * steps:
        raise UserError(f"neighbours up to {steps} points away need more points than {shape}")
    extent, d = torch.tensor(shape), len(shape)
    index = torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, d)
    near = [
        offset
        for offset in itertools.product(range(-steps, steps + 1), repeat=d)
        if 0 < sum(o * o for o in offset) <= reach * reach
    ]
    sender = index[:, None] + torch.tensor(near)
    inside = ((sender >= 0) & (sender < extent)).all(2)
    kept = torch.ones_like(inside) if periodic else inside
    flat = torch.zeros(sender.shape[:2], dtype=torch.long)
    for axis, n in enumerate(shape):
        flat = flat * n + sender[..., axis] % n
    receivers = torch.arange(len(index))[:, None].expand_as(flat)
    longest = float(max(shape))
    shift = (-torch.tensor(near) / longest).expand_as(sender)
    return Graph.of(index / longest, flat[kept], receivers[kept], shift[kept])


def radius_graph(positions: Tensor, radius: float) -> Graph:
    """Points anywhere ``(N, d)``, joined where they are at most `radius` apart.

    Raises
    ------
    UserError
        If a point has no neighbour.
    """
    places = positions.double()
    longest = float((places.amax(0) - places.amin(0)).max())
    found = cKDTree(places.numpy()).query_pairs(radius, output_type="ndarray").astype(np.int64)
    pairs = torch.from_numpy(found).reshape(-1, 2)
    senders, receivers = (
        torch.cat([pairs[:, 0], pairs[:, 1]]),
        torch.cat([pairs[:, 1], pairs[:, 0]]),
    )
    scaled = (places / longest).float()
    return Graph.of(scaled, senders, receivers, scaled[receivers] - scaled[senders])


class _Perceptron(nn.Sequential):
    """Two affine layers with SiLU after each."""

    def __init__(self, inward: int, width: int) -> None:
        super().__init__(nn.Linear(inward, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())


class MessagePassing(nn.Module):
    """One round of messages between neighbours.

    Parameters
    ----------
    width : int
        Features H of a point.
    channels : int
        Numbers of u at a point.
    dims : int
        Of space.
    num_params : int
    """

    def __init__(self, width: int, channels: int, dims: int, num_params: int) -> None:
        super().__init__()
        self.parts = [width, width, channels, dims, num_params]
        self.pair = nn.Linear(sum(self.parts), width)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.update = _Perceptron(2 * width + num_params, width)

    def forward(self, f: Tensor, u: Tensor, p: Tensor, graph: Graph) -> Tensor:
        """Features ``(B, N, H)`` of features, u ``(B, N, channels)`` and p ``(B, 1, P)``."""
        receiver, sender, field, place, number = self.pair.weight.split(self.parts, dim=1)
        of_u = F.linear(u, field)
        received = F.linear(f, receiver, self.pair.bias) + of_u + F.linear(p, number)
        sent = F.linear(f, sender) - of_u
        pairs = graph.pairs(sent, received, F.linear(graph.displacement, place))
        heard = graph.mean(self.message(pairs))
        f = f + self.update(torch.cat([f, heard, p.expand(-1, f.shape[1], -1)], dim=2))
        return F.instance_norm(f.transpose(1, 2)).transpose(1, 2)


class MPPDE(FieldNetwork):
    r"""Message-passing solver on a regular grid, or on points anywhere.

    Parameters
    ----------
    in_channels, out_channels : int
        Multiples of `fields`: the last fields, oldest first, and the next ones.
    dims : int
        Dimensions of space of a regular grid.
    fields : int
        Fields at one time, such as 1 for a scalar equation.
    width, depth : int
        Features of a point and rounds of messages; 128 and 6 as in the paper.
    reach : float
        On a grid: distance of neighbours in spacings; 3 as in the paper (six of them).
    periodic : bool
        Whether the ends of the grid meet. The paper's graphs end there.
    coordinates : bool
        Tell points where they are, as the paper does; without, a network on a periodic grid
        commutes with shifts.
    residual : bool
        Give :math:`u^t + k \Delta t\, d^k`; otherwise d, for a model that adds it itself, as
        ``OneStepModel(difference=True)`` does.
    time_step : float, optional
        :math:`\Delta t` with `residual`; a bundle takes the time 1 unless given.
    num_params : int
        Parameters of the equation, the time among them where it matters. With none, parameters
        that are given are not looked at.
    positions : sequence of points, optional
        ``(N, d)``: fields are then ``(B, C, N)``, sampled at these points.
    radius : float, optional
        Of neighbours, in the units of `positions`.
    """

    kind = "mp-pde"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 1,
        fields: int = 1,
        width: int = 128,
        depth: int = 6,
        reach: float = 3,
        periodic: bool = True,
        coordinates: bool = True,
        residual: bool = False,
        time_step: float | None = None,
        num_params: int = 0,
        positions: Sequence[Sequence[float]] | None = None,
        radius: float | None = None,
    ) -> None:
        super().__init__()
        if fields < 1 or in_channels % fields or out_channels % fields or out_channels < 1:
            raise UserError(
                f"channels must be multiples of the {fields} fields, "
                f"found {in_channels} in and {out_channels} out"
            )
        if reach < 1 or width < 1 or depth < 1 or dims < 1 or num_params < 0:
            raise UserError("reach, width, depth and dims must be at least 1")
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "dims": dims,
            "fields": fields,
            "width": width,
            "depth": depth,
            "reach": reach,
            "periodic": periodic,
            "coordinates": coordinates,
            "residual": residual,
            "time_step": time_step,
            "num_params": num_params,
            "positions": None if positions is None else [list(map(float, x)) for x in positions],
            "radius": radius,
        }
        self.in_channels, self.fields, self.num_params = in_channels, fields, num_params
        self.dims, self.reach, self.periodic = dims, reach, periodic
        self.coordinates, self.residual = coordinates, residual
        self.bundle = out_channels // fields
        self.time_step = 1.0 / self.bundle if time_step is None else time_step
        self.anywhere: Graph | None = None
        if positions is not None:
            if radius is None:
                raise UserError("points anywhere need the radius of their neighbours")
            points = torch.tensor(self.settings["positions"], dtype=torch.float64)
            self.anywhere = radius_graph(points, radius)
        places = dims if self.anywhere is None else self.anywhere.positions.shape[1]
        given = in_channels + num_params + (places if coordinates else 0)
        self.encode = _Perceptron(given, width)
        self.rounds = nn.ModuleList(
            MessagePassing(width, in_channels, places, num_params) for _ in range(depth)
        )
        self.decode = _Decoder(width, self.bundle, fields)

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Fields ``(B, out_channels, *space)`` of fields and parameters ``(B, num_params)``."""
        check_inputs(u, p, self.in_channels, self.num_params, 1 if self.anywhere else self.dims)
        space = tuple(u.shape[2:])
        graph = self._graph(space).to(u)
        nodes = u.flatten(2).transpose(1, 2).contiguous()  # (B, N, C)
        told = u.new_empty(u.shape[0], 1, 0)
        if p is not None and self.num_params:
            told = p.to(u).unsqueeze(1)
        parts = [nodes, told.expand(-1, nodes.shape[1], -1)]
        if self.coordinates:
            parts.append(graph.positions.expand(u.shape[0], -1, -1))
        f = self.encode(torch.cat(parts, dim=2))
        for each in self.rounds:
            f = each(f, nodes, told, graph)
        change = self.decode(f).unflatten(1, (self.bundle, self.fields)).unflatten(3, space)
        if not self.residual:
            return change.flatten(1, 2)
        steps = self.time_step * torch.arange(1, self.bundle + 1, device=u.device, dtype=u.dtype)
        now = u[:, None, -self.fields :]
        return (now + steps.reshape(-1, *[1] * (change.ndim - 2)) * change).flatten(1, 2)

    def _graph(self, space: tuple[int, ...]) -> Graph:
        if self.anywhere is None:
            return grid_graph(space, self.reach, self.periodic)
        if space != (len(self.anywhere.positions),):
            raise UserError(
                f"fields at {len(self.anywhere.positions)} points expected, {space} found"
            )
        return self.anywhere


class _Decoder(nn.Module):
    """Two convolutions along the features of a point, which give a curve of K times a field.

    A convolution of a line of fixed length is a matrix, the same at all points, and is applied as
    one: the filters are laid out in it at every call, which is nothing beside the product.
    """

    def __init__(self, width: int, bundle: int, fields: int) -> None:
        super().__init__()
        kernel, self.stride, last = _filters(width, bundle)
        self.register_buffer("unit", torch.eye(width).unsqueeze(1), persistent=False)
        self.wide = nn.Conv1d(1, 8, kernel, stride=self.stride)
        self.narrow = nn.Conv1d(8, fields, last)

    unit: Tensor

    def forward(self, f: Tensor) -> Tensor:
        """``(B, K * fields, N)``, time by time, of features ``(B, N, H)``."""
        first = F.conv1d(self.unit, self.wide.weight, stride=self.stride)  # (H, 8, L)
        length = first.shape[2]
        points = F.linear(f, first.flatten(1).T, _bias(self.wide).repeat_interleave(length))
        line = torch.eye(8 * length, dtype=f.dtype, device=f.device).unflatten(1, (8, length))
        second = F.conv1d(line, self.narrow.weight)  # (8 L, fields, K)
        bundle = second.shape[2]
        curve = F.linear(
            F.silu(points),
            second.transpose(1, 2).flatten(1).T,
            _bias(self.narrow).repeat(bundle),
        )
        return curve.transpose(1, 2)


def _bias(conv: nn.Conv1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _filters(width: int, bundle: int) -> tuple[int, int, int]:
    """Kernel and stride of the first convolution and kernel of the second, which give K numbers.

    The paper's where it has some; otherwise 16, if so much is there, and a stride that leaves about
    14 for the second.
    """
    if width == 128 and bundle in _PAPER_DECODERS:
        return _PAPER_DECODERS[bundle]
    if bundle > width:
        raise UserError(f"{bundle} times at once need a width of at least {bundle}, found {width}")
    kernel = min(16, width - bundle + 1)
    stride = max(1, round((width - kernel) / (bundle + 13)))
    return kernel, stride, (width - kernel) // stride + 2 - bundle
