"""Taking runs to their end: some at a time, at low priority, each recorded as soon as it has finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.horizon.runs import Run
from benchmarks.provenance import commit
from ligo_dist.config import dump_yaml
from ligo_dist.runtime.errors import FINISHED, REQUEUE
from ligo_dist.runtime.files import SUMMARY_FILE, replace_text
from ligo_dist.runtime.quantities import duration
from ligo_dist.tracking import METRICS_FILE, read_records

RECORD = "runs.jsonl"
"""A line for each finished run, in the benchmark's directory."""

LOSS, FLOPS, SECONDS = "evaluate/loss", "cumulative/flops", "cumulative/seconds"
_NICE = 15
_STARTING = 25.0
"""Seconds of one core that a run takes before its first step and after its last."""
_STOPPING = 300.0
"""Seconds that a run has to write its checkpoint when the time is up."""
_POLL = 0.5


def read_results(root: Path) -> dict[str, dict[str, Any]]:
    """What is recorded of the finished runs, by name."""
    file = root / RECORD
    if not file.exists():
        return {}
    lines = [
        line for line in file.read_text().splitlines() if line.endswith("}")
    ]  # the last may be half a line
    return {result["name"]: result for result in map(json.loads, lines)}


def in_order(runs: Sequence[Run]) -> list[Run]:
    """The runs, each once, and each behind those that it needs."""
    ordered: dict[str, Run] = {}
    for run in runs:
        needed: list[Run] = []
        each: Run | None = run
        while each is not None and each.name not in ordered:
            needed.append(each)
            each = each.needs
        ordered |= {one.name: one for one in reversed(needed)}
    return list(ordered.values())


def core_seconds(
    runs: Sequence[Run], results: Mapping[str, Mapping[str, Any]], flops_per_second: float
) -> float:
    """What is left to do, in seconds of one core."""
    return sum(_STARTING + run.flops / flops_per_second for run in runs if run.name not in results)


def measured_speed(results: Mapping[str, Mapping[str, Any]]) -> float | None:
    """FLOPs per second of the runs so far; None before there are any."""
    seconds = sum(result["own_seconds"] for result in results.values())
    return sum(result["own_flops"] for result in results.values()) / seconds if seconds else None


def run_command(file: Path) -> list[str]:
    """What takes one run to its end, from its last checkpoint where it has begun."""
    return [sys.executable, "-m", "launcher", "run", str(file), "--nproc", "1"]


@dataclass
class Workers:
    """Processes that take runs to their end.

    Args:
        root: directory of the benchmark.
        jobs: runs at a time; each has its part of the cores.
        until: when to stop, by `time.monotonic()`; None: when all is done.
        command: from a run's configuration file to what is executed.
    """

    root: Path
    jobs: int = 1
    until: float | None = None
    command: Callable[[Path], list[str]] = run_command
    _running: dict[str, tuple[Run, subprocess.Popen[bytes]]] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    _stopped: bool = False

    def take(self, runs: Sequence[Run]) -> bool:
        """Take runs to their end in their order; a run that fails is told, and left out with those that need it.

        Returns:
            whether all have finished.
        """
        runs, done = in_order(runs), set(read_results(self.root))
        try:
            while True:
                left = [run for run in runs if run.name not in done and not self._is_lost(run)]
                if self.until is not None and time.monotonic() > self.until:
                    self._stopped = True
                if self._stopped or (not left and not self._running):
                    break
                ready = (r for r in left if r.needs is None or r.needs.name in done)
                for run in ready:
                    if len(self._running) == self.jobs:
                        break
                    if run.name not in self._running:
                        self._start(run, len(left))
                done |= self._collect()
                time.sleep(_POLL)
        finally:
            done |= self._stop()
        return all(run.name in done for run in runs)

    @property
    def was_stopped(self) -> bool:
        """Whether the time was up, or something else asked a run to stop."""
        return self._stopped

    def _is_lost(self, run: Run) -> bool:
        return run.name in self._failed or (run.needs is not None and self._is_lost(run.needs))

    def _start(self, run: Run, left: int) -> None:
        directory = self.root / run.name
        directory.mkdir(parents=True, exist_ok=True)
        raw = run.config | {"run_dir": str(directory)}
        raw["data"] = raw["data"] | {"cache_dir": str(self.root / "cache")}
        if run.needs is not None:
            raw["start_from"] = {"run": str(self.root / run.needs.name), "step": run.step}
        file = directory.with_name(f"{directory.name}.yaml")
        replace_text(file, dump_yaml(raw))
        cores = max(1, (os.cpu_count() or 1) // self.jobs)
        with directory.with_name(f"{directory.name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["nice", "-n", str(_NICE), *self.command(file)],
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(cores), "DS_ACCELERATOR": "cpu"},
            )
        self._running[run.name] = run, process
        _say(f"{run.name}: begins, {left} left")

    def _collect(self) -> set[str]:
        """Record those that have finished; returns their names."""
        finished = set()
        for name, (run, process) in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            if code == FINISHED:
                result = result_of(self.root, run)
                _append(self.root / RECORD, json.dumps(result))
                finished.add(name)
                _say(f"{name}: {result['loss']:.4f} in {duration(result['own_seconds'])}")
            elif code in (REQUEUE, -signal.SIGTERM, -signal.SIGINT):
                self._stopped = True
            else:
                _say(f"{name}: failed with exit code {code}; see {self.root / name}.log")
                self._failed.add(name)
        return finished

    def _stop(self) -> set[str]:
        """Ask what runs to write a checkpoint and end; the next call goes on from it. Returns what finished instead."""
        finished = set()
        for _, process in self._running.values():
            process.terminate()
        ends = time.monotonic() + _STOPPING
        while self._running and time.monotonic() < ends:
            finished |= self._collect()
            time.sleep(_POLL)
        return finished


def result_of(root: Path, run: Run) -> dict[str, Any]:
    """What a finished run came to; its curve is [step, cumulative FLOPs, validation loss] of the steps that it took."""
    directory = root / run.name
    stages = json.loads((directory / SUMMARY_FILE).read_text())["stages"]
    records = [record for record in read_records(directory / METRICS_FILE) if record["step"] >= run.step]
    curve = [
        [record["step"], float(record[FLOPS]), float(record[LOSS])]
        for record in records
        if LOSS in record and FLOPS in record
    ]
    seconds = [float(record[SECONDS]) for record in records if SECONDS in record]
    if run.needs is None:
        seconds.append(0.0)  # its first record comes only after some steps
    return {
        "name": run.name,
        **run.about,
        "loss": stages[-1]["final_loss"],
        "flops": sum(stage["flops"] for stage in stages),
        "parameters": [stage["parameters"] for stage in stages],
        "tokens": [stage["tokens"] for stage in stages],
        "own_flops": run.flops,
        "own_seconds": max(seconds) - min(seconds) if seconds else 0.0,
        "curve": curve,
        "commit": commit(),
    }


def _append(file: Path, line: str) -> None:
    """Add a line, a new one also where a killed writer has left half of one."""
    before = file.read_bytes() if file.exists() else b""
    torn = before and not before.endswith(b"\n")
    with file.open("a") as end:
        end.write(("\n" if torn else "") + line + "\n")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M')} {text}", flush=True)
