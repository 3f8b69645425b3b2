"""Going on from a checkpoint: finding it, and refusing one that another configuration made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ligo_dist.checkpoints import Checkpoint, DamagedCheckpoint, newest_sound, remove_leftovers, sound
from ligo_dist.config import (
    Config,
    StartFrom,
    begun_directories,
    recorded_precision,
    resolve_precision,
)
from ligo_dist.engine import World, first_rank_only, gather_objects, raise_together
from ligo_dist.runtime.errors import CheckpointError, LigoError
from ligo_dist.runtime.files import LOCK_FILE
from ligo_dist.schedule import check_same_run, check_start, start_checkpoint, taken_otherwise

LOCK_SECONDS = "LIGO_DIST_LOCK_SECONDS"
"""Environment variable: how long to wait for the run directory. A run that is started again after a failure may meet
the last ranks of the attempt before it, on a node that had been cut off."""


@contextmanager
def run_lock(run_dir: Path, world: World) -> Iterator[None]:
    """Make a run directory and keep other runs out of it. Collective; the first rank holds the lock.

    Raises:
        LigoError: on every rank, if another run is in it or it cannot be written.
    """
    lock = FileLock(run_dir / LOCK_FILE)
    failure: LigoError | None = None
    if world.is_first:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=float(os.environ.get(LOCK_SECONDS, 0)))
        except Timeout:
            failure = LigoError(
                f"run_dir: another run is using {run_dir}; wait for it, or choose another directory"
            )
        except OSError as error:
            failure = LigoError(f"run_dir: {run_dir} cannot be written: {error.strerror or error}")
    raise_together(failure, world)
    try:
        yield
    finally:
        lock.release()


def agree_on_precision(
    config: Config, native: bool, run_dir: Path, world: World
) -> tuple[Config, str | None]:
    """The configuration with a precision that all ranks can have, the one that the run began with if it has a
    checkpoint; and a line that tells why it is that, None where it was given. Collective.

    Args:
        config: the configuration.
        native: whether this rank computes bf16 natively.
        run_dir: of the run.
        world: the ranks.

    Raises:
        ConfigError: on every rank, if the configuration asks for what cannot be had in that precision.
    """
    recorded = first_rank_only(lambda: recorded_precision([run_dir, *begun_directories(config)]), world)
    return resolve_precision(config, gather_objects(native, world), recorded)


def find_checkpoint(
    directory: Path, config: dict[str, Any], world: World
) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, None for a new run. Leftovers of killed runs are removed. Collective.

    Args:
        directory: where checkpoints lie.
        config: what the run is asked to do now, as `recorded_config` gives it.
        world: the ranks.

    Returns:
        The checkpoint; and a line for each leftover that stays, and for each damaged one that it takes the place of.

    Raises:
        CheckpointError: on every rank, if all are damaged, or it was made by another configuration: every changed key
            is named.
    """

    def accept(checkpoint: Checkpoint) -> None:
        check_same_run(checkpoint.path, checkpoint.config, config, checkpoint.state)

    left = first_rank_only(lambda: remove_leftovers(directory), world)
    checkpoint, damaged = newest_sound(directory, accept, world)
    return checkpoint, left + damaged


def find_start(start: StartFrom, config: dict[str, Any], world: World) -> tuple[Checkpoint, list[str]]:
    """The checkpoint of another run that a new run begins from. Collective.

    Args:
        start: which one.
        config: as in `find_checkpoint`.
        world: the ranks.

    Returns:
        The checkpoint; and lines for the log: where the run begins, and how the steps that it takes over were taken
        otherwise than its configuration says.

    Raises:
        CheckpointError: on every rank, if there is none, it is damaged, or what lies behind it differs.
    """

    def accept(checkpoint: Checkpoint) -> None:
        check_start(checkpoint.path, checkpoint.config, config, checkpoint.state)

    path = first_rank_only(lambda: start_checkpoint(start), world)
    try:
        checkpoint = sound(path, accept, world)
    except DamagedCheckpoint as damage:
        failure = CheckpointError(f"start_from: a damaged checkpoint: {damage}")
        failure.told_by = damage.told_by
        raise failure from damage
    lines = [f"begun from {path}"]
    other = taken_otherwise(checkpoint.config, config, checkpoint.state)
    if other:
        lines.append(f"its steps were taken otherwise than this run would have: {'; '.join(other)}")
    return checkpoint, lines


def recorded_config(
    resolved: dict[str, Any], corpus_fingerprint: str, source_fingerprint: str | None = None
) -> dict[str, Any]:
    """The configuration as checkpoints keep it: with the fingerprints of the samples, and of the model that the first
    stage begins from, if there is one."""
    fingerprints = {"corpus_fingerprint": corpus_fingerprint, "source_fingerprint": source_fingerprint}
    return {**resolved, **fingerprints}
