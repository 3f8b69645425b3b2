"""Bringing an MLflow run to what the run directory says of it: only what the store misses is sent. While a run goes on
(`mirror`) and afterwards (`sync`) it is the same; they differ in what they do about what the store refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ligo_dist.tracking.mlflow import METRIC_BATCH, MlflowStore, Point, Refused
from ligo_dist.tracking.record import Record, record_metrics
from ligo_dist.tracking.state import PARENT, TrackedRun, clean_key


@dataclass
class Copy:
    """A run in the store, as far as it is known.

    Attributes:
        run_id: in the store.
        is_new: whether it was made now.
        there: points that the store had.
        spare: of them those beyond the wanted ones, by metric and step: a resumed run takes their steps again.
        waiting: points that are to be sent.
        parameters, tags, status: that it has, or has refused.
        given: how often each artifact had been given when it was sent.
    """

    run_id: str
    is_new: bool
    there: int
    spare: Counter[tuple[str, int]]
    waiting: list[Point]
    parameters: dict[str, str]
    tags: dict[str, str]
    status: str
    given: dict[str, int]


@dataclass(frozen=True)
class Sent:
    """How much was sent; the status that was set, None if it was right."""

    points: int
    parameters: int
    tags: int
    status: str | None


def find_or_make(store: MlflowStore, key: str, run: TrackedRun, points: Sequence[Point]) -> Copy:
    """The run with that key, which is made if the store does not have it. Of the points, which are those that it should
    have, what it misses waits.

    Raises:
        OutOfReach, Refused: it can be called again.
    """
    found = store.find(key)
    stored = store.create(key, run) if found is None else found
    there = store.points(stored)
    missing, spare = compare(points, there)
    known = (dict(stored.parameters), dict(stored.tags), stored.status)
    return Copy(stored.run_id, found is None, len(there), spare, missing, *known, {})


def send(
    store: MlflowStore,
    copy: Copy,
    run: TrackedRun,
    attempt: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Sent:
    """Send the points that wait, and the parameters, tags and the status that the store misses; `attempt` is around
    each, and may leave out what is refused.

    Raises:
        OutOfReach, Refused: it can be called again.
    """
    parameters = {name: value for name, value in run.parameters.items() if name not in copy.parameters}
    tags = {name: value for name, value in run.tags.items() if copy.tags.get(name) != value}
    status = None if run.status == copy.status else run.status
    sent = Sent(len(copy.waiting), len(parameters), len(tags), status)
    with attempt():
        store.send_parameters(copy.run_id, parameters)
        store.send_tags(copy.run_id, tags)
    copy.parameters |= parameters
    copy.tags |= tags
    while batch := copy.waiting[:METRIC_BATCH]:
        with attempt():
            store.send_points(copy.run_id, batch)
        del copy.waiting[:METRIC_BATCH]
    if status is not None:
        with attempt():
            store.set_status(copy.run_id, status, run.ended)
        copy.status = status
    return sent


def send_artifact(
    store: MlflowStore,
    run_id: str,
    run: TrackedRun,
    run_dir: Path,
    name: str,
    there: Mapping[str, int],
    attempt: Callable[[str], AbstractContextManager[None]],
) -> tuple[list[str], list[str]]:
    """Send an artifact, but for files that are `there` in the same size, and register it if it is a model.

    Args:
        store: the store.
        run_id: of the run there.
        run: that the artifact belongs to.
        run_dir: the run's directory.
        name: of the artifact.
        there: files among the run's artifacts, with their sizes in bytes.
        attempt: is around all of it, and around each registration, with the words that say what failed.

    Returns:
        Names of the files that were sent; what was registered.
    """
    sent: list[str] = []
    versions: list[str] = []
    with attempt(f"artifact {name} was not stored"):
        if name in run.texts:
            if there.get(name) != len(run.texts[name].encode()):
                store.send_text(run_id, run.texts[name], name)
                sent.append(name)
            return sent, versions
        path = run_dir / run.files[name]
        files = list(files_of(path, name))
        if not files:
            raise Refused(f"there is no {path}")
        for file, its_name in files:
            if there.get(its_name) != file.stat().st_size:
                store.send_file(run_id, file, its_name)
                sent.append(its_name)
        for model in models_of(run, name):
            with attempt(f"model {model} was not registered"):
                version = store.register(run_id, model, name)
                versions += [] if version is None else [f"version {version} of the registered model {model}"]
    return sent, versions


def models_of(run: TrackedRun, name: str) -> list[str]:
    """The registered models that an artifact is a version of."""
    return [model for model, artifact in run.registered.items() if artifact == name]


def files_of(path: Path, name: str) -> Iterator[tuple[Path, str]]:
    """The files that the artifact `name` consists of, with their own names: of a directory, those in it."""
    if path.is_file():
        yield path, name
    for file in sorted(path.rglob("*")) if path.is_dir() else ():
        if file.is_file():
            yield file, f"{name}/{file.relative_to(path).as_posix()}"


def points_of(records: Iterable[Record], key: str) -> list[Point]:
    """The points that an MLflow run should have: the parent (`PARENT`) those of all records, a stage its own."""
    points = []
    for record in records:
        if key in (PARENT, record.get("stage")):
            time = round(datetime.fromisoformat(record["time"]).timestamp() * 1000)
            values = record_metrics(record).items()
            points += [Point(clean_key(name), record["step"], time, value) for name, value in values]
    return points


def compare(wanted: Iterable[Point], there: Iterable[Point]) -> tuple[list[Point], Counter[tuple[str, int]]]:
    """What of `wanted` is missing `there`, and what is there beyond it.

    A run that was killed and went on from an earlier checkpoint takes some steps again: at another time, with the
    same result. So a point that is wanted is there if one of its metric, step and time is, or else one of its metric
    and step that nothing else stands for.

    Returns:
        The missing points; and the number of points beyond the wanted ones, by metric and step.
    """
    exact = Counter((point.metric, point.step, point.time) for point in there)
    retaken = []
    for point in wanted:
        place = (point.metric, point.step, point.time)
        if exact[place]:
            exact[place] -= 1
        else:
            retaken.append(point)
    spare: Counter[tuple[str, int]] = Counter()
    for (metric, step, _), count in exact.items():
        spare[metric, step] += count
    missing = []
    for point in retaken:
        if spare[point.metric, point.step]:
            spare[point.metric, point.step] -= 1
        else:
            missing.append(point)
    return missing, spare
