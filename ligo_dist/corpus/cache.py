"""Directories that are made once, complete or absent, whoever asks for them at the same time; and which of them was
made for what a configuration asks. Imports neither torch nor `datasets`."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from ligo_dist.runtime.files import replace_text

if TYPE_CHECKING:
    from ligo_dist.config import Config

logger = logging.getLogger(__name__)

INDEX_FILE = "index.json"

_CHECKSUM_BYTES = 4 << 30
"""Files up to this size are checked by their checksum, larger ones by their size alone."""

_OF_NO_ACCOUNT = {
    "sequence_length", "separate_documents", "mask_fraction", "random_shift", "random_flip", "labels",
}  # fmt: skip
_OF_THE_WORK = {"streaming", "workers", "cache_dir"}
"""Keys of `data` that change nothing of what is prepared."""

Check = Callable[[Path, dict[str, Any]], str | None]
"""Says what is wrong with a directory whose `index.json` says this, or None."""


def cache_key(inputs: dict[str, Any]) -> str:
    """A name for what these inputs (JSON values) give rise to."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_cached(
    cache_dir: Path, inputs: dict[str, Any], make: Callable[[Path], dict[str, Any]], check: Check
) -> Path:
    """The directory that holds what these inputs give rise to, with an `index.json` of it.

    Args:
        inputs: JSON values; its name is their key.
        make: fills the empty directory it is given; what the index is to say beside the key and the inputs.
        check: whether what is there already is sound; else it is made anew.

    Raises:
        DataError: as `make_once`.
    """
    fingerprint = cache_key(inputs)

    def make_with_index(directory: Path) -> None:
        index = {"fingerprint": fingerprint, **make(directory), "inputs": inputs}
        (directory / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    directory = cache_dir.absolute() / fingerprint
    make_once(directory, make_with_index, lambda made: _index_fault(made, check))
    return directory


def read_index(directory: Path) -> dict[str, Any]:
    """What the `index.json` of a directory says."""
    return json.loads((directory / INDEX_FILE).read_text(encoding="utf-8"))


def recall(config: Config, missing: DataError, check: Check) -> tuple[Path, str]:
    """What was prepared before for what a configuration asks, and a note of that: it stands on its own.

    Args:
        missing: of what it is made from.

    Raises:
        DataError: `missing`, if nothing was prepared; or what was is damaged.
    """
    directory = find_prepared(config)
    if directory is None:
        raise missing
    fault = _index_fault(directory, check)
    if fault is not None:
        raise DataError(f"{missing}; and what was prepared of it, in {directory}, is damaged ({fault})")
    return directory, f" (prepared before: {missing})"


def remember(config: Config, directory: Path) -> None:
    """Note in the cache that a directory of it is what a configuration asks for."""
    file = next(_notes(config))
    with suppress(OSError):  # it serves a later run alone; and others may be writing the same
        if not file.is_file() or file.read_text(encoding="utf-8") != directory.name:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_text(file, directory.name)


def find_prepared(config: Config) -> Path | None:
    """The directory of the cache that was last prepared for what a configuration asks; None: there is none. Whether it
    is sound is not looked at."""
    found = []
    for file in _notes(config):
        with suppress(OSError):
            directory = file.parents[1] / file.read_text(encoding="utf-8")
            if directory.is_dir():
                found.append((file.stat().st_mtime_ns, directory))
    return max(found)[1] if found else None


def make_once(directory: Path, make: Callable[[Path], None], fault: Callable[[Path], str | None]) -> None:
    """Sees to it that `directory` exists and is sound, and that only one process at a time works on it.

    The others wait. The work is done in a directory beside it that is renamed when it is complete, so a
    process that is killed leaves nothing that could be taken for the result; the next one removes what it
    left. What another process has made meanwhile is taken as it is: looking at large files in turn takes long.
    Where locks do not hold, several do the work, and the first one's is taken.

    Args:
        make: fills the empty directory it is given.
        fault: what is wrong with a directory, or None. A faulty one is made anew.

    Raises:
        DataError: the place cannot be written to; and whatever `make` raises.
    """
    before = _state(directory)
    what = None if before is None else fault(directory)
    if before is not None and what is None:
        return
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            now = _state(directory)
            if now is not None and now != before:
                return
            if now is not None:
                logger.warning("%s is damaged (%s) and is made anew", directory, what)
            _make(directory, make)
    except OSError as error:
        raise DataError(f"data.cache_dir: {str(directory.parent)!r} cannot be used: {error}") from error


def file_states(paths: Iterable[str]) -> list[list[Any]]:
    """Path, size and time of change of each file: tells one state of it from another, as JSON values."""
    return [[path, (stat := os.stat(path)).st_size, stat.st_mtime_ns] for path in paths]


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


def _index_fault(directory: Path, check: Check) -> str | None:
    try:
        index = read_index(directory)
        if index["fingerprint"] != directory.name:
            return "index.json belongs to another corpus"
        return check(directory, index)
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        return str(error)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(directory: Path) -> tuple[int, int] | None:
    """Tells a directory from one that has been put into its place; None: there is none."""
    try:
        found = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_ctime_ns


def _make(directory: Path, make: Callable[[Path], None]) -> None:
    """Put a new directory into its place, instead of a damaged one if there is one. Other processes never see a half of
    either."""
    mine = f"{directory.name}.partial-{socket.gethostname()}-"
    for left_over in directory.parent.glob(f"{mine}*"):
        shutil.rmtree(left_over, ignore_errors=True)  # it is in nobody's way
    partial, damaged = (directory.parent / f"{mine}{what}" for what in (os.getpid(), "damaged"))
    if directory.exists():
        directory.rename(damaged)
        shutil.rmtree(damaged)
    partial.mkdir()
    try:
        make(partial)
        _sync(partial)
        try:
            partial.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
            # Not every network disk's locks hold between hosts: another one has made the same meanwhile.
            logger.info("another process has made %s meanwhile", directory)
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


def _notes(config: Config) -> Iterator[Path]:
    """Where it is noted. A name that stands for no directory here may have stood for one: then for that of its path,
    and no other project's."""
    settings, data = config.tokenizer, config.data
    without = _OF_NO_ACCOUNT | _OF_THE_WORK | {"files", "mixture"}
    if data.token_column is None:
        without |= {"token_column"}
    asked: dict[str, Any] = {
        "objective": config.architecture.objective,
        "data": data.model_dump(mode="json", exclude=without),
        "files": [_absolute(pattern) for pattern in data.files],
        "tokenizer": settings.model_dump(mode="json", exclude={"replace_source"}),
    }
    if data.mixture:  # on which the tokenizer is trained
        beside = (source.model_dump(mode="json", exclude=_OF_THE_WORK) for source in data.mixture.values())
        asked["beside"] = sorted(
            cache_key({**said, "files": [_absolute(pattern) for pattern in said["files"]]}) for said in beside
        )
    of_source = (settings.file, settings.huggingface, settings.vocab_size) == (None, None, None)
    names = [data.name, settings.huggingface, config.stages[0].from_ if of_source else None]
    for places in itertools.product(*map(_places, names)):
        key = cache_key({**asked, "names": names, "places": places})
        yield Path(data.cache_dir).absolute() / "requests" / key


def _places(name: str | None) -> list[str | None]:
    if name is None:
        return [None]
    path = _absolute(name)
    return [path] if os.path.isdir(path) else [None, path]


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
