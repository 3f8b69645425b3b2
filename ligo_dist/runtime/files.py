"""Files and directories of the project's own: how they are made, and the file that says that one is in use."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path

from ligo_dist.runtime.errors import CheckpointError

LOCK_FILE = ".lock"
"""Held by whoever uses a run directory."""
CHECKPOINTS_DIRECTORY = "checkpoints"
"""Directory of a run's checkpoints, within the run directory."""
MANIFEST = "COMPLETE.json"
"""In each checkpoint: says that it is one, and what it is of."""
CHECKPOINT_NAME = re.compile(r"step-(\d+)-(\d+)-(learn|train)")
"""Name of a complete checkpoint: global step, stage number, phase."""
RUN_LOG = "run.log"
"""What a run said, each line with its time, within the run directory."""
EXPORTS_DIRECTORY = "export"
"""Directory of a run's exports, one for each stage, within the run directory."""
SUMMARY_FILE = "summary.json"
"""What a finished run came to, in its directory."""


def make_empty(path: Path, what: str) -> None:
    """Make a directory, without anything that an earlier, killed run may have left in it.

    Raises:
        CheckpointError: if it cannot be made; `what` says what it is for.
    """
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"{what} directory {path} cannot be made: {error.strerror or error}") from error


def replace_directory(new: Path, name: Path) -> None:
    """Give a new directory a name that another one may have, which is removed when the new one has it.

    Where the system can exchange two names at once (Linux, on most file systems) no moment is without a whole
    directory of that name. Elsewhere the old one lies beside it for the moment between two renamings, from where
    `restore_replaced` takes it back.

    Raises:
        OSError: it cannot have the name; what has had it so far has it still.
    """
    aside = _aside(name)
    if not name.exists():
        new.rename(name)
    elif _exchange(new, name):
        aside = new
    else:
        shutil.rmtree(aside, ignore_errors=True)
        name.rename(aside)
        try:
            new.rename(name)
        except OSError:
            aside.rename(name)
            raise
    shutil.rmtree(aside, ignore_errors=True)


def restore_replaced(name: Path) -> None:
    """Undo a `replace_directory` that was killed after the old directory had lost its name."""
    if not name.exists() and _aside(name).exists():
        _aside(name).rename(name)


def _aside(name: Path) -> Path:
    return name.with_name(f".replaced-{name.name}")


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names at once; false where the system or the file system cannot."""
    at_working_directory, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE, from fcntl.h and linux/fs.h
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    names = os.fsencode(first), os.fsencode(second)
    return rename(at_working_directory, names[0], at_working_directory, names[1], exchange) == 0


def replace_text(path: Path, text: str) -> None:
    """Write a file of text so that it is there as a whole, or as it was before."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole, or as it was before."""
    unfinished = path.with_name(f"{path.name}.writing")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
