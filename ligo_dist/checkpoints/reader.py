"""The newest checkpoint that is sound, and its partitions on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ligo_dist.checkpoints.files import (
    Checkpoint,
    DamagedCheckpoint,
    check_rank_file,
    newest_first,
    rank_file_name,
    read_manifest,
    set_aside,
)
from ligo_dist.engine import Shards, World, first_rank_only, overlaps, padded, partition_size, raise_together
from ligo_dist.runtime.errors import CheckpointError
from ligo_dist.runtime.heartbeat import beat


def newest_sound(
    directory: Path, accept: Callable[[Checkpoint], None], world: World
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose files are what was written. Collective; the ranks share the reading.

    Damaged ones that are newer are set aside under another name, never removed.

    Args:
        directory: where checkpoints lie.
        accept: called with a checkpoint before its files are read; may refuse it by raising.
        world: the ranks.

    Returns:
        The checkpoint, None if there is none at all; and a line for each one that was set aside.

    Raises:
        CheckpointError: on every rank, if one that is newer than all sound ones cannot be read; or if there are
            checkpoints and all are damaged: it names each. They stay where they are, so that the run does not begin
            anew the next time.
    """
    damaged: dict[Path, str] = {}
    for path in first_rank_only(lambda: newest_first(directory), world):
        try:
            checkpoint = sound(path, accept, world)
        except DamagedCheckpoint as damage:
            damaged[path] = str(damage)
        else:
            return checkpoint, _set_aside(damaged, checkpoint, world)
    if damaged:
        lines = "\n".join(f"  {damage}" for damage in damaged.values())
        failure = CheckpointError(
            f"no checkpoint in {directory} can be gone on from:\n{lines}\n"
            "put an undamaged copy of one of them back, or move them elsewhere to begin anew"
        )
        raise_together(failure, world)
    return None, []


def sound(path: Path, accept: Callable[[Checkpoint], None], world: World) -> Checkpoint:
    """The checkpoint in a directory. Collective; the ranks share the reading.

    Raises:
        DamagedCheckpoint: on every rank, if it is not what was written.
        CheckpointError: likewise, if it cannot be read, or is not accepted.
    """

    def accepted() -> Checkpoint:
        checkpoint = read_manifest(path)
        accept(checkpoint)
        return checkpoint

    checkpoint = first_rank_only(accepted, world)
    failure: CheckpointError | None = None
    try:
        for index in range(world.rank, checkpoint.world_size, world.size):
            name = rank_file_name(index)
            check_rank_file(path / name, checkpoint.files[name])
    except CheckpointError as error:
        failure = error
    raise_together(failure, world)
    return checkpoint


def read_groups(checkpoint: Checkpoint, world: World, groups: tuple[str, ...]) -> dict[str, Shards]:
    """This rank's partitions of some groups, cut anew if the number of ranks has changed."""
    result: dict[str, Shards] = {}
    files = [
        safe_open(checkpoint.path / rank_file_name(r), framework="pt", device="cpu")
        for r in range(checkpoint.world_size)
    ]
    for key, numel in checkpoint.numels.items():
        group, _, name = key.partition("/")
        if group in groups:
            beat(f"reading {key}")
            result.setdefault(group, {})[name] = _cut(files, key, numel, checkpoint.world_size, world)
    return result


def _set_aside(damaged: dict[Path, str], instead: Checkpoint, world: World) -> list[str]:
    def rename() -> list[str]:
        return [
            f"damaged checkpoint: {damage}; set aside as {set_aside(path).name},"
            f" going on from {instead.path.name}"
            for path, damage in damaged.items()
        ]

    return first_rank_only(rename, world)


def _cut(files: list[Any], key: str, numel: int, old_world: int, world: World) -> Tensor:
    shard = padded(files[0].get_slice(key)[0:0], partition_size(numel, world.size))
    for old_rank, old, new in overlaps(numel, old_world, world.rank, world.size):
        shard[new] = files[old_rank].get_slice(key)[old]
    return shard.to(world.device)
