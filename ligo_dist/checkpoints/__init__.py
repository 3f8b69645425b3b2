"""Checkpoints: complete or absent, verified, and readable on any number of ranks.

files     what lies on disk: the directories, `COMPLETE.json`, which makes one a checkpoint, and one file a rank
writer    saving while the run goes on
reader    the newest one that is sound, and its partitions
"""

from ligo_dist.checkpoints.files import (
    MANIFEST,
    Checkpoint,
    DamagedCheckpoint,
    Snapshot,
    read_manifest,
    remove_leftovers,
    remove_old,
    write_rank_file,
)
from ligo_dist.checkpoints.reader import newest_sound, read_groups, sound
from ligo_dist.checkpoints.writer import CheckpointWriter

__all__ = [
    "MANIFEST",
    "Checkpoint",
    "CheckpointWriter",
    "DamagedCheckpoint",
    "Snapshot",
    "newest_sound",
    "read_groups",
    "read_manifest",
    "remove_leftovers",
    "remove_old",
    "sound",
    "write_rank_file",
]
