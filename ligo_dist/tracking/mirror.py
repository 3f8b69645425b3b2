"""An MLflow store as the mirror of a run directory while the run goes on, in a thread: training never waits for it."""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ligo_dist.runtime.heartbeat import beat
from ligo_dist.runtime.redaction import redact
from ligo_dist.tracking.delivery import (
    Copy,
    files_of,
    find_or_make,
    models_of,
    points_of,
    send,
    send_artifact,
)
from ligo_dist.tracking.mlflow import MlflowStore, OutOfReach, Refused
from ligo_dist.tracking.record import METRICS_FILE, Record, RunRecord, parse_records
from ligo_dist.tracking.state import PARENT, TrackedRun, read_state

_PERIOD_SECONDS = 1.0
"""Between two rounds, so long as the run goes on."""
_PAUSES = (1.0, 5.0, 30.0, 120.0)
"""After the first, second, ... round in a row that found the store out of reach."""
_LAST_ATTEMPT_SECONDS = 10.0
"""How long `close` waits for a store that has not answered."""
_UPLOAD_BYTES_PER_SECOND = 10e6
"""What a model to be registered is expected to be sent with, at least: `close` waits so much longer for it."""
_ROUND_BYTES = 1 << 20
"""Of metrics that are read in one round: what waits in memory is no more."""


class Unusable(Exception):
    """The store can record nothing of this run: it is not called again."""


class Mirror:
    """Reads what is new in a run's files, and brings the store to it; a resumed run goes on in the same MLflow runs.

    A store that is out of reach is tried again after a pause that grows; what it misses is read when it is back, so
    that it misses nothing in the end. What it refuses is left out. Each kind of trouble is told once.

    Args:
        store: the store; used by the thread alone.
        run_dir: the run's directory.
        record: writes the files.
        resume: whether the run goes on with an earlier one.
        warn: takes messages for the user, from any thread.
        remedy: the command that delivers what was not recorded, for the messages.
        close_seconds: how long `close` waits for a store that answers; one that does not gets a last attempt.
    """

    def __init__(
        self,
        store: MlflowStore,
        run_dir: Path,
        record: RunRecord,
        resume: bool,
        warn: Callable[[str], None],
        remedy: str,
        close_seconds: float = 60.0,
    ) -> None:
        self._store, self._run_dir, self._warn, self._remedy = store, run_dir, warn, remedy
        self._history, self._resume, self._close_seconds = record.history, resume, close_seconds
        self._earlier = {key: run.given for key, run in record.earlier.runs()} if record.earlier else {}
        self._abandoned = record.earlier.identity if record.earlier and not resume else None
        self._position = (run_dir / METRICS_FILE).stat().st_size
        self._records: list[Record] = []  # read, and not yet given to the runs
        self._copies: dict[str, Copy] = {}
        self._changed, self._closing = threading.Event(), threading.Event()
        self._connected, self._usable, self._done = False, True, False
        self._failures = 0  # rounds in a row
        self._complete = True  # nothing was refused
        self._reported: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="MLflow mirror", daemon=True)
        record.on_change, record.on_close = self._changed.set, self.close
        self._thread.start()

    def close(self) -> None:
        """Wait for what is left to be sent, showing meanwhile that this rank does not hang."""
        if self._closing.is_set():
            return
        seconds = self._close_seconds + self._model_bytes() / _UPLOAD_BYTES_PER_SECOND
        self._closing.set()
        self._changed.set()
        patience = min(seconds, _LAST_ATTEMPT_SECONDS)
        self._wait(patience)
        if not self._failures:
            self._wait(seconds - patience)
        if self._usable and not (self._done and self._complete):
            self._report(
                "close", f"not everything of this run was recorded; {self._remedy} delivers the rest"
            )

    def _wait(self, seconds: float) -> None:
        deadline = clock.monotonic() + seconds
        while self._thread.is_alive() and (left := deadline - clock.monotonic()) > 0:
            beat("recording the rest in MLflow")
            self._thread.join(min(left, 1.0))

    def _model_bytes(self) -> int:
        """Of the models that are to be registered."""
        state = read_state(self._run_dir)
        runs = [] if state is None else [run for _, run in state.runs()]
        paths = {self._run_dir / run.files[name] for run in runs for name in run.registered.values()}
        return sum(file.stat().st_size for path in paths for file, _ in files_of(path, ""))

    def _work(self) -> None:
        while self._usable:
            self._changed.wait()
            self._changed.clear()
            closing = self._closing.is_set()  # before the round: what comes later is not in it
            try:
                more = self._round()
            except Unusable as error:
                self._usable = False
                place = f"this run is recorded in its directory only; {self._remedy} delivers it"
                self._report("unusable", f"{error}; {place}")
                return
            except OutOfReach as error:
                self._failures += 1
                plan = f"trying again now and then; if it stays away, {self._remedy} delivers the rest"
                self._report("out of reach", f"{error}; going on and {plan}")
                if closing:
                    return
                self._closing.wait(_PAUSES[min(self._failures, len(_PAUSES)) - 1])
                self._changed.set()
                continue
            except Exception as error:  # whatever a store's client may raise
                self._leave_out(error)
                more = False
            if self._failures:
                self._failures = 0
                self._report("back", "answers again")
            if more:
                self._changed.set()
            elif closing:
                self._done = True
                return
            else:
                self._closing.wait(_PERIOD_SECONDS)

    def _round(self) -> bool:
        """Bring the store to what the files say now; whether there is more to read. May be called again after it
        raised.

        Raises:
            OutOfReach: the store does not answer.
            Unusable: it can record nothing of this run.
        """
        more = bool(self._records) or self._read()
        state = read_state(self._run_dir)  # after the records: it has all of their stages
        if state is None or state.run is None:
            return False
        self._connect()
        for key, run in state.runs():
            if key not in self._copies:
                self._begin(key, run)
        for record in self._records:
            self._give(record)
        self._records = []
        for key, run in state.runs():
            if key in self._copies:
                self._update(self._copies[key], run)
        return more

    def _read(self) -> bool:
        """Read records that were not read yet; whether there are more."""
        with (self._run_dir / METRICS_FILE).open("rb") as file:
            file.seek(self._position)
            lines = file.read(_ROUND_BYTES)
        whole = lines[: lines.rfind(b"\n") + 1]
        self._position += len(whole)
        self._records = parse_records(whole)
        return len(lines) == _ROUND_BYTES

    def _connect(self) -> None:
        if self._connected:
            return
        try:
            self._store.connect()
            if self._abandoned is not None:
                self._store.end_running(self._abandoned)
        except Refused as error:
            raise Unusable(str(error)) from error
        self._connected = True

    def _begin(self, key: str, run: TrackedRun) -> None:
        """Find the run of that key, or make it; on resuming, what it misses waits."""
        try:
            copy = find_or_make(self._store, key, run, points_of(self._history, key))
        except Refused as error:
            if key == PARENT:
                raise Unusable(str(error)) from error
            self._leave_out(error)
            return
        if copy.is_new and key == PARENT and self._resume and PARENT in self._earlier:
            where = redact(self._store.address)
            self._warn(f"MLflow: {where} does not have the run that is resumed; it begins there now")
        copy.given = dict(self._earlier.get(key, {})) if self._resume else {}
        self._copies[key] = copy

    def _give(self, record: Record) -> None:
        """Have the points of a record wait for being sent: to the parent, whose charts show the whole schedule, and to
        the stage."""
        points = points_of([record], PARENT)
        for key in dict.fromkeys((PARENT, record["stage"])):
            copy = self._copies.get(key)
            if copy is None:
                continue
            for point in points:
                if copy.spare[point.metric, point.step] > 0:
                    copy.spare[point.metric, point.step] -= 1
                else:
                    copy.waiting.append(point)

    def _update(self, copy: Copy, run: TrackedRun) -> None:
        """Send what is new of a run."""
        send(self._store, copy, run, self._left_out)
        for name, times in run.given.items():
            if copy.given.get(name) == times:
                continue
            there = self._artifacts(copy.run_id) if models_of(run, name) else {}
            _, versions = send_artifact(
                self._store, copy.run_id, run, self._run_dir, name, there, self._optional
            )
            for version in versions:
                self._warn(f"MLflow: {self._run_dir / run.files[name]} is {version}")
            copy.given[name] = times

    def _artifacts(self, run_id: str) -> dict[str, int]:
        with self._optional("artifacts cannot be listed"):
            return self._store.artifacts(run_id)
        return {}

    @contextmanager
    def _optional(self, failed: str) -> Iterator[None]:
        """Something to do with files: a failure is worth another try only while the whole store is out of reach, as
        it may well have no place for files, or no registry."""
        try:
            yield
        except Exception as error:
            self._store.find(PARENT)  # raises where the store is out of reach
            self._leave_out(Refused(f"{failed}: {error}"))

    @contextmanager
    def _left_out(self) -> Iterator[None]:
        """What is refused costs only itself."""
        try:
            yield
        except Refused as error:
            self._leave_out(error)

    def _leave_out(self, error: Exception) -> None:
        message = redact(str(error) or repr(error))
        self._complete = False
        self._report(message, f"{message}; going on without it")

    def _report(self, fault: str, message: str) -> None:
        if fault not in self._reported:
            self._reported.add(fault)
            self._warn(f"MLflow: {message}")
