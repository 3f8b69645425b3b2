"""`python -m ligo_dist.tracking.sync RUN_DIR ... [--uri URI]`: deliver to MLflow what it misses of runs that have
ended. `ligo-dist sync` starts it, as the launcher itself imports no mlflow."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ligo_dist.runtime.errors import FAILED, FINISHED, MISTAKE, LigoError
from ligo_dist.runtime.files import LOCK_FILE
from ligo_dist.runtime.redaction import HIDDEN, redact
from ligo_dist.tracking import METRICS_FILE
from ligo_dist.tracking.address import SERVERS, tracking_address
from ligo_dist.tracking.delivery import compare, find_or_make, points_of, send, send_artifact
from ligo_dist.tracking.mlflow import MlflowStore, OutOfReach, Point, Refused, import_mlflow
from ligo_dist.tracking.record import read_records
from ligo_dist.tracking.state import STATE_FILE, TrackedRun, TrackingState, read_state


def check_run_dir(run_dir: Path, uri: str | None) -> None:
    """Whether a run directory can be delivered, as far as it can be said without the store.

    Raises:
        LigoError: it is none, or a run is using it, or `uri` names no store.
    """
    state = read_run(run_dir)
    store_address(state, run_dir, uri)
    with unused(run_dir):
        pass


def read_run(run_dir: Path) -> TrackingState:
    """What the tracking file of a run that has begun says.

    Raises:
        LigoError: there is none.
    """
    if not run_dir.is_dir():
        raise LigoError("there is no such directory")
    state = read_state(run_dir)
    if state is None or state.run is None:
        wrong = "cannot be read as the record of a run" if (run_dir / STATE_FILE).exists() else "is missing"
        raise LigoError(f"no directory of a run: {STATE_FILE} {wrong}")
    return state


def store_address(state: TrackingState, run_dir: Path, uri: str | None) -> str:
    """Where to deliver: to `uri`, else where the run was tracked, else as for a run without `tracking.uri`.

    The state keeps no passwords. Those of a server are in variables that MLflow reads; a database's is in the
    `MLFLOW_TRACKING_URI` that the run had.

    Raises:
        LigoError: it is no store, or its password is not known.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is not None or state.address is None or (given and redact(given) == state.address):
        return tracking_address(uri, run_dir, "--uri")
    address = state.address
    if address.startswith(SERVERS):
        address = address.replace(f"{HIDDEN}@", "", 1)
    if HIDDEN in address:
        raise LigoError(
            f"the password of {address} is kept nowhere; put the address into MLFLOW_TRACKING_URI"
        )
    return address


@contextmanager
def unused(run_dir: Path) -> Iterator[None]:
    """Keep runs out of a run directory meanwhile.

    Raises:
        LigoError: a run is using it.
    """
    lock = FileLock(run_dir / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LigoError("in use by a run; what MLflow misses can be sent when it has ended") from None
    except OSError as error:
        raise LigoError(f"{LOCK_FILE} cannot be written there: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def sync(run_dir: Path, uri: str | None) -> bool:
    """Deliver what the store misses of a run, and print a line for each of its MLflow runs.

    Returns:
        Whether the store has everything now; what it does not have is printed.

    Raises:
        LigoError: as `check_run_dir`.
        OutOfReach, Refused: the store does not answer, or does not take it.
    """
    with unused(run_dir):
        state = read_run(run_dir)
        store = MlflowStore(store_address(state, run_dir, uri), state.experiment, state.identity, run_dir)
        records = read_records(run_dir / METRICS_FILE)
        print(f"{run_dir} -> {redact(store.address)}, experiment {state.experiment}", flush=True)
        store.connect()
        outcomes = []
        for key, run in state.runs():
            outcomes.append(_sync_run(store, key, run, points_of(records, key), run_dir))
            print(f"  {outcomes[-1]}", flush=True)
        if not any(outcome.sent or outcome.extras or outcome.failures for outcome in outcomes):
            print("  nothing was missing", flush=True)
    return not any(outcome.failures for outcome in outcomes)


@dataclass
class _Outcome:
    """What came of one MLflow run: points there before, sent, there now; what else was sent; what could not be."""

    name: str
    there: int
    sent: int
    total: int
    extras: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        line = f"{self.name}: {self.there} points were there, {self.sent} sent, {self.total} in all"
        line += f"; also {', '.join(self.extras)}" if self.extras else ""
        return "\n    ".join([line, *self.failures])

    @contextmanager
    def attempt(self, failed: str) -> Iterator[None]:
        """Something that the store may refuse, which costs only itself."""
        try:
            yield
        except Refused as error:
            self.failures.append(f"{failed}: {error}")


def _sync_run(
    store: MlflowStore, key: str, run: TrackedRun, points: Sequence[Point], run_dir: Path
) -> _Outcome:
    run = run.killed(max((point.time / 1000 for point in points), default=None))  # if nobody has ended it
    copy = find_or_make(store, key, run, points)
    sent = send(store, copy, run)
    outcome = _Outcome(run.name, copy.there, sent.points, copy.there)
    outcome.extras += ["the run itself"] if copy.is_new else []
    outcome.extras += [f"{sent.parameters} parameters"] if sent.parameters else []
    outcome.extras += [f"{sent.tags} tags"] if sent.tags else []
    outcome.extras += [f"status {sent.status}"] if sent.status else []
    if sent.points:
        stored = store.find(key)
        kept = store.points(stored) if stored else []
        missing, _ = compare(points, kept)
        outcome.total = len(kept)
        outcome.failures += [f"{len(missing)} points were sent and are not there"] if missing else []
    with outcome.attempt("artifacts cannot be listed"):
        there = store.artifacts(copy.run_id)
        for name in [*run.texts, *run.files]:
            files, versions = send_artifact(store, copy.run_id, run, run_dir, name, there, outcome.attempt)
            outcome.extras += [*files, *versions]
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: the stores have everything; 1: one of them does not; 2: a mistake in what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m ligo_dist.tracking.sync", description=__doc__)
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="+", type=Path)
    parser.add_argument("--uri")
    arguments = parser.parse_args(argv)
    codes = [FINISHED]
    for run_dir in arguments.run_dirs:
        try:
            check_run_dir(run_dir, arguments.uri)
            import_mlflow()
            codes.append(FINISHED if sync(run_dir, arguments.uri) else FAILED)
        except (LigoError, OutOfReach, Refused) as error:
            print(f"ligo-dist: {run_dir}: {redact(str(error))}", file=sys.stderr, flush=True)
            codes.append(MISTAKE if isinstance(error, LigoError) else FAILED)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
