"""A small process beside each rank: it ends the rank where that cannot do it itself, and says how it ended.

A rank that is stopped (SIGSTOP) runs no thread and takes no signal but SIGKILL, and what has died leaves no word. So
the rank starts `python -m ligo_dist.runtime.watchdog` and tells it over a pipe what it is at. The watchdog

- kills a rank that has been stopped for `hang_seconds`;
- kills a rank that is still there long after the process that started it has gone;
- when the rank has ended, writes its `RankEnd` into the directory of the launch, and ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ligo_dist.runtime.launch import WAS_KILLED, LaunchDirectory, RankEnd

_POLL_SECONDS = 0.5
_LATE_SECONDS = 5.0
"""Beyond `grace_seconds`: a rank ends itself, if it can."""

_TOLERANCE_SECONDS = 0.5
"""By so much a beat may be heard late."""

_STANDARD_INPUT = 0
_TAIL_LINES, _TAIL_BYTES = 30, 1 << 14

_IGNORED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
"""What started the rank may signal all that it has started: the watchdog stays until the rank has ended."""

_pipe: int | None = None
"""Of this process, to its watchdog; None: it has none."""

_process: subprocess.Popen[bytes] | None = None


# --- the rank's side ---


def start(has_parent: bool, **facts: Any) -> None:
    """Start the watchdog of this process, and tell it the first facts. Only Linux says of a process what it needs.

    Args:
        has_parent: whether this process has to end when the one that started it has gone.
        facts: see `tell`.
    """
    global _pipe, _process
    if sys.platform != "linux":
        return
    reading, _pipe = os.pipe()
    os.set_blocking(_pipe, False)
    command = [sys.executable, "-m", __name__, str(os.getpid()), str(os.getppid() if has_parent else 0)]
    # A process group of its own: Ctrl-C is for the rank. What else comes waits until the watchdog ignores it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    _process = subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, process_group=0)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(reading)
    tell(**facts)


def is_there() -> bool:
    """Whether this process has one."""
    return _pipe is not None


def tell(**facts: Any) -> None:
    """Tell the watchdog something, if there is one; never blocks, never raises.

    Args:
        facts: `rank`, `host`; `directory` of the launch and whether the rank has a `log` there; `hang_seconds`,
            `grace_seconds`; whether it is `timed`, so that it ends when it hangs; what it is `doing`; why it was
            `asked` to stop; what it has `said`; the exit `code` with which it is about to end, and the rank whose error
            it `follows` in that.
    """
    if _pipe is None:
        return
    while len(line := json.dumps(facts).encode() + b"\n") > select.PIPE_BUF:
        facts = {
            name: fact[len(fact) // 4 + 1 :] if isinstance(fact, str) else fact
            for name, fact in facts.items()
        }
    with suppress(OSError):
        os.write(_pipe, line)


# --- the watchdog's side ---


@dataclass(frozen=True)
class _State:
    """What the system says of a process: its state's letter, its parent, and when it started."""

    letter: str
    parent: int
    started: str

    @classmethod
    def of(cls, pid: int) -> _State | None:
        """None: there is no such process any more."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(fields[0], int(fields[1]), fields[19])


class Watchdog:
    """Watches one rank.

    Args:
        pid: of the rank.
        parent: of the process that started it; 0: the rank may outlive that.
    """

    def __init__(self, pid: int, parent: int) -> None:
        self._pid, self._parent = pid, parent
        self._started = _State.of(pid)
        self._told: dict[str, Any] = {"hang_seconds": 600.0, "grace_seconds": 60.0}
        self._got_on: float | None = None  # when it last said what it does
        self._since: dict[str, float] = {}  # what is wrong, and since when
        self._killed_for = ""
        self._pipes, self._partial = [_STANDARD_INPUT], b""

    def watch(self) -> None:
        """Until the rank has ended."""
        while self._is_there():
            self._listen(_POLL_SECONDS)
            self._look()
        while self._listen(0.0):  # what it told last
            pass
        self._leave_end()

    def _listen(self, seconds: float) -> bool:
        """Hear what comes within so long; whether something did."""
        ready, _, _ = select.select(self._pipes, [], [], seconds)
        chunk = os.read(ready[0], 1 << 16) if ready else b""
        if ready and not chunk:  # its end
            self._pipes = []
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in lines:
            self._hear(line)
        return bool(chunk)

    def _hear(self, line: bytes) -> None:
        with suppress(ValueError):  # one that was too long
            facts = json.loads(line)
            if "doing" in facts:
                self._got_on = time.monotonic()
            if "said" in facts:
                facts["said"] = f"{self._told.get('said', '')}{facts['said']}\n"
            self._told |= facts

    def _state(self) -> _State | None:
        state = _State.of(self._pid)
        same = state and self._started and state.started == self._started.started
        return state if same else None

    def _is_there(self) -> bool:
        return self._state() is not None

    def _look(self) -> None:
        state = self._state()
        if state is None:
            return
        self._judge("was stopped (SIGSTOP)", state.letter == "T", self._told["hang_seconds"])
        late = self._told["grace_seconds"] + _LATE_SECONDS
        is_orphan = self._parent not in (0, state.parent)
        self._judge("outlived the process that started it", is_orphan, late)

    def _judge(self, wrong: str, is_so: bool, seconds: float) -> None:
        if not is_so:
            self._since.pop(wrong, None)
        elif time.monotonic() - self._since.setdefault(wrong, time.monotonic()) > seconds:
            self._killed_for = wrong
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def _leave_end(self) -> None:
        told = self._told
        if "directory" not in told:
            return
        directory = LaunchDirectory(Path(told["directory"]))
        said = (
            _last_lines(directory.log(told["rank"])) if told.get("log") else told.get("said", "").splitlines()
        )
        end = RankEnd(
            rank=told["rank"],
            host=told["host"],
            code=None if self._killed_for else told.get("code"),
            reason=self._reason(),
            doing=told.get("doing", ""),
            asked=told.get("asked", ""),
            lines=said[-_TAIL_LINES:],
            follows=told.get("follows"),
        )
        with suppress(OSError):
            directory.write_end(end)

    def _reason(self) -> str:
        if self._killed_for:
            return self._killed_for
        if "code" in self._told:
            return f"ended with exit code {self._told['code']}"
        silent = 0.0 if self._got_on is None else time.monotonic() - self._got_on
        if self._told.get("timed") and silent > self._told["hang_seconds"] - _TOLERANCE_SECONDS:
            return f"has not got on for {silent:.0f} s"
        return WAS_KILLED


def _last_lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def main() -> None:
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    Watchdog(int(sys.argv[1]), int(sys.argv[2])).watch()


if __name__ == "__main__":
    main()
