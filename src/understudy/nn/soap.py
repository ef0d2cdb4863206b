r"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321).

For a weight matrix with gradient :math:`G_t`,

.. math:: L_t = \rho L_{t-1} + (1-\rho) G_t G_t^\top, \qquad
          R_t = \rho R_{t-1} + (1-\rho) G_t^\top G_t

have eigenvectors :math:`Q_L, Q_R`, followed by one step of orthogonal iteration now and then.
Adam runs on :math:`G' = Q_L^\top G Q_R`, and the step turns back as :math:`Q_L N' Q_R^\top`.
Weights may be stacks (B, in, out) of independent networks; each has its own preconditioner. The
kernel (out, in, *k) of a convolution is a matrix (out, in k) where `groups_of` has made the groups.

This is no `torch.optim.Optimizer`, though it has its methods: making the first one in a process
imports PyTorch's compiler, which takes longer than fitting a small table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class SOAP:
    """Shampoo with Adam in the preconditioner's eigenbasis, for stacks of small networks.

    Parameters
    ----------
    params : iterable
        Parameters (B, in, out) or (in, out), or groups of them. Those with a side of 1 or longer
        than `largest_side` get Adam.
    lr : float
        Step size; 3e-2 suits small networks on standardised data.
    betas : (float, float)
        Decay of the momentum and of the second moment.
    weight_decay : float
        Decoupled, as in AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101).
    every : int
        Steps between updates of the eigenbasis.
    largest_side : int
        Of the matrices that are preconditioned.
    kernels : bool
        Whether parameters of more than two dimensions are kernels (out, in, *k), not stacks.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-2,
        betas: tuple[float, float] = (0.95, 0.95),
        weight_decay: float = 0.0,
        every: int = 10,
        largest_side: int = 512,
        kernels: bool = False,
        eps: float = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "every": every,
            "largest_side": largest_side,
            "kernels": kernels,
            "eps": eps,
        }
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [
            {**defaults, **group, "params": list(group["params"])} for group in groups
        ]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group)

    def state_dict(self) -> dict[str, Any]:
        """Tensors of every parameter by its number, and the groups."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        number = {parameter: i for i, parameter in enumerate(parameters)}
        groups = [
            {**group, "params": [number[p] for p in group["params"]]} for group in self.param_groups
        ]
        state = {number[parameter]: slots for parameter, slots in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.state = {parameters[i]: dict(slots) for i, slots in state_dict["state"].items()}
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in saved.items() if k != "params"})

    def _step_one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state.setdefault(parameter, {})
        if group["kernels"] and gradient.ndim > 2:
            gradient = gradient.flatten(1)
        if not state:
            self._start(state, gradient, group)
        state["step"] += 1
        t, (beta1, beta2) = int(state["step"]), group["betas"]
        left, right = state.get("left_vectors"), state.get("right_vectors")
        turned = gradient
        if left is not None and right is not None:
            turned = left.mT @ gradient @ right
        first = state["first"].lerp_(turned, 1.0 - beta1)
        second = state["second"].mul_(beta2).addcmul_(turned, turned, value=1.0 - beta2)
        scale = (second / (1.0 - beta2**t)).sqrt_().add_(group["eps"])
        update = (first / (1.0 - beta1**t)).div_(scale)
        if left is not None and right is not None:
            update = left @ update @ right.mT
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.sub_(update.view_as(parameter), alpha=group["lr"])
        if left is not None and t % 2 == 0:
            state["left"].lerp_(gradient @ gradient.mT, 1.0 - beta2**2)
            state["right"].lerp_(gradient.mT @ gradient, 1.0 - beta2**2)
            if t % group["every"] == 0:
                self._turn(state)

    def _start(self, state: dict[str, Tensor], gradient: Tensor, group: dict[str, Any]) -> None:
        state["step"] = torch.zeros(())
        state["first"], state["second"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        sides = gradient.shape[-2:]
        if gradient.ndim < 2 or min(sides) < 2 or max(sides) > group["largest_side"]:
            return
        state["left"], state["right"] = gradient @ gradient.mT, gradient.mT @ gradient
        for side in ("left", "right"):
            vectors = torch.linalg.eigh(state[side].double()).eigenvectors.flip(-1)
            state[f"{side}_vectors"] = vectors.to(gradient.dtype).contiguous()

    def _turn(self, state: dict[str, Tensor]) -> None:
        """One step of orthogonal iteration; the momentum follows the basis."""
        left, right = state["left_vectors"], state["right_vectors"]
        new_left = torch.linalg.qr(state["left"] @ left).Q.contiguous()
        new_right = torch.linalg.qr(state["right"] @ right).Q.contiguous()
        state["first"] = (new_left.mT @ left) @ state["first"] @ (right.mT @ new_right)
        state["left_vectors"], state["right_vectors"] = new_left, new_right


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def groups_of(network: nn.Module, largest_side: int = 1024) -> list[dict[str, Any]]:
    """Groups of what is trained in a network: kernels of its convolutions, and the rest.

    Parameters
    ----------
    network : nn.Module
    largest_side : int
        Of the kernels (out, in k) that are preconditioned; for the rest it is that of `SOAP`.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _CONVOLUTIONS)]
    kernels = [layer.weight for layer in layers if layer.weight.requires_grad]
    known = set(kernels)
    rest = [p for p in network.parameters() if p.requires_grad and p not in known]
    convolved = {"params": kernels, "kernels": True, "largest_side": largest_side}
    return [group for group in (convolved, {"params": rest}) if group["params"]]
