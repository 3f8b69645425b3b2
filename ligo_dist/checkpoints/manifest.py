"""`COMPLETE.json`: it is written last, and makes a directory a checkpoint."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ligo_dist.errors import CheckpointError
from ligo_dist.stages import RunState

MANIFEST = "COMPLETE.json"
_FORMAT = 2


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that is not what was written; the message is the file and what is wrong with it."""


class RankFile(NamedTuple):
    """What is known of one rank's file: its bytes and their crc32."""

    size: int
    checksum: int


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
    files: dict[str, RankFile]


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
        CheckpointError: it has the format of another version.
    """
    file = path / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        checksum, found = content.pop("checksum", None), content["format"]
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{file} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
        {name: RankFile(*values) for name, values in content["files"].items()},
    )


def _checksum(content: dict[str, Any]) -> int:
    """Of what a manifest says: JSON that was read and is written again is the same text."""
    return zlib.crc32(json.dumps(content).encode())
