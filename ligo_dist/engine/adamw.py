"""torch's AdamW as an engine has it: one kernel for all its weights on GPUs, and on processors the plain loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ligo_dist.runtime.optimizers import OptimizerSettings

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")

_FUSED = ("cuda", "xpu")
"""Kinds of devices on which torch brings the fused kernel compiled (ROCm calls itself `cuda`). DeepSpeed's own would be
compiled at the start, on each node, which takes nvcc."""


def build_adamw(
    groups: list[dict[str, Any]], settings: OptimizerSettings, device: torch.device
) -> torch.optim.AdamW:
    """The optimizer of these groups of parameters, for a rank that computes on a device.

    On a GPU it is fused, also where `offload_optimizer` lays the partitions into the processors' memory, for which
    torch has a fused kernel too. Ranks on processors keep the plain loop, whose last digits are others.
    """
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=device.type in _FUSED,
    )


def set_steps(
    optimizer: torch.optim.Optimizer,
    weights: Tensor,
    steps: int,
    moments: Iterable[str] = ADAM_MOMENTS,
) -> None:
    """Let some weights of the optimizer have taken so many steps; their moments, those that it keeps, are zero."""
    fused = any(group["fused"] for group in optimizer.param_groups)
    optimizer.state[weights] = {
        # The fused kernel reads it where the weights are.
        "step": torch.tensor(float(steps), device=weights.device if fused else None),
        **{moment: torch.zeros_like(weights) for moment in moments},
    }
