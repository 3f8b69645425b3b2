"""E3: first values of new layers' output projections from the gradient and the activations of one batch.

New layers are copies that write nothing yet, W = 0. With h what a projection reads, [tokens, in], and G = dL/dW,
[in, out]:

    gradmax  the singular directions of G, dealt out among the layers that follow one source layer (GradMax, Evci et
             al., ICLR 2022, arXiv 2201.05125), so that these are not the same
    tiny     -(h'h / tokens + ridge)^-1 G: what moves the residual stream against its gradient, by least squares (TINY,
             Verbockhaven et al., 2024, arXiv 2405.19816)

All are scaled to a part of the norm of their source layer's projection, the part being the one of `SCALES` with the
lowest loss on the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.learned.weights import Weights

CLOSED_FORMS = ("gradmax", "tiny")
SCALES = (0.003, 0.01, 0.03, 0.1, 0.3)
RIDGE = 1e-2
"""Of the mean of the diagonal."""

_OUTPUTS = ("attn.c_proj", "mlp.c_proj")


def set_new_outputs(weights: Weights, inputs: Mapping[str, Tensor], form: str) -> tuple[float, float]:
    """Set the output projections that are zero, in plain weights.

    Returns:
        What it cost in forward passes (h'h counts as one: it is less), and the part that was chosen.
    """
    roles = [role for role in weights.delta if role.endswith(tuple(f"{each}.weight" for each in _OUTPUTS))]
    gradients, activations = _gradients(weights, inputs, roles)
    directions = {
        role: _directions(form, weights.delta[role].detach(), gradients[role], activations[role])
        for role in roles
    }
    starts = {role: weights.delta[role].detach().clone() for role in roles}
    losses = {}
    for scale in SCALES:
        _set(weights, starts, directions, scale)
        with torch.no_grad():
            losses[scale] = float(weights.loss(inputs))
    best = min(losses, key=losses.__getitem__)
    _set(weights, starts, directions, best)
    return 3 + len(SCALES) + (form == "tiny"), best


def _gradients(
    weights: Weights, inputs: Mapping[str, Tensor], roles: list[str]
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """Of each role: dL/dW, [layers, in, out], and what every layer's projection reads, [tokens, in]."""
    read: dict[str, list[Tensor]] = {role: [] for role in roles}
    hooks = []
    for role in roles:
        for layer in range(len(weights.delta[role])):
            module = weights.module.get_submodule(role.format(layer=layer).removesuffix(".weight"))

            def keep(_: object, arguments: tuple[Tensor, ...], kept: list[Tensor] = read[role]) -> None:
                kept.append(arguments[0].detach().flatten(0, -2))

            hooks.append(module.register_forward_pre_hook(keep))
    tensors = [weights.delta[role].requires_grad_(True) for role in roles]
    gradients = torch.autograd.grad(weights.loss(inputs), tensors)
    for hook in hooks:
        hook.remove()
    return dict(zip(roles, gradients, strict=True)), read


def _directions(form: str, outputs: Tensor, gradients: Tensor, read: list[Tensor]) -> Tensor:
    """[layers, in, out], zero where a layer writes already, else of the norm of its source layer's projection."""
    directions = torch.zeros_like(outputs)
    is_new = [not bool(output.any()) for output in outputs]
    followed = 0
    for layer, new in enumerate(is_new):
        if not new:
            followed = layer
            continue
        behind = [*is_new[followed + 1 :], False]
        direction = (
            dealt_direction(gradients[layer], layer - followed - 1, behind.index(False))
            if form == "gradmax"
            else least_squares(gradients[layer], read[layer])
        )
        directions[layer] = direction * outputs[followed].norm() / direction.norm()
    return directions


def dealt_direction(gradient: Tensor, turn: int, turns: int) -> Tensor:
    """The part of -G of every `turns`-th singular direction, from the `turn`-th on; all turns together are -G."""
    left, values, right = torch.linalg.svd(gradient, full_matrices=False)
    mine = slice(turn, None, turns)
    return -(left[:, mine] * values[mine]) @ right[mine]


def least_squares(gradient: Tensor, read: Tensor) -> Tensor:
    """-(h'h / tokens + ridge)^-1 G."""
    covariance = read.T @ read / len(read)
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    return -torch.linalg.solve(covariance + ridge, gradient)


@torch.no_grad()
def _set(
    weights: Weights, starts: Mapping[str, Tensor], directions: Mapping[str, Tensor], scale: float
) -> None:
    for role, direction in directions.items():
        weights.delta[role].copy_(starts[role] + scale * direction)
