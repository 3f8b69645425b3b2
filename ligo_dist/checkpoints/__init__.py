"""Checkpoints: complete or absent, verified, and readable on any number of ranks.

layout       the directories: names, completing, removing, setting aside
manifest     `COMPLETE.json`: what makes a directory a checkpoint
rank_files   one rank's partitions on disk
writer       saving while the run goes on
reading      the newest one that is sound, and its partitions
"""

from ligo_dist.checkpoints.manifest import Checkpoint
from ligo_dist.checkpoints.rank_files import Snapshot
from ligo_dist.checkpoints.reading import newest_sound, read_groups
from ligo_dist.checkpoints.writer import CheckpointWriter

__all__ = ["Checkpoint", "CheckpointWriter", "Snapshot", "newest_sound", "read_groups"]
