"""Small checkpoints: known tensors, a state, and a writer for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ligo_dist.checkpoints import CheckpointWriter, Snapshot
from ligo_dist.engine import World, shard_of
from ligo_dist.schedule import TRAIN, RunState

ALONE = World(0, 1, torch.device("cpu"))
SHAPES = {"a.weight": (5, 7), "a.bias": (3,), "scale": (1,), "b": (4, 2)}
GROUPS = ("model", "exp_avg")


def full_tensors() -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        group: {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for group in GROUPS
    }


def snapshot(world: World) -> Snapshot:
    full = full_tensors()
    groups = {
        group: {name: shard_of(tensor, world.rank, world.size) for name, tensor in tensors.items()}
        for group, tensors in full.items()
    }
    numels = {group: {n: t.numel() for n, t in tensors.items()} for group, tensors in full.items()}
    return Snapshot(groups, numels)


def state_at(step: int, stage: int = 0, phase: str = TRAIN) -> RunState:
    state = RunState()
    if stage:
        state.enter(stage, phase)
    state.phase, state.step = phase, step
    state.add(tokens=100, flops=1e9, hardware_flops=2e9, seconds=2.5)
    return state


def writer(
    world: World,
    directory: Path,
    keep: int = 2,
    on_failure: Literal["stop", "continue"] = "stop",
    warn: Callable[[str], None] = print,
    config: dict[str, Any] | None = None,
) -> CheckpointWriter:
    return CheckpointWriter(directory, config or {"seed": 1}, keep, on_failure, world, warn)


def save(
    world: World,
    directory: Path,
    step: int = 3,
    keep: int = 2,
    stage: int = 0,
    phase: str = TRAIN,
    config: dict[str, Any] | None = None,
) -> Path:
    """A complete checkpoint."""
    checkpoints = writer(world, directory, keep, config=config)
    checkpoints.save(state_at(step, stage, phase), step, snapshot(world))
    path = checkpoints.settle()
    assert path is not None
    return path
