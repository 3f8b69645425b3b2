"""What a checkpoint is on disk: a directory with `COMPLETE.json` and a file of each rank, its fp32 partitions as
safetensors under `group/name`. Only the first rank changes names among a run's checkpoints.

    step-00000400-1-train              a complete one: global step, stage number, phase
    .writing-step-00000500-1-train     one that is being written
    .removing-step-00000300-1-train    one that is being removed
    damaged-step-00000450-1-train      one that was found damaged, and was set aside

A directory takes and loses the first kind of name whole, so a run that is killed anywhere leaves no half checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ligo_dist.engine import Shards, WrittenFile, write_tensors
from ligo_dist.runtime.errors import CheckpointError
from ligo_dist.runtime.files import CHECKPOINT_NAME, MANIFEST
from ligo_dist.runtime.heartbeat import beat
from ligo_dist.schedule import RunState

_UNFINISHED, _LEAVING, _DAMAGED = ".writing-", ".removing-", "damaged-"


def checkpoint_path(directory: Path, state: RunState, global_step: int) -> Path:
    """Where the checkpoint of a state lies; `global_step` counts the optimizer steps of the whole run."""
    return directory / f"step-{global_step:08d}-{state.stage}-{state.phase}"


def global_step_of(path: Path) -> int:
    """Optimizer steps of the whole run that a checkpoint has, as its name says."""
    match = CHECKPOINT_NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def unfinished_path(path: Path) -> Path:
    """Where a checkpoint lies while it is being written."""
    return path.with_name(_UNFINISHED + path.name)


def newest_first(directory: Path) -> list[Path]:
    """The checkpoints in a directory, by global step, then stage, then phase: `learn` comes before `train`.

    Raises:
        CheckpointError: the directory cannot be read: what lies in it is not known.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise _unreadable(directory, error) from error
    found = [
        ((int(match[1]), int(match[2]), match[3] == "train"), directory / name)
        for name in names
        if (match := CHECKPOINT_NAME.fullmatch(name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def give_name(path: Path) -> None:
    """Give a checkpoint its name, now that all its files are on disk; one that has the name is removed.

    Raises:
        OSError: a full disk, say.
    """
    unfinished = unfinished_path(path)
    _sync(unfinished)
    if path.exists():
        _remove(path)
    unfinished.rename(path)
    _sync(path.parent)


def remove_old(directory: Path, keep: int, keep_steps: Collection[int] = ()) -> None:
    """Remove the checkpoints beyond the newest `keep`, but for those of the global steps `keep_steps`."""
    for path in newest_first(directory)[keep:]:
        if global_step_of(path) not in keep_steps:
            _remove(path)


def remove_unfinished(path: Path) -> None:
    """Remove what there is of a checkpoint that cannot be written."""
    shutil.rmtree(unfinished_path(path), ignore_errors=True)


def remove_leftovers(directory: Path) -> list[str]:
    """Remove what a killed run was writing or removing; a line for each that cannot be removed, and is in nobody's
    way."""
    leftovers = [path for prefix in (_UNFINISHED, _LEAVING) for path in directory.glob(f"{prefix}*")]
    lines = []
    for leftover in leftovers:
        try:
            shutil.rmtree(leftover)
        except OSError as error:
            why = error.strerror or error
            lines.append(f"{leftover}, which a run before has left, cannot be removed: {why}; going on")
    return lines


def set_aside(path: Path) -> Path:
    """Give a damaged checkpoint a name under which it is not looked at again; returns its new place.

    Raises:
        CheckpointError: it cannot be renamed.
    """
    try:
        return path.rename(_free_name(path, _DAMAGED))
    except OSError as error:
        raise CheckpointError(
            f"{path} is damaged and cannot be set aside: {error.strerror or error}; move it elsewhere"
        ) from error


def _remove(path: Path) -> None:
    """Take a checkpoint's name away, then its files: killed in between, no half of it is taken for a whole one."""
    leaving = path.rename(_free_name(path, _LEAVING))
    # What stays, held open on a network disk perhaps, is removed when the run is started again.
    shutil.rmtree(leaving, ignore_errors=True)


def _free_name(path: Path, prefix: str) -> Path:
    """The name with a prefix, and with a number where another has it already."""
    free, number = path.with_name(prefix + path.name), 1
    while free.exists():
        number += 1
        free = path.with_name(f"{prefix}{path.name}-{number}")
    return free


def _sync(directory: Path) -> None:
    """Have the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FORMAT = 2


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that is not what was written; the message is the file and what is wrong with it."""


_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What the system says of a file that is not one, or not there: of any other error it may be as it was written."""


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    """Whoever may not read a checkpoint, or whose disk does not answer, is not to go on from an older one."""
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}; nothing says that it is damaged"
    )


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: its directory.
        state: where the run stood.
        config: the resolved configuration it was made with.
        world_size: the number of ranks it was made on.
        numels: elements of each whole tensor, by `group/name`.
        files: of the ranks, by file name.
    """

    path: Path
    state: RunState
    config: dict[str, Any]
    world_size: int
    numels: dict[str, int]
    files: dict[str, WrittenFile]


def write_manifest(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a checkpoint's manifest into the directory of its files, and have it on disk.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        "format": _FORMAT,
        "state": checkpoint.state.to_dict(),
        "world_size": checkpoint.world_size,
        "files": checkpoint.files,
        "numels": checkpoint.numels,
        "config": checkpoint.config,
    }
    with (directory / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({**content, "checksum": _checksum(content)}, file)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(path: Path) -> Checkpoint:
    """The checkpoint in a directory, by what its manifest says; its other files are not looked at.

    Raises:
        DamagedCheckpoint: the manifest is missing, or not what was written.
        CheckpointError: it cannot be read, or has the format of another version.
    """
    file = path / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        checksum, found = content.pop("checksum", None), content["format"]
    except _NOT_THERE as error:
        raise DamagedCheckpoint(f"{file} is missing") from error
    except OSError as error:
        raise _unreadable(file, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{file} cannot be read ({error})") from error
    if found != _FORMAT:
        raise CheckpointError(f"{file}: format {found}, this version reads {_FORMAT}")
    if checksum != _checksum(content):
        raise DamagedCheckpoint(f"{file} is not what was written (checksum)")
    return Checkpoint(
        path,
        RunState.from_dict(content["state"]),
        content["config"],
        content["world_size"],
        content["numels"],
        {name: WrittenFile(*values) for name, values in content["files"].items()},
    )


def _checksum(content: dict[str, Any]) -> int:
    """Of what a manifest says: JSON that was read and is written again is the same text."""
    return zlib.crc32(json.dumps(content).encode())


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds of one rank. Nothing may change its tensors afterwards: they are written later.

    Attributes:
        groups: this rank's partitions by group (`model`, `source`, `operator`, `exp_avg`, ...).
        numels: elements of each whole tensor, by group.
    """

    groups: dict[str, Shards]
    numels: dict[str, dict[str, int]]

    def tensors(self) -> dict[str, Tensor]:
        """The partitions in the processor's memory, by `group/name`; those that lie there are not copied."""
        return {
            f"{group}/{name}": shard.contiguous().cpu()
            for group, shards in self.groups.items()
            for name, shard in shards.items()
        }

    def whole_numels(self) -> dict[str, int]:
        """Elements of each whole tensor, by `group/name`."""
        return {f"{group}/{name}": n for group, part in self.numels.items() for name, n in part.items()}


def rank_file_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def write_rank_file(path: Path, tensors: Mapping[str, Tensor], advance: Callable[[], None]) -> WrittenFile:
    """Write tensors and have them on disk; `advance` is called each time that it has taken some more.

    Raises:
        CheckpointError: they cannot be written: a full disk, say.
    """
    try:
        return write_tensors(path, tensors, advance=advance)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def check_rank_file(path: Path, written: WrittenFile) -> None:
    """Hold a file against what was written.

    Raises:
        DamagedCheckpoint: it is missing, shorter or longer, or has another checksum.
        CheckpointError: it cannot be read.
    """
    try:
        size = path.stat().st_size
        if size != written.size:
            raise DamagedCheckpoint(f"{path} has {size} bytes, {written.size} were written")
        if _file_checksum(path) != written.checksum:
            raise DamagedCheckpoint(f"{path} is not what was written (checksum)")
    except _NOT_THERE as error:
        raise DamagedCheckpoint(f"{path} is missing") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _file_checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            beat(f"checksum of {path.name}")
            checksum = zlib.crc32(chunk, checksum)
    return checksum
