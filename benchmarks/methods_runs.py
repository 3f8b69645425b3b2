"""Running a plan: each run a worker of its own, `python -m ligo_dist CONFIG`, several of them at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from launcher.command import free_port

_MARK = "benchmark.json"
_RUN_DIR = "run_dir"


@dataclass(frozen=True)
class Run:
    """One worker.

    Attributes:
        name: what it is called on the terminal.
        directory: its run directory.
        config: what it runs, but for `run_dir`.
        needs: directory of a run whose export it starts from; None if it needs none.
    """

    name: str
    directory: Path
    config: dict[str, Any]
    needs: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: which.
        seconds: wall time, in this or in an earlier call.
        commit: of the code that ran.
        error: what it said last; None if it finished.
    """

    run: Run
    seconds: float
    commit: str
    error: str | None = None


@dataclass
class Workers:
    """Runs several workers at a time.

    Args:
        jobs: how many.
        threads: of each, on processors.
        commit: kept with each finished run.
    """

    jobs: int
    threads: int
    commit: str
    _processes: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(self, runs: Sequence[Run]) -> list[Outcome]:
        """The outcome of each run, in their order. One that has finished with the same configuration before is not run
        again; one that needs another must come behind it."""
        futures: dict[Path, Future[Outcome]] = {}
        began = time.perf_counter()
        with ThreadPoolExecutor(self.jobs) as pool:
            for run in runs:
                # Those it waits for were submitted before it, so that a waiting thread never holds them up.
                futures[run.directory] = pool.submit(self._one, run, futures.get(run.needs or Path()))
            try:
                for number, future in enumerate(as_completed(futures.values()), 1):
                    _show(number, len(runs), future.result(), time.perf_counter() - began)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
                raise
        return [futures[run.directory].result() for run in runs]

    def _one(self, run: Run, needed: Future[Outcome] | None) -> Outcome:
        if needed is not None and needed.result().error:
            return Outcome(run, 0.0, self.commit, f"{needed.result().run.name} failed")
        earlier = _finished(run)
        if earlier is not None:
            return earlier
        shutil.rmtree(run.directory, ignore_errors=True)
        run.directory.mkdir(parents=True)
        config = run.directory.with_suffix(".yaml")
        config.write_text(yaml.safe_dump({**run.config, _RUN_DIR: str(run.directory)}, sort_keys=False))
        began = time.perf_counter()
        code = self._call([sys.executable, "-m", "ligo_dist", str(config)], run.directory / "output.txt")
        seconds = time.perf_counter() - began
        if code:
            return Outcome(run, seconds, self.commit, _last_line(run.directory / "output.txt"))
        shutil.rmtree(run.directory / "checkpoints", ignore_errors=True)
        mark = {"config": run.config, "seconds": seconds, "commit": self.commit}
        (run.directory / _MARK).write_text(json.dumps(mark))
        return Outcome(run, seconds, self.commit)

    def _call(self, command: list[str], output: Path) -> int:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "PYTHONWARNINGS": "ignore",
        }
        with output.open("wb") as file, self._lock:
            if self._stopped:
                return 1
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
            self._processes.add(process)
        code = process.wait()
        self._processes.discard(process)
        return code

    def _stop(self) -> None:
        """End the workers that still run, and begin no other."""
        with self._lock:
            self._stopped = True
            for process in list(self._processes):
                process.terminate()


def _finished(run: Run) -> Outcome | None:
    try:
        mark = json.loads((run.directory / _MARK).read_text())
    except (OSError, ValueError):
        return None
    if mark["config"] != json.loads(json.dumps(run.config)):
        return None
    return Outcome(run, mark["seconds"], mark["commit"])


def _last_line(output: Path) -> str:
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line or line.startswith("ligo-dist:")]
    return (told or lines or ["no output"])[-1]


def _show(number: int, total: int, outcome: Outcome, seconds: float) -> None:
    left = seconds / number * (total - number) / 60
    ended = f"FAILED: {outcome.error}" if outcome.error else f"{outcome.seconds:.0f} s"
    print(f"{number}/{total} {outcome.run.name}: {ended}; about {left:.0f} min left", flush=True)
