"""Files and directories of the project's own: how they are made, and the file that says that one is in use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ligo_dist.runtime.errors import CheckpointError

LOCK_FILE = ".lock"
"""Held by whoever uses a run directory."""
EXPORTS_DIRECTORY = "export"
"""Directory of a run's exports, one for each stage, within the run directory."""


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
