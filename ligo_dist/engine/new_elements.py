"""Steps that move the new elements of weights otherwise than the rest: alone for a while, or at another rate.

Partitions are flat, so that what is new within a matrix is a mask on this rank's part of it. What is frozen has no part
in the gradient's norm, and neither its weights nor its moments move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed.utils import safe_get_local_grad, safe_set_local_grad
from torch import Tensor

from ligo_dist.engine.adamw import ADAM_MOMENTS
from ligo_dist.engine.shards import padded


@dataclass
class _Before:
    """What a step is not to change of some flat weights, or only in part."""

    old: Tensor
    moments: dict[str, Tensor]
    new: Tensor


class NewElements:
    """Has an engine's optimizer step some elements otherwise than the others.

    Args:
        zero: DeepSpeed's ZeRO-3 optimizer; its own optimizer is an AdamW or a Muon.
        parameters: of the engine, by name.
        is_new: of each parameter, this rank's partition: whether an element is new; padding may be missing.
        rate: factor of the learning rate of new elements.

    Attributes:
        alone: whether the steps to come leave all other elements as they are.
    """

    def __init__(
        self, zero: Any, parameters: Mapping[str, Any], is_new: Mapping[str, Tensor], rate: float
    ) -> None:
        self.alone, self._rate, self._parameters = False, rate, parameters
        self._masks = [
            torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
            for flat in zero.fp32_partitioned_groups_flat
        ]
        self._index = {id(flat): index for index, flat in enumerate(zero.fp32_partitioned_groups_flat)}
        self._part: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            index, start, numel = zero.grad_position[zero.get_param_id(parameter)]
            part = self._masks[index][start : start + numel]
            part.copy_(padded(is_new[name].float(), numel) > 0)
            self._part[name] = part
        self._before: dict[int, _Before] = {}
        zero.optimizer.register_step_pre_hook(self._remember)
        zero.optimizer.register_step_post_hook(self._correct)

    def drop_other_gradients(self) -> None:
        """Before a step is taken: leave the gradients of frozen elements out of it, and out of its norm."""
        if self.alone:
            for name, parameter in self._parameters.items():
                gradient = safe_get_local_grad(parameter)
                safe_set_local_grad(parameter, gradient * self._part[name].to(gradient.device))

    @torch.no_grad()
    def _remember(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for flat, mask in self._of(optimizer):
            frozen = ~mask
            state = optimizer.state.get(flat, {})
            self._before[id(flat)] = _Before(
                old=flat[frozen] if self.alone else flat[:0],
                # Before the first step there are none: zero is what they begin as.
                moments={
                    moment: state[moment][frozen] if moment in state else torch.zeros_like(flat[frozen])
                    for moment in (ADAM_MOMENTS if self.alone else ())
                },
                new=flat[mask] if self._rate != 1 else flat[:0],
            )
            if self.alone:  # what is frozen has no part in a matrix that is orthogonalized either
                for moment in self._before[id(flat)].moments.keys() & state.keys():
                    state[moment][frozen] = 0

    @torch.no_grad()
    def _correct(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for flat, mask in self._of(optimizer):
            before = self._before.pop(id(flat))
            if self._rate != 1:  # either optimizer's change of a weight, its decay too, is linear in the rate
                flat[mask] = before.new + self._rate * (flat[mask] - before.new)
            if self.alone:
                flat[~mask] = before.old
                state = optimizer.state[flat]
                for moment in before.moments.keys() & state.keys():  # Muon keeps no second one
                    state[moment][~mask] = before.moments[moment]

    def _of(self, optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, Tensor]]:
        """The flat weights that a step is of, and which of their elements are new. DeepSpeed steps one at a time."""
        flats = [flat for group in optimizer.param_groups for flat in group["params"]]
        return [(flat, self._masks[self._index[id(flat)]]) for flat in flats if flat.grad is not None]
