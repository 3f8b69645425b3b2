"""Saving while the run goes on: each rank's file makes its way to the disk in a thread, which never communicates."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from torch import Tensor

from ligo_dist.checkpoints.files import (
    Checkpoint,
    Snapshot,
    checkpoint_path,
    give_name,
    rank_file_name,
    remove_old,
    remove_unfinished,
    unfinished_path,
    write_manifest,
    write_rank_file,
)
from ligo_dist.engine import (
    World,
    WrittenFile,
    first_rank_only,
    gather_objects,
    raise_together,
    sum_over_ranks,
)
from ligo_dist.runtime.errors import CheckpointError
from ligo_dist.runtime.files import make_empty
from ligo_dist.runtime.heartbeat import SECONDS, beat
from ligo_dist.schedule import RunState


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time. Its methods are collective.

    `save` returns when this rank's part is copied aside; a thread writes it. Between two steps `advance` has the ranks
    agree on whether all are done; if so, the first one completes the checkpoint and removes those beyond the last few.

    Where a checkpoint cannot be written, all ranks learn of it when they agree. Its remains are removed, and the run
    stops, or goes on with a warning. The complete ones stay either way.

    Args:
        directory: where checkpoints lie.
        config: the resolved configuration, which each of them holds.
        keep: how many complete ones stay, the newest.
        keep_steps: global steps whose checkpoints stay beside them.
        on_failure: whether the run stops or goes on where one cannot be written.
        world: the ranks.
        warn: takes the message where it goes on.

    Attributes:
        last: the newest complete one, None before the first.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        keep: int,
        on_failure: Literal["stop", "continue"],
        world: World,
        warn: Callable[[str], None],
        keep_steps: Collection[int] = (),
    ) -> None:
        self._directory, self._config, self._keep, self._keep_steps = directory, config, keep, keep_steps
        self._on_failure, self._world, self._warn = on_failure, world, warn
        self._pending: _Pending | None = None
        self.last: Path | None = None

    def save(self, state: RunState, global_step: int, snapshot: Snapshot) -> None:
        """Begin a checkpoint; where another is being written, wait for that first.

        Args:
            state: where the run stands; copied.
            global_step: optimizer steps of the whole run; part of the name.
            snapshot: this rank's part of the weights and of the optimizer's moments.

        Raises:
            CheckpointError: on every rank, if this or the one before cannot be written and the run is to stop then.
        """
        self.settle()
        path = checkpoint_path(self._directory, state, global_step)
        if path == self.last:
            return  # no step was taken since
        unfinished = unfinished_path(path)
        try:
            self._on_first_rank(lambda: make_empty(unfinished, "checkpoint"))
        except CheckpointError as error:
            self._give_up(path, error)
            return
        checkpoint = Checkpoint(
            path,
            copy.deepcopy(state),
            self._config,
            self._world.size,
            snapshot.whole_numels(),
            files={},
        )
        file = unfinished / rank_file_name(self._world.rank)
        self._pending = _Pending(checkpoint, _Write(file, snapshot.tensors(), self._world.rank))

    def advance(self) -> None:
        """Complete the checkpoint that is being written, if every rank has written its file; else leave it.

        Raises:
            CheckpointError: on every rank, if it cannot be written and the run is to stop then.
        """
        if self._pending is None:  # on every rank alike
            return
        written = sum_over_ranks([float(self._pending.write.is_done)], self._world)[0]
        if written == self._world.size:
            self._complete()

    def settle(self) -> Path | None:
        """Wait for the checkpoint that is being written, and complete it; returns the newest complete one.

        Raises:
            CheckpointError: on every rank, if it cannot be written and the run is to stop then.
        """
        if self._pending is not None:
            self._pending.write.wait()
            self._complete()
        return self.last

    def _complete(self) -> None:
        """Complete the pending checkpoint, now that every rank's thread has ended."""
        assert self._pending is not None
        checkpoint, write = self._pending.checkpoint, self._pending.write
        self._pending = None
        outcomes = gather_objects(write.outcome, self._world)
        try:
            files = {rank_file_name(rank): _written(outcome) for rank, outcome in enumerate(outcomes)}
            whole = replace(checkpoint, files=files)
            self._on_first_rank(lambda: self._finish(whole))
        except CheckpointError as error:
            self._give_up(checkpoint.path, error)
        else:
            self.last = checkpoint.path

    def _finish(self, checkpoint: Checkpoint) -> None:
        """What the first rank does when all files are there."""
        try:
            write_manifest(checkpoint, unfinished_path(checkpoint.path))
            give_name(checkpoint.path)
            remove_old(self._directory, self._keep, self._keep_steps)
        except OSError as error:
            raise CheckpointError(
                f"{error.filename or checkpoint.path}: {error.strerror or error}"
            ) from error

    def _on_first_rank(self, action: Callable[[], None]) -> None:
        """Do what only the first rank does; where it cannot, the error says which machine that is."""

        def located() -> None:
            try:
                action()
            except CheckpointError as error:
                raise _located(error, self._world.rank) from error

        first_rank_only(located, self._world)

    def _give_up(self, path: Path, error: CheckpointError) -> None:
        """Leave a checkpoint that cannot be written."""
        first_rank_only(lambda: remove_unfinished(path), self._world)
        if self._on_failure == "stop":
            raise_together(CheckpointError(f"{error}; the checkpoints before it are intact"), self._world)
        last = (
            "there is no complete one yet" if self.last is None else f"the last complete one is {self.last}"
        )
        self._warn(f"checkpoint not written: {error}; going on, {last}")


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written: what its manifest will say, and this rank's file."""

    checkpoint: Checkpoint
    write: _Write


class _Write:
    """One rank's file on its way to the disk.

    Attributes:
        outcome: None until it has ended; then the file, or what went wrong.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], rank: int) -> None:
        self.outcome: WrittenFile | Exception | None = None
        self._taken = 0  # how often the disk has taken some more
        # A daemon: a run that fails ends without waiting for its disk.
        self._thread = Thread(target=self._run, args=(path, tensors, rank), name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return self.outcome is not None

    def wait(self) -> None:
        """Until it has ended. A disk that takes nothing more for long ends this rank, as whatever hangs does."""
        seen = -1
        while self._thread.is_alive():
            if self._taken != seen:
                seen = self._taken
                beat("writing a checkpoint")
            self._thread.join(SECONDS)

    def _advance(self) -> None:
        self._taken += 1

    def _run(self, path: Path, tensors: Mapping[str, Tensor], rank: int) -> None:
        try:
            self.outcome = write_rank_file(path, tensors, self._advance)
        except CheckpointError as error:
            self.outcome = _located(error, rank)
        except Exception as error:  # raised again on every rank when they agree
            self.outcome = error


def _located(error: CheckpointError, rank: int) -> CheckpointError:
    return CheckpointError(f"rank {rank} on {socket.gethostname()}: {error}")


def _written(outcome: WrittenFile | Exception | None) -> WrittenFile:
    """A rank's file; raises what went wrong with it."""
    if isinstance(outcome, WrittenFile):
        return outcome
    assert outcome is not None, "a thread that has ended has an outcome"
    raise outcome
