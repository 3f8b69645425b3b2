"""The weights of a grown model as they are trained here: plain, or as a mixture of the source's layers and a remainder.

Shape suffixes: L target layers, C columns (source layers, then fresh ones).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ligo_dist.growth import Growth, Method, initial_value

WEIGHT_DECAY, CLIP, BETAS = 0.1, 1.0, (0.9, 0.95)
"""The defaults of `train.optimizer`; depth coefficients do not decay, as in `grow.learn.optimizer`."""

WEIGHTS, SOURCE, DEPTH = "weights", "source", "depth"
"""Parts that are trained at rates of their own."""


class Weights:
    """W_l = sum_j D_lj S_j + delta_l in all blocks; a parameter's role in all of them is one tensor.

    Args:
        module: a model of these sizes; its own weights are never read.
        growth: names the roles; `{layer}` in them stands for the layer.
        outside: what belongs to no block, by name.
        delta: role -> [L, ...]; without `depth` these are the blocks' weights.
        depth: role -> D, [L, C].
        source: role -> S, [C, ...].
    """

    def __init__(
        self,
        module: nn.Module,
        growth: Growth,
        outside: Mapping[str, Tensor],
        delta: dict[str, Tensor],
        depth: dict[str, Tensor] | None = None,
        source: dict[str, Tensor] | None = None,
    ) -> None:
        self.module, self.growth = module, growth
        self.outside = {name: tensor.clone() for name, tensor in outside.items()}
        self.delta, self.depth, self.source = delta, depth or {}, source or {}

    @classmethod
    def plain(cls, module: nn.Module, growth: Growth, state: Mapping[str, Tensor], layers: int) -> Self:
        """A model of so many layers as it is, by the library's names."""
        outside, stacks = _stacked(growth, state, layers)
        return cls(module, growth, outside, stacks)

    @classmethod
    def grown(
        cls, module: nn.Module, growth: Growth, state: Mapping[str, Tensor], method: Method, stream: str
    ) -> Self:
        """The target as a method begins it, as a mixture.

        Args:
            module: a model of the target's size.
            growth: from the source to the target.
            state: the source by the library's names, its fresh layers as its next ones.
            method: whose first values are taken.
            stream: what random numbers are drawn by.
        """
        outside, source = _stacked(growth, state, growth.columns)
        rows = [initial_value(growth, method, each, stream) for each in growth.operator_parameters]
        values_LRC = torch.stack(rows)
        depth = {role: values_LRC[:, row].clone() for row, role in enumerate(growth.layer_roles)}
        layers = growth.target.layers
        delta = {role: stack.new_zeros(layers, *stack.shape[1:]) for role, stack in source.items()}
        return cls(module, growth, outside, delta, depth, source)

    def blocks(self) -> dict[str, Tensor]:
        """Role -> [L, ...], the weights of the blocks."""
        if not self.depth:
            return self.delta
        return {
            role: torch.einsum("lc,c...->l...", self.depth[role], self.source[role]) + delta
            for role, delta in self.delta.items()
        }

    def state(self) -> dict[str, Tensor]:
        """The model's parameters under the library's names."""
        named = {
            role.format(layer=layer): tensor
            for role, stack in self.blocks().items()
            for layer, tensor in enumerate(stack.unbind())
        }
        return self.outside | named

    def loss(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return functional_call(self.module, self.state(), (), dict(inputs)).loss

    @torch.no_grad()
    def fold(self) -> None:
        """Make plain weights of the mixture, in place: AdamW's state of the remainder is theirs, since their gradient
        was always its own."""
        for role, weights in self.blocks().items():
            self.delta[role].copy_(weights)
        self.depth, self.source = {}, {}

    def parts(self) -> dict[str, list[tuple[Tensor, bool]]]:
        """What can be trained, by part, each tensor with whether it decays: matrices do."""
        blocks = [(tensor, tensor.dim() > 2) for tensor in self.delta.values()]
        return {
            WEIGHTS: [*((tensor, tensor.dim() > 1) for tensor in self.outside.values()), *blocks],
            SOURCE: [(tensor, tensor.dim() > 2) for tensor in self.source.values()],
            DEPTH: [(tensor, False) for tensor in self.depth.values()],
        }


class Training:
    """AdamW on some parts of the weights, each clipped by itself.

    Args:
        weights: what is trained, in place.
        factors: part -> its rate, as a multiple of a step's; parts that are not named stay as they are. The source
            decays as fast as weights do, whatever its rate.
    """

    def __init__(self, weights: Weights, factors: Mapping[str, float]) -> None:
        self.weights = weights
        self._parts = {
            part: [tensor.requires_grad_(part in factors) for tensor, _ in tensors]
            for part, tensors in weights.parts().items()
        }
        groups = [
            {
                "params": [tensor for tensor, is_matrix in weights.parts()[part] if is_matrix == decays],
                "weight_decay": WEIGHT_DECAY / factor if decays else 0.0,
                "factor": factor,
            }
            for part, factor in factors.items()
            for decays in (True, False)
        ]
        self._optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], betas=BETAS, fused=True
        )

    def step(self, inputs: Mapping[str, Tensor], rate: float) -> float:
        """One step; returns the loss before it."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        loss = self.weights.loss(inputs)
        loss.backward()
        for tensors in self._parts.values():
            if trained := [tensor for tensor in tensors if tensor.grad is not None]:
                nn.utils.clip_grad_norm_(trained, CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(loss.detach())


def _stacked(
    growth: Growth, state: Mapping[str, Tensor], layers: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is outside the blocks by name, and what is in so many of them by role."""
    names = {role: [role.format(layer=layer) for layer in range(layers)] for role in growth.layer_roles}
    inside = {name for each in names.values() for name in each}
    stacks = {role: torch.stack([state[name] for name in each]) for role, each in names.items()}
    return {name: tensor for name, tensor in state.items() if name not in inside}, stacks
