"""One rank as the agent sees it: a process in a session of its own, its log, its signs of life, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from launcher.accelerators import count_accelerators
from launcher.messages import Job, NodeJob

WORKER = (sys.executable, "-u", "-m", "ligo_dist")
HEARTBEAT, AGENT, CONSOLE = "LIGO_DIST_HEARTBEAT", "LIGO_DIST_AGENT", "LIGO_DIST_CONSOLE_FD"
_TAIL = 30


class RankProcess:
    """A rank that has been started.

    Attributes:
        rank: its number.
        process: its process, the leader of its own session and process group.
        output: what it prints, standard error included; not blocking.
        tail: the last lines of it.
    """

    def __init__(self, job: Job, node: int, local_rank: int, scratch: Path) -> None:
        """Start it.

        Args:
            job: what is run.
            node: number of this node in it.
            local_rank: which of the node's ranks.
            scratch: a directory of this node alone, for signs of life.
        """
        self.rank = job.nodes[node].first_rank + local_rank
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self._heartbeat = scratch / f"rank-{self.rank}"
        self._seen: tuple[int, float] | None = None  # the heartbeat's time, and ours when it was new
        self._partial = b""
        logs = Path(job.directory, job.logs)
        logs.mkdir(parents=True, exist_ok=True)
        self._log = (logs / f"rank-{self.rank:05d}.log").open("ab", buffering=0)
        environ = {
            **rank_environment(job, node, local_rank, os.environ),
            HEARTBEAT: str(self._heartbeat),
            AGENT: str(os.getpid()),
        }
        console = () if job.console is None or self.rank else (job.console,)
        if console:
            environ[CONSOLE] = str(job.console)
        self.process = subprocess.Popen(
            [*job.wrapper, *WORKER, job.config, *job.overrides],
            env=environ,
            cwd=job.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=console,
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout
        os.set_blocking(self.output.fileno(), False)

    def read(self) -> list[str] | None:
        """The whole lines that have come since the last call; None at the end of the output."""
        try:
            chunk = os.read(self.output.fileno(), 1 << 16)
        except BlockingIOError:
            return []
        with suppress(OSError):  # a full disk must not end the run by its log
            self._log.write(chunk)
        if not chunk and not self._partial:
            return None
        *lines, self._partial = (self._partial + chunk + (b"" if chunk else b"\n")).split(b"\n")
        texts = [line.decode(errors="replace") for line in lines]
        self.tail.extend(texts)
        return texts

    @property
    def code(self) -> int | None:
        """Its exit code, 128 + the signal where one ended it; None while it runs."""
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    @property
    def place(self) -> str:
        """The last thing it said it was doing; empty before the ranks have met."""
        try:
            return self._heartbeat.read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def silent_seconds(self) -> float:
        """How long it has given no sign of getting on. Before the ranks have met, which may take hours where data is
        prepared, it gives none: then only the time counts in which the process is stopped."""
        now = time.monotonic()
        try:
            written = self._heartbeat.stat().st_mtime_ns
        except OSError:
            written = 0
        if not written and not self.is_stopped:
            self._seen = None
            return 0.0
        if self._seen is None or self._seen[0] != written:
            self._seen = (written, now)
        return now - self._seen[1]

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has stopped the process (SIGSTOP)."""
        try:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state in "tT"

    def send(self, signum: int) -> None:
        """Send a signal to the rank alone: what it has started is its own business."""
        if self.process.poll() is None:
            self.process.send_signal(signum)

    def kill(self) -> None:
        """End the rank and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.output.close()
        self._log.close()


def rank_environment(job: Job, node: int, local_rank: int, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a rank: the agent's, the job's, and what torch and DeepSpeed read of its place."""
    here = job.nodes[node]
    local_size = len(here.devices)
    own = {
        "RANK": here.first_rank + local_rank,
        "WORLD_SIZE": job.world_size,
        "LOCAL_RANK": local_rank,
        "LOCAL_WORLD_SIZE": local_size,
        "LOCAL_SIZE": local_size,
        "CROSS_RANK": node,
        "CROSS_SIZE": len(job.nodes),
        "MASTER_ADDR": job.master_address,
        "MASTER_PORT": job.master_port,
    }
    result = {**environ, **job.environment, **{name: str(value) for name, value in own.items()}}
    result.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // local_size)))
    if count_accelerators(result) == 0:
        result.setdefault("DS_ACCELERATOR", "cpu")
    else:
        result["CUDA_VISIBLE_DEVICES"] = _visible(here, result.get("CUDA_VISIBLE_DEVICES"))
    return result


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _visible(node: NodeJob, visible: str | None) -> str:
    """The node's devices; where only some can be seen, its slots are those, in their order."""
    if visible is None:
        return ",".join(map(str, node.devices))
    names = [name.strip() for name in visible.split(",")]
    return ",".join(names[device] for device in node.devices if device < len(names))
