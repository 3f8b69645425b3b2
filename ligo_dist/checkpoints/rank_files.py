"""One rank's file of a checkpoint: its fp32 partitions, as safetensors under `group/name`."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ligo_dist.checkpoints.manifest import DamagedCheckpoint, RankFile
from ligo_dist.errors import CheckpointError
from ligo_dist.heartbeat import beat
from ligo_dist.shards import Shards


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


def write_rank_file(path: Path, tensors: Mapping[str, Tensor]) -> RankFile:
    """Write tensors and have them on disk.

    Raises:
        CheckpointError: they cannot be written: a full disk, say.
    """
    try:
        save_file(dict(tensors), path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return RankFile(path.stat().st_size, _checksum(path))
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk by an error of its own
        reason = error.strerror if isinstance(error, OSError) else None
        raise CheckpointError(f"{path}: {reason or error}") from error


def check_rank_file(path: Path, written: RankFile) -> None:
    """Hold a file against what was written.

    Raises:
        DamagedCheckpoint: it is missing, shorter or longer, cannot be read, or has another checksum.
    """
    try:
        size = path.stat().st_size
        if size != written.size:
            raise DamagedCheckpoint(f"{path} has {size} bytes, {written.size} were written")
        if _checksum(path) != written.checksum:
            raise DamagedCheckpoint(f"{path} is not what was written (checksum)")
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{path} is missing") from error
    except OSError as error:
        raise DamagedCheckpoint(f"{path} cannot be read: {error.strerror or error}") from error


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            beat(f"checksum of {path.name}")
            checksum = zlib.crc32(chunk, checksum)
    return checksum
