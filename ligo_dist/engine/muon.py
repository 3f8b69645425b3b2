"""Muon for the matrices of the blocks, AdamW for the rest, on ZeRO-3's partitions.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) moves a matrix along its momentum with all singular values
made about 1. The momentum is a running mean of the gradient, element by element, and stays in partitions. To be
orthogonalized the matrix has to be whole, on one rank: of as many matrices as there are ranks each rank is sent one,
and sends every rank's part of the result back.

Shape suffixes: N ranks, S elements of a partition.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS
from torch import Tensor

from ligo_dist.engine.adamw import ADAM_MOMENTS, build_adamw
from ligo_dist.engine.shards import partitioned, unpadded
from ligo_dist.engine.world import World, gather_each, scatter_each
from ligo_dist.runtime.optimizers import MATRICES, NEWTON_SCHULZ_STEPS, OptimizerSettings

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration, as Jordan et al. chose them: they bring most singular values between 0.7 and 1.2, and
lift small ones fastest."""

_FIRST_MOMENT = ADAM_MOMENTS[0]
"""Muon's momentum has the name of AdamW's first moment: both are the same running mean."""


def moments_of(kind: str) -> tuple[str, ...]:
    """What the optimizer keeps of a kind of parameters: Muon has no second moment."""
    return (_FIRST_MOMENT,) if kind == MATRICES else ADAM_MOMENTS


def orthogonalized(matrix: Tensor) -> Tensor:
    """A matrix of the same singular vectors, its singular values about 1; those that are very small stay smaller.
    Computed in the dtype that it comes in."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return x.T if is_tall else x


def size_factor(shape: tuple[int, ...]) -> float:
    """What an orthogonalized update is multiplied by so that its elements are as large as AdamW's: it takes AdamW's
    learning rate and weight decay then (Liu et al. 2025, arXiv 2502.16982, section 2.2)."""
    return 0.2 * math.sqrt(max(shape))


@dataclass(frozen=True)
class _Place:
    """Where a rank's partition of a matrix lies in flat weights: `size` elements from `start` on, padding included; and
    the dtype in which the model computes with it."""

    shape: tuple[int, ...]
    start: int
    size: int
    dtype: torch.dtype

    def of(self, flat: Tensor) -> Tensor:
        return flat[self.start : self.start + self.size]


class Muon(torch.optim.Optimizer):
    """Muon for the groups of the kind `MATRICES`, with Nesterov's momentum; AdamW for the others.

    Args:
        groups: of parameters, each with its `kind` and `weight_decay`.
        settings: of both; `muon` is among them.
        world: the ranks. All step together, over the same weights in the same order.
    """

    def __init__(self, groups: list[dict[str, Any]], settings: OptimizerSettings, world: World) -> None:
        assert settings.muon is not None
        self._adamw = build_adamw(groups, settings, world.device)
        super().__init__(self._adamw.param_groups, {})
        self._adamw.param_groups = [group for group in self.param_groups if group["kind"] != MATRICES]
        self._adamw.state = self.state
        self._momentum, self._world = settings.muon.momentum, world
        self._places: dict[int, list[_Place]] = {}

    def find_matrices(self, zero: Any, parameters: Iterable[Any]) -> None:
        """Learn where the matrices lie in the flat weights that ZeRO-3 has made of them.

        Args:
            zero: DeepSpeed's ZeRO-3 optimizer around this one.
            parameters: of the engine, in the same order on every rank.
        """
        for parameter in parameters:
            index, start, size = zero.grad_position[zero.get_param_id(parameter)]
            if self.param_groups[zero.sub_group_to_group_id[index]]["kind"] == MATRICES:
                place = _Place(tuple(parameter.ds_shape), start, size, parameter.dtype)
                self._places.setdefault(id(zero.fp32_partitioned_groups_flat[index]), []).append(place)
        for places in self._places.values():  # those that are whole at the same time are about as large
            places.sort(key=lambda place: place.size, reverse=True)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # DeepSpeed has no closure
        """One step of the weights that have a gradient. Collective."""
        for group in self.param_groups:
            if group["kind"] == MATRICES:
                for flat in group["params"]:
                    if flat.grad is not None:
                        self._step_matrices(flat, flat.grad, group["lr"], group["weight_decay"])
        self._adamw.step()

    def _step_matrices(self, flat: Tensor, gradient: Tensor, rate: float, weight_decay: float) -> None:
        state = self.state[flat]
        if _FIRST_MOMENT not in state:
            state[_FIRST_MOMENT] = torch.zeros_like(flat)
        momentum = state[_FIRST_MOMENT].lerp_(gradient, 1 - self._momentum)
        direction = gradient.lerp(momentum, self._momentum)
        flat.mul_(1 - rate * weight_decay)
        places, several = self._places[id(flat)], self._world.size
        for first in range(0, len(places), several):
            self._move(flat, direction, places[first : first + several], rate)

    def _move(self, flat: Tensor, direction: Tensor, places: list[_Place], rate: float) -> None:
        """Move as many matrices as there are ranks, or fewer: each rank orthogonalizes one."""
        world, dtype = self._world, places[0].dtype
        own_NS = gather_each([place.of(direction).to(world.device, dtype) for place in places], world)
        if own_NS is not None:
            place = places[world.rank]
            made = orthogonalized(unpadded(own_NS, place.shape))
            own_NS = partitioned(made, place.size, world.size)
        parts = scatter_each(own_NS, [place.size for place in places], dtype, world)
        for place, part in zip(places, parts, strict=True):
            place.of(flat).add_(part.to(flat.device), alpha=-rate * size_factor(place.shape))


ZERO_SUPPORTED_OPTIMIZERS.append(Muon)  # ZeRO-3 takes no optimizer that it does not know
