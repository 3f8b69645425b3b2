"""Directories that are made once: complete or absent, whoever asks for them at the same time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ligo_dist.runtime.errors import DataError


@contextmanager
def progress_bar(
    title: str, total: int | None, show: bool, unit: str = "documents"
) -> Iterator[Callable[[int], None]]:
    """Gives a function that moves the bar by a number of documents (or whatever `unit` says).

    On standard error; where that is no terminal, one line at the end. `total` None: unknown.
    """
    if not show:
        yield lambda documents: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        done = 0

        def advance(documents: int) -> None:
            nonlocal done
            done += documents
            progress.update(task, completed=done)

        yield advance
        progress.update(task, completed=done, total=done)


logger = logging.getLogger(__name__)

_CHECKSUM_BYTES = 4 << 30
"""Files up to this size are checked by their checksum, larger ones by their size alone."""


def cache_key(inputs: dict[str, Any]) -> str:
    """A name for what these inputs (JSON values) give rise to."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_once(directory: Path, make: Callable[[Path], None], fault: Callable[[Path], str | None]) -> None:
    """Sees to it that `directory` exists and is sound, and that only one process at a time works on it.

    The others wait. The work is done in a directory beside it that is renamed when it is complete, so a
    process that is killed leaves nothing that could be taken for the result; the next one removes what it
    left.

    Args:
        make: fills the empty directory it is given.
        fault: what is wrong with a directory, or None. A faulty one is made anew.

    Raises:
        DataError: the place cannot be written to; and whatever `make` raises.
    """
    if directory.exists() and fault(directory) is None:
        return
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            _make(directory, make, fault)
    except OSError as error:
        raise DataError(f"data.cache_dir: {str(directory.parent)!r} cannot be used: {error}") from error


def size_and_checksum(path: Path) -> dict[str, Any]:
    """What `file_fault` wants to know of a file."""
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def file_fault(path: Path, size: int, sha256: str) -> str | None:
    """What is wrong with a file, or None."""
    if path.stat().st_size != size:
        return f"{path.name} has another size"
    if size <= _CHECKSUM_BYTES and _sha256(path) != sha256:
        return f"{path.name} has another checksum"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make(directory: Path, make: Callable[[Path], None], fault: Callable[[Path], str | None]) -> None:
    if directory.exists():
        what = fault(directory)
        if what is None:
            return
        logger.warning("%s is damaged (%s) and is made anew", directory, what)
        shutil.rmtree(directory)
    mine = f"{directory.name}.partial-{socket.gethostname()}-"
    for left_over in directory.parent.glob(f"{mine}*"):
        shutil.rmtree(left_over, ignore_errors=True)  # it is in nobody's way
    partial = directory.parent / f"{mine}{os.getpid()}"
    partial.mkdir()
    try:
        make(partial)
        _sync(partial)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = FileLock(f"{directory}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        logger.info("waiting for the process that makes %s", directory)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sync(directory: Path) -> None:
    """To the disk before the rename, so that not even a power cut leaves a complete-looking directory."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
