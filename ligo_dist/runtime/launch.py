"""The directory of a launch: how a launcher and the ranks that it has started speak to each other, through files.

    RUN_DIR/logs/001/
        config.yaml         what is run, every override written into it
        environment         variables of the ranks, secrets among them: for its owner alone, until all ranks have it
        deepspeed_env       variables of DeepSpeed's own processes, gone as soon
        hosts               the hosts that are there, as DeepSpeed reads them
        launcher            a number that goes up for as long as the launcher watches
        stop                what the launcher asks of the ranks
        deepspeed.log       what DeepSpeed's launcher and what it starts print
        rank-00000.log      what a rank prints, once it is watched
        rank-00000.end      how it ended

All nodes see it, so nothing has to cross a remote shell, and no signal a machine. A rank that nobody supervises has no
such directory but the one of its ends, which the ranks make when they have met.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import replace_text

VARIABLE = "LIGO_DIST_LAUNCH"
"""Names the directory, and so says that a launcher supervises."""

HANG_VARIABLE = "LIGO_DIST_HANG_SECONDS"
"""Tells the ranks of a launch `cluster.hang_seconds`: they are watched before they have read their configuration."""

LOGS_DIRECTORY = "logs"
"""Holds the directories of a run's launches."""

STOP_FILE = "stop"
"""In the run directory: whoever makes it asks the run to stop, with its checkpoint written."""

_STALE_SECONDS = 600.0
"""Ranks read their variables when they start: after so long nobody does any more."""

_COUNT_SECONDS = 5.0
"""The longest pause of a launcher that counts."""

WAS_KILLED = "was killed"
"""The reason of a rank that ended by SIGKILL, without a word."""

Order = Literal["preempt", "stop"]
"""`preempt`: finish the step, write a checkpoint, end; `stop`: end now."""


@dataclass(frozen=True)
class RankEnd:
    """How a rank ended.

    Attributes:
        rank: its number.
        host: the machine it ran on.
        code: its exit code; None: it was ended and could not say one.
        reason: in words: `ended with exit code 1`.
        doing: what it was at: `small train step 7`; empty: it had not begun.
        asked: why it had been asked to stop before: the name of a `StopReason`; empty: it had not been.
        lines: the last that it printed.
        follows: the rank whose error it ended with; None: that is not known, or its own alone.
    """

    rank: int
    host: str
    code: int | None
    reason: str
    doing: str = ""
    asked: str = ""
    lines: list[str] = field(default_factory=list)
    follows: int | None = None


@dataclass(frozen=True)
class LaunchDirectory:
    """The files of one launch; see the module."""

    path: Path

    @classmethod
    def make(cls, run_dir: Path) -> LaunchDirectory:
        """A new one, numbered after those that the run has."""
        newest = cls.newest(run_dir)
        number = 1 if newest is None else int(newest.path.name) + 1
        made = cls(run_dir.absolute() / LOGS_DIRECTORY / f"{number:03d}")
        made.path.mkdir(parents=True)
        return made

    @classmethod
    def newest(cls, run_dir: Path) -> LaunchDirectory | None:
        """The one with the largest number; None: the run has none."""
        found = (run_dir.absolute() / LOGS_DIRECTORY).glob("[0-9]*")
        numbered = [path for path in found if path.name.isdecimal()]
        return cls(max(numbered, key=lambda path: int(path.name))) if numbered else None

    @classmethod
    def given(cls, environ: Mapping[str, str] = os.environ) -> LaunchDirectory | None:
        """The one that the environment names; None: nobody supervises."""
        path = environ.get(VARIABLE)
        return cls(Path(path)) if path else None

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def output(self) -> Path:
        """What DeepSpeed's own processes print."""
        return self.path / "deepspeed.log"

    @property
    def exports(self) -> Path:
        """The variables that DeepSpeed's launcher is to export."""
        return self.path / "deepspeed_env"

    def log(self, rank: int) -> Path:
        return self.path / f"rank-{rank:05d}.log"

    def end(self, rank: int) -> Path:
        return self.path / f"rank-{rank:05d}.end"

    # --- what the launcher says ---

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Leave variables for the ranks, where nobody else can read them."""
        descriptor = os.open(self._environment, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(dict(variables), file)

    def forget_environment(self) -> None:
        """Every rank has its variables: the files with them go."""
        for file in (self._environment, self.exports):
            file.unlink(missing_ok=True)

    def count(self, number: int) -> None:
        """Show that the launcher watches. The content counts, since clocks and times of files differ among machines; it
        is written over, which a full disk allows."""
        descriptor = os.open(self._counter, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, f"{number:12}\n".encode(), 0)
        finally:
            os.close(descriptor)

    @contextmanager
    def counting(self, lost_seconds: float) -> Iterator[None]:
        """Count on, whatever this thread waits for; a launcher is lost that does not for so long."""
        done = threading.Event()

        def count() -> None:
            for number in itertools.count(1):
                with suppress(OSError):  # the next one may get through
                    self.count(number)
                if done.wait(min(_COUNT_SECONDS, lost_seconds / 5)):
                    return

        thread = threading.Thread(target=count, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def ask(self, order: Order) -> None:
        """Ask the ranks for something; what is asked later replaces it. Those that a full disk keeps from hearing it
        are ended in the end."""
        with suppress(OSError):
            replace_text(self._request, f"{order}\n")

    # --- what the ranks read ---

    def environment(self) -> dict[str, str]:
        """The variables that the launcher has left; none once the file is gone."""
        try:
            return json.loads(self._environment.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def counted(self) -> str | None:
        """The launcher's number; None if it cannot be read."""
        return _content(self._counter)

    def asked(self) -> Order | None:
        """What the launcher asks for; None: nothing."""
        word = _content(self._request)
        return word if word in ("preempt", "stop") else None  # type: ignore[return-value]

    # --- how the ranks ended ---

    def write_end(self, end: RankEnd) -> None:
        replace_text(self.end(end.rank), json.dumps(asdict(end)) + "\n")

    def ends(self, known: Mapping[int, RankEnd] | None = None) -> dict[int, RankEnd]:
        """How ranks ended, by rank; those that are `known` are not read again."""
        found = dict(known or {})
        numbered = {self.end(rank).name for rank in found}
        for path in self.path.glob("rank-*.end"):
            if path.name not in numbered:
                with suppress(OSError, ValueError, TypeError, KeyError):  # it may be read the next time
                    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                    found[values["rank"]] = RankEnd(**values)
        return found

    def is_watched(self) -> bool:
        """Whether a launcher counts on: takes a little longer than the pause in which it does."""
        before = self.counted()
        time.sleep(1.2 * _COUNT_SECONDS)
        return self.counted() != before

    def has_open_ends(self) -> bool:
        """Whether ranks have begun that have not said how they ended: they may run still."""
        return any(not path.with_suffix(".end").exists() for path in self.path.glob("rank-*.log"))

    @property
    def _environment(self) -> Path:
        return self.path / "environment"

    @property
    def _counter(self) -> Path:
        return self.path / "launcher"

    @property
    def _request(self) -> Path:
        return self.path / "stop"


class Lines:
    """The lines of a file that others write, as they come; it need not be there yet.

    Attributes:
        tail: the last of them.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._position, self._partial = path, 0, b""
        self.tail: deque[str] = deque(maxlen=30)

    def new(self) -> list[str]:
        """The whole lines that have come since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                chunk = file.read()
        except OSError:
            return []
        self._position += len(chunk)
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        texts = [line.decode(errors="replace") for line in lines]
        self.tail.extend(texts)
        return texts


def forget_request(run_dir: Path) -> None:
    """Remove a request to stop that a run before was given.

    Raises:
        LigoError: it cannot be removed, and would stop this one.
    """
    file = run_dir / STOP_FILE
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise LigoError(
            f"run_dir: {file} asks the run to stop, and cannot be removed: {error.strerror or error}"
        ) from error


def remove_stale_environments(run_dir: Path) -> None:
    """Remove what launchers that were killed early have left, secrets among it."""
    for path in (run_dir / LOGS_DIRECTORY).glob("*/environment"):
        with suppress(OSError):  # it may be gone by now, or another's
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
