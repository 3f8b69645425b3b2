"""Bringing an MLflow run to what the run directory says of it: only what the store misses is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ligo_dist.tracking.failures import Refused
from ligo_dist.tracking.mlflow import MlflowStore
from ligo_dist.tracking.points import Point, compare
from ligo_dist.tracking.record import TrackedRun


@dataclass(frozen=True)
class Delivery:
    """What was done for one run.

    Attributes:
        run_id: in the store.
        is_new: whether it was made now.
        there, sent: points of metrics that the store had, and that were sent.
        spare: points of the store beyond the wanted ones, by metric and step.
        parameters, tags: how many were sent.
        status: what was set; None: it was right.
    """

    run_id: str
    is_new: bool
    there: int
    sent: int
    spare: Counter[tuple[str, int]]
    parameters: int
    tags: int
    status: str | None


def deliver(store: MlflowStore, key: str, run: TrackedRun, points: Sequence[Point]) -> Delivery:
    """Make the run if the store does not have it, and send the parameters, tags, points and the status it misses.

    May be called again after it raised `OutOfReach` or `Refused`.
    """
    found = store.find(key)
    stored = store.create(key, run) if found is None else found
    run_id = stored.run_id
    parameters = {name: value for name, value in run.parameters.items() if name not in stored.parameters}
    tags = {name: value for name, value in run.tags.items() if stored.tags.get(name) != value}
    there = store.points(stored)
    missing, spare = compare(points, there)
    store.send_parameters(run_id, parameters)
    store.send_tags(run_id, tags)
    store.send_points(run_id, missing)
    status = None if run.status == stored.status else run.status
    if status is not None:
        store.set_status(run_id, status, run.ended)
    return Delivery(
        run_id, found is None, len(there), len(missing), spare, len(parameters), len(tags), status
    )


def as_ended(run: TrackedRun, points: Sequence[Point]) -> TrackedRun:
    """The run with its end: one that nobody has ended was killed, at its last point or soon after."""
    return run.killed(max((point.time / 1000 for point in points), default=None))


def deliver_artifacts(
    store: MlflowStore, run_id: str, run: TrackedRun, run_dir: Path
) -> tuple[list[str], list[str]]:
    """Send the artifacts that the store does not have, or has in another size, and register those that are models.

    Returns:
        Names of what was sent; and why the rest was not.

    Raises:
        OutOfReach, Refused: the store has no place for artifacts, or does not answer.
    """
    there = store.artifacts(run_id)
    sent, failed = [], []
    for name, text in run.texts.items():
        if there.get(name) != len(text.encode()):
            store.send_text(run_id, text, name)
            sent.append(name)
    for name, path in run.files.items():
        files = list(files_of(run_dir / path, name))
        if not files:
            failed.append(f"artifact {name}: there is no {run_dir / path} any more")
            continue
        sent += send_missing_files(store, run_id, files, there)
        for model in (model for model, artifact in run.registered.items() if artifact == name):
            try:
                version = store.register(run_id, model, name)
            except Refused as error:
                failed.append(f"model {model} was not registered: {error}")
            else:
                sent += [] if version is None else [f"version {version} of the model {model}"]
    return sent, failed


def send_missing_files(
    store: MlflowStore, run_id: str, files: Iterable[tuple[Path, str]], there: Mapping[str, int]
) -> list[str]:
    """Send files under their names, but for those that are `there` in the same size; returns the names sent."""
    missing = [(file, name) for file, name in files if there.get(name) != file.stat().st_size]
    for file, name in missing:
        store.send_file(run_id, file, name)
    return [name for _, name in missing]


def files_of(path: Path, name: str) -> Iterator[tuple[Path, str]]:
    """The files that the artifact `name` consists of, with their own names: of a directory, those in it."""
    if path.is_file():
        yield path, name
    for file in sorted(path.rglob("*")) if path.is_dir() else ():
        if file.is_file():
            yield file, f"{name}/{file.relative_to(path).as_posix()}"
