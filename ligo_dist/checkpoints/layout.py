"""The directory of a run's checkpoints. Only the first rank changes names in it.

    step-00000400-1-train              a complete one: global step, stage number, phase
    .writing-step-00000500-1-train     one that is being written
    .removing-step-00000300-1-train    one that is being removed
    damaged-step-00000450-1-train      one that was found damaged, and was set aside

A directory takes and loses the first kind of name whole, so a run that is killed anywhere leaves no half checkpoint.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ligo_dist.stages import RunState

_UNFINISHED, _LEAVING, _DAMAGED = ".writing-", ".removing-", "damaged-"
_NAME = re.compile(r"step-(\d+)-(\d+)-(learn|train)")


def checkpoint_path(directory: Path, state: RunState, global_step: int) -> Path:
    """Where the checkpoint of a state lies; `global_step` counts the optimizer steps of the whole run."""
    return directory / f"step-{global_step:08d}-{state.stage}-{state.phase}"


def unfinished_path(path: Path) -> Path:
    """Where a checkpoint lies while it is being written."""
    return path.with_name(_UNFINISHED + path.name)


def newest_first(directory: Path) -> list[Path]:
    """The checkpoints in a directory, by global step, then stage, then phase: `learn` comes before `train`."""
    found = [
        ((int(match[1]), int(match[2]), match[3] == "train"), path)
        for path in directory.glob("step-*")
        if (match := _NAME.fullmatch(path.name))
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


def remove_old(directory: Path, keep: int) -> None:
    """Remove the checkpoints beyond the newest `keep`."""
    for path in newest_first(directory)[keep:]:
        _remove(path)


def remove_unfinished(path: Path) -> None:
    """Remove what there is of a checkpoint that cannot be written."""
    shutil.rmtree(unfinished_path(path), ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what a killed run was writing or removing."""
    for prefix in (_UNFINISHED, _LEAVING):
        for leftover in directory.glob(f"{prefix}*"):
            shutil.rmtree(leftover)


def set_aside(path: Path) -> Path:
    """Give a damaged checkpoint a name under which it is not looked at again; returns its new place."""
    aside, number = path.with_name(_DAMAGED + path.name), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{_DAMAGED}{path.name}-{number}")
    return path.rename(aside)


def _remove(path: Path) -> None:
    """Take a checkpoint's name away, then its files: killed in between, no half of it is taken for a whole one."""
    leaving = path.with_name(_LEAVING + path.name)
    path.rename(leaving)
    # What stays, held open on a network disk perhaps, is removed when the run is started again.
    shutil.rmtree(leaving, ignore_errors=True)


def _sync(directory: Path) -> None:
    """Have the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
