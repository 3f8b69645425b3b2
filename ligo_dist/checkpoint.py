"""Checkpoints: complete or absent, and readable on any number of ranks.

A checkpoint is a directory `step-00000400-1-train` of one safetensors file per rank, holding that rank's fp32
partitions under `group/name`, and `COMPLETE.json`: the run's state and configuration, the sizes of all tensors, the
bytes and checksum of every file. It is written under another name and renamed when every rank's file is on disk.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ligo_dist.distributed import World, first_rank_only, gather_objects, raise_together
from ligo_dist.errors import CheckpointError
from ligo_dist.files import make_empty
from ligo_dist.heartbeat import beat
from ligo_dist.shards import Shards, overlaps, padded, partition_size
from ligo_dist.stages import RunState

MANIFEST = "COMPLETE.json"
_FORMAT = 1
_UNFINISHED = ".writing-"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: its directory.
        state: where the run stood.
        config: the resolved configuration it was made with.
        world_size: the number of ranks it was made on.
        numels: elements of each whole tensor, by `group/name`.
        files: (bytes, crc32) of each rank's file, by file name.
    """

    path: Path
    state: RunState
    config: dict[str, Any]
    world_size: int
    numels: dict[str, int]
    files: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds of one rank.

    Attributes:
        groups: this rank's partitions by group (`model`, `source`, `operator`, `exp_avg`, ...).
        numels: elements of each whole tensor, by group.
    """

    groups: dict[str, Shards]
    numels: dict[str, dict[str, int]]


def save_checkpoint(
    directory: Path,
    state: RunState,
    global_step: int,
    snapshot: Snapshot,
    config: dict[str, Any],
    keep: int,
    world: World,
) -> Path:
    """Write a checkpoint and drop those beyond the last `keep`. Collective.

    Args:
        directory: where checkpoints lie.
        state: where the run stands.
        global_step: optimizer steps of the whole run; part of the name.
        snapshot: this rank's part of the weights and of the optimizer's moments.
        config: the resolved configuration.
        keep: how many complete checkpoints stay.
        world: the ranks.

    Raises:
        CheckpointError: if any rank cannot write; what was there before stays.
    """
    path = directory / f"step-{global_step:08d}-{state.stage}-{state.phase}"
    unfinished = directory / f"{_UNFINISHED}{path.name}"
    failure: Exception | None = None
    written: tuple[str, int, int] = ("", 0, 0)
    first_rank_only(lambda: make_empty(unfinished, "checkpoint"), world)
    try:
        written = _write_rank_file(unfinished / _rank_file(world.rank), snapshot.groups)
    except OSError as error:
        failure = CheckpointError(
            f"{unfinished}: {error.strerror or error}; the checkpoints before it are intact"
        )
    raise_together(failure, world)
    files = {name: (size, checksum) for name, size, checksum in gather_objects(written, world)}
    manifest = {
        "format": _FORMAT,
        "state": state.to_dict(),
        "global_step": global_step,
        "world_size": world.size,
        "files": files,
        "numels": {
            f"{group}/{name}": n for group, part in snapshot.numels.items() for name, n in part.items()
        },
        "config": config,
    }
    first_rank_only(lambda: _complete(unfinished, path, manifest, keep), world)
    return path


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest complete checkpoint, None if there is none.

    Raises:
        CheckpointError: if the newest is damaged: it says which file, and which checkpoint could be gone on from.
    """
    manifests = sorted((json_path.parent for json_path in directory.glob(f"step-*/{MANIFEST}")), key=_order)
    if not manifests:
        return None
    newest, older = manifests[-1], manifests[:-1]
    way_out = (
        f"remove {newest} to go on from {older[-1].name}" if older else "there is no older one to go on from"
    )
    checkpoint = _read_manifest(newest, way_out)
    for name, (size, _) in checkpoint.files.items():
        file = newest / name
        actual = file.stat().st_size if file.exists() else None
        if actual != size:
            state = "is missing" if actual is None else f"has {actual} bytes, {size} were written"
            raise CheckpointError(f"damaged checkpoint: {file} {state}; {way_out}")
    return checkpoint


def read_groups(checkpoint: Checkpoint, world: World, groups: tuple[str, ...]) -> dict[str, Shards]:
    """This rank's partitions of some groups, cut anew if the number of ranks has changed. Collective.

    Raises:
        CheckpointError: on every rank, if a file's content is not what was written.
    """
    failure: Exception | None = None
    try:
        for index in range(world.rank, checkpoint.world_size, world.size):
            _verify(checkpoint, _rank_file(index))
    except CheckpointError as error:
        failure = error
    raise_together(failure, world)
    result: dict[str, Shards] = {}
    files = [
        safe_open(checkpoint.path / _rank_file(r), framework="pt", device="cpu")
        for r in range(checkpoint.world_size)
    ]
    for key, numel in checkpoint.numels.items():
        group, _, name = key.partition("/")
        if group in groups:
            beat(f"reading {key}")
            result.setdefault(group, {})[name] = _cut(files, key, numel, checkpoint.world_size, world)
    return result


def remove_unfinished(directory: Path) -> None:
    """Remove what a killed run left half-written."""
    for leftover in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)


def _cut(files: list[Any], key: str, numel: int, old_world: int, world: World) -> Tensor:
    shard = padded(files[0].get_slice(key)[0:0], partition_size(numel, world.size))
    for old_rank, old, new in overlaps(numel, old_world, world.rank, world.size):
        shard[new] = files[old_rank].get_slice(key)[old]
    return shard.to(world.device)


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _order(path: Path) -> tuple[int, int, bool]:
    """Names sort by global step, then stage, then phase: `learn` comes before `train`."""
    _, step, stage, phase = path.name.split("-")
    return int(step), int(stage), phase == "train"


def _write_rank_file(path: Path, groups: Mapping[str, Shards]) -> tuple[str, int, int]:
    beat(f"writing {path.name}")
    tensors = {
        f"{group}/{name}": shard.contiguous().cpu()
        for group, shards in groups.items()
        for name, shard in shards.items()
    }
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.name, path.stat().st_size, _checksum(path)


def _complete(unfinished: Path, path: Path, manifest: dict[str, Any], keep: int) -> None:
    try:
        with (unfinished / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():  # a run that was resumed before this point comes here again with the same state
            shutil.rmtree(path)
        unfinished.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror or error}; the checkpoints before it are intact"
        ) from error
    complete = sorted((json_path.parent for json_path in path.parent.glob(f"step-*/{MANIFEST}")), key=_order)
    for old in complete[:-keep]:
        (old / MANIFEST).unlink()  # first, so that a half-removed one is not taken for complete
        shutil.rmtree(old)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(path: Path, way_out: str) -> Checkpoint:
    file = path / MANIFEST
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != _FORMAT:
            raise CheckpointError(f"{file}: format {values['format']}, this version reads {_FORMAT}")
        files = {name: (size, checksum) for name, (size, checksum) in values["files"].items()}
        state = RunState.from_dict(values["state"])
        return Checkpoint(path, state, values["config"], values["world_size"], values["numels"], files)
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"damaged checkpoint: {file} cannot be read ({error}); {way_out}") from error


def _verify(checkpoint: Checkpoint, name: str) -> None:
    if _checksum(checkpoint.path / name) != checkpoint.files[name][1]:
        raise CheckpointError(
            f"damaged checkpoint: {checkpoint.path / name} is not what was written (checksum);"
            f" remove {checkpoint.path} to go on from the one before it"
        )


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            beat(f"checksum of {path.name}")
            checksum = zlib.crc32(chunk, checksum)
    return checksum
