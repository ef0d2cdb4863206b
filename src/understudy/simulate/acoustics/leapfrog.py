r"""Steps in time of the wave equation in a room, many runs at once.

With central differences in time, the walls' among them,

.. math:: p^{n+1} - 2p^n + p^{n-1} = h^2 L p^n - \tfrac{h}{2} \sum_s c S_s (w_s^{n+1} - w_s^{n-1}),

where :math:`w_s = Y_s * p` is :math:`\rho c` times how fast the wall s yields. Accumulators of an
admittance step by the trapezoidal rule, :math:`z^{n+1} = \alpha z^n + \beta (p^n + p^{n+1})`, so
that :math:`w^{n+1}` is linear in :math:`p^{n+1}` and a division at each node solves for it. Without
walls that take or give, the energy

.. math:: E^{n+1/2} = \tfrac12 \Big\|\frac{p^{n+1} - p^n}{h}\Big\|_V^2
    - \tfrac12 \langle p^{n+1}, L p^n \rangle_V

stays what it is, and it is positive while :math:`c h \sqrt{h_x^{-2} + h_y^{-2}} < 1`; walls that
are passive only take from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.simulate.acoustics.impedance import RationalAdmittance
from understudy.simulate.acoustics.mesh import RoomMesh

Force = Callable[[int], Tensor]
"""Second time derivative ``(B, nx ny)`` that sources add at step n."""


@dataclass(frozen=True)
class _Absorber:
    """Walls of one admittance that remembers.

    Attributes
    ----------
    at : Tensor (W,), long
        Numbers of its nodes among those of walls.
    rate : Tensor (W,)
        :math:`c S/V`.
    residues, poles : Tensor (K,), complex
        Of real poles and twice those of pairs.
    """

    at: Tensor
    rate: Tensor
    constant: float
    residues: Tensor
    poles: Tensor

    def response(self, z: Tensor, p: Tensor) -> Tensor:
        """Yielding w ``(B, W)`` for accumulators ``(B, W, K)`` and pressure ``(B, W)``."""
        return self.constant * p + (z * self.residues).real.sum(-1)


@dataclass(frozen=True)
class Memory:
    """What a wall remembers: accumulators ``(B, W, K)``, and w ``(B, W)`` now and one step ago."""

    z: Tensor
    w: Tensor
    before: Tensor


class Leapfrog:
    """The scheme for a mesh, walls and a time step.

    Parameters
    ----------
    mesh : RoomMesh
    admittances : sequence of float or RationalAdmittance
        One a side of the room; infinite where pressure is 0.
    speed : float
        Of sound, in m/s.
    step : float
        In seconds.
    dtype : torch.dtype
        Of the computation.
    """

    def __init__(
        self,
        mesh: RoomMesh,
        admittances: Sequence[float | RationalAdmittance],
        speed: float,
        step: float,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.mesh, self.step, self.speed = mesh, step, speed
        self.courant = speed * step * math.hypot(1.0 / mesh.spacing[0], 1.0 / mesh.spacing[1])
        self.dtype = dtype
        self._ny = mesh.shape[1]
        along_x, along_y = ((speed * step / h) ** 2 for h in mesh.spacing)
        self._ratio, self._weight = along_x / along_y, along_y
        self._own = 2.0 - 2.0 * (along_x + along_y)
        self._build_walls(admittances)

    def _build_walls(self, admittances: Sequence[float | RationalAdmittance]) -> None:
        mesh, ny = self.mesh, self._ny
        rates = self.speed * mesh.surfaces  # (W, S)
        soft = torch.zeros(len(mesh.walls), dtype=torch.bool)
        damping = torch.zeros(len(mesh.walls), dtype=torch.float64)
        groups: dict[RationalAdmittance, Tensor] = {}
        for rate, of in zip(rates.T, admittances, strict=True):
            if isinstance(of, RationalAdmittance) and of.poles:
                groups[of] = groups.get(of, torch.zeros_like(rate)) + rate
                damping += 0.5 * self.step * rate * self._implicit(of)
                continue
            value = of.constant if isinstance(of, RationalAdmittance) else of
            if math.isinf(value):
                soft |= rate > 0.0
            else:
                damping += 0.5 * self.step * rate * value
        explicit = torch.zeros_like(damping)  # what of the damping acts on the pressure before
        for rate, of in zip(rates.T, admittances, strict=True):
            value = of.constant if isinstance(of, RationalAdmittance) else of
            remembers = isinstance(of, RationalAdmittance) and bool(of.poles)
            if not remembers and math.isfinite(value):
                explicit += 0.5 * self.step * rate * value
        keep = (~soft).to(torch.float64) / (1.0 + damping)
        links = (self.speed * self.step) ** 2 * mesh.links
        own = 2.0 - links.sum(1)
        self._divide = keep.to(self.dtype)
        self._wall_weights = (keep[:, None] * torch.cat([own[:, None], links], 1)).to(self.dtype)
        self._wall_before = (keep * (1.0 - explicit)).to(self.dtype)
        at = mesh.walls[:, None] + torch.tensor([0, -ny, ny, -1, 1])
        # a neighbour beyond the box has no weight
        self._wall_nodes = at.clamp(0, mesh.shape[0] * ny - 1)
        self._soft = mesh.walls[soft]
        self._absorbers = [self._absorber(of, rate) for of, rate in groups.items()]

    def _implicit(self, of: RationalAdmittance) -> float:
        """How much of w at the next time follows the pressure at that time at once."""
        terms = zip(of.poles, of.residues, of.multiplicities, strict=True)
        half = 0.5 * self.step
        return of.constant + sum((m * r * half / (1.0 + half * a)).real for a, r, m in terms)

    def _absorber(self, of: RationalAdmittance, rate: Tensor) -> _Absorber:
        at = (rate > 0.0).nonzero().flatten()
        kind = torch.complex128 if self.dtype == torch.float64 else torch.complex64
        twice = [m * r for m, r in zip(of.multiplicities, of.residues, strict=True)]
        return _Absorber(
            at=at,
            rate=rate[at].to(self.dtype),
            constant=of.constant,
            residues=torch.tensor(twice, dtype=kind),
            poles=torch.tensor(of.poles, dtype=kind),
        )

    # -- marching -------------------------------------------------------------------------------

    def march(self, p: Tensor, steps: int, force: Force | None = None) -> Iterator[Tensor]:
        """Pressure ``(B, nx ny)`` at times 0, h, ..., steps h, from one at rest.

        What is given is not written to again. Nodes outside the room hold no pressure: look at
        :attr:`RoomMesh.volumes`.
        """
        before = self._held(p.to(self.dtype))
        yield before
        if steps < 1:
            return
        now, memories = self._first(before, force)
        yield now
        for n in range(1, steps):
            after, memories = self._advance(
                now, before, memories, None if force is None else force(n)
            )
            before, now = now, after
            yield now

    def laplacian(self, p: Tensor) -> Tensor:
        r"""Operator :math:`c^2 \Delta` of pressure ``(B, nx ny)`` at nodes, with rigid walls."""
        inner = self._stencil(p) - 2.0 * p
        links = (self.speed * self.step) ** 2 * self.mesh.links.to(p.dtype)
        own = p[:, self._wall_nodes]
        walls = (links * (own[..., 1:] - own[..., :1])).sum(-1)
        change = inner.index_copy(1, self.mesh.walls, walls) / self.step**2
        return torch.where(self.mesh.volumes > 0.0, change, 0.0)

    def energy(self, before: Tensor, now: Tensor) -> Tensor:
        """Energy ``(B,)`` of pressure at two successive times, but for a constant factor."""
        volumes = self.mesh.volumes.to(now.dtype)
        air = volumes > 0.0
        rate = torch.where(air, now - before, 0.0) / self.step
        bent = torch.where(air, now, 0.0) * self.laplacian(torch.where(air, before, 0.0))
        return 0.5 * ((rate.square() - bent) * volumes).sum(1)

    def _stencil(self, p: Tensor) -> Tensor:
        """Two p and the change by the five-point stencil; meaningless at walls."""
        ny = self._ny
        along_x = p[:, 2 * ny :] + p[:, : -2 * ny]
        if self._ratio != 1.0:
            along_x *= self._ratio
        along_x += p[:, ny + 1 : 1 - ny]
        along_x += p[:, ny - 1 : -ny - 1]
        along_x *= self._weight
        along_x.add_(p[:, ny:-ny], alpha=self._own)
        return F.pad(along_x, (ny, ny))

    def _walls(self, p: Tensor, before: Tensor) -> Tensor:
        at = torch.einsum("bwk,wk->bw", p[:, self._wall_nodes], self._wall_weights)
        return at - self._wall_before * before[:, self.mesh.walls]

    def _held(self, p: Tensor) -> Tensor:
        """With no pressure at soft walls and outside."""
        p = torch.where(self.mesh.volumes > 0.0, p, 0.0)
        return p.index_fill(1, self._soft, 0.0) if len(self._soft) else p

    def _first(self, p: Tensor, force: Force | None) -> tuple[Tensor, list[Memory]]:
        """Pressure after one step from rest, and what walls remember then."""
        change = self.laplacian(p) if force is None else self.laplacian(p) + force(0)
        walls = p[:, self.mesh.walls]
        for a in self._absorbers:
            begun = walls[:, a.at] * a.residues.real.sum()
            at = self.mesh.walls[a.at].expand(len(p), -1)
            change = change.scatter_add(1, at, -a.rate * begun)
        now = self._held(p + 0.5 * self.step**2 * change)
        return now, [self._remembered(a, None, p, now) for a in self._absorbers]

    def _remembered(
        self, a: _Absorber, memory: Memory | None, before: Tensor, now: Tensor
    ) -> Memory:
        """Accumulators after a step between two pressures, the first of which may be the start."""
        nodes = self.mesh.walls[a.at]
        p, q = before[:, nodes], now[:, nodes]
        alpha, beta = self._trapezoid(a)
        both = beta * (p + q).unsqueeze(-1)
        if memory is None:
            return Memory(both, a.response(both, q), a.constant * p)
        z = alpha * memory.z + both
        return Memory(z, a.response(z, q), memory.w)

    def _trapezoid(self, a: _Absorber) -> tuple[Tensor, Tensor]:
        half = 0.5 * self.step * a.poles
        return (1.0 - half) / (1.0 + half), 0.5 * self.step / (1.0 + half)

    def _advance(
        self, now: Tensor, before: Tensor, memories: list[Memory], force: Tensor | None
    ) -> tuple[Tensor, list[Memory]]:
        after = self._stencil(now)
        after -= before
        walls = self._walls(now, before)
        for a, memory in zip(self._absorbers, memories, strict=True):
            alpha, beta = self._trapezoid(a)
            known = alpha * memory.z + beta * now[:, self.mesh.walls[a.at]].unsqueeze(-1)
            held = (known * a.residues).real.sum(-1) - memory.before
            pushed = 0.5 * self.step * a.rate * self._divide[a.at] * held
            walls = walls.index_add(1, a.at, -pushed)
        if force is not None:
            after = after + self.step**2 * force
            walls = walls + self.step**2 * self._divide * force[:, self.mesh.walls]
        after.index_copy_(1, self.mesh.walls, walls)
        kept = [
            self._remembered(a, memory, now, after)
            for a, memory in zip(self._absorbers, memories, strict=True)
        ]
        return after, kept


def require_stable(courant: float, rate: float) -> None:
    """Refuse a time step with which waves would grow without end."""
    if courant > 1.0:
        raise UserError(
            f"{rate:g} time steps a second are too few: waves would cross {courant:.3g} times what "
            f"is stable on this mesh; use a rate of at least {math.ceil(rate * courant)} Hz"
        )
