"""Exports that are evaluated while a run goes on, with a stand-in for the harness; the real one: test_evaluate.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ligo_dist.config import Harness
from ligo_dist.engine import World
from ligo_dist.runtime.errors import Preempted
from ligo_dist.runtime.signals import StopReason, StopSignals
from ligo_dist.tracking import Tracker
from ligo_dist.training import tasks
from ranks import run_ranks

RESULTS = {"results": {"endings": {"alias": "endings", "acc,none": 0.75, "acc_stderr,none": 0.1}}}

# Finds something after two and a half seconds, and leaves what it was told and who it is.
STAND_IN = f"""
import json, os, sys, time
print(os.getpid(), "RANK" in os.environ, flush=True)
time.sleep(2.5)
open(sys.argv[1] + "/results_1.json", "w").write({json.dumps(json.dumps(RESULTS))})
"""


class Recorded(Tracker):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start_phase(self, phase: str) -> None:
        self.calls.append(phase)

    def log(self, metrics: Any, step: int, time: float | None = None) -> None:
        self.calls.append((dict(metrics), step))


def evaluated(world: World, directory: Path, script: str, asked: bool = False) -> dict[str, Any]:
    """What one rank does and says while a script stands in for the harness."""
    tracker, signals, beats, told = Recorded(), StopSignals(), list[str](), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tasks,
            "harness_command",
            lambda export, output, *_, **__: [sys.executable, "-c", script, str(output)],
        )
        patch.setattr(tasks, "beat", beats.append)
        if asked and world.rank == 1:
            signals.requested = StopReason.SIGTERM
        runner = tasks.ExportTasks(
            Harness(tasks=["endings"]), 8, directory, world, signals, tracker, told.append
        )
        stopped = ""
        try:
            runner.run("large", directory / "export", 17)
        except Preempted as error:
            stopped = str(error)
    return {"calls": tracker.calls, "told": told, "beats": beats, "stopped": stopped}


def test_all_ranks_get_on_while_the_first_one_waits_for_it(tmp_path: Path):
    first, second = run_ranks(evaluated, 2, tmp_path, STAND_IN)
    assert len(first["beats"]) == len(second["beats"]) >= 2
    assert set(first["beats"]) == {"endings"}
    metrics = {"evaluate/endings/acc": 0.75, "evaluate/endings/acc_stderr": 0.1}
    assert first["calls"] == ["evaluate", (metrics, 17)]
    assert first["told"] == ["large on its tasks: endings/acc 0.75"]
    assert second["calls"] == second["told"] == []
    assert (tmp_path / "large" / "harness.log").read_text().endswith("False\n"), "it is told of no other rank"


def test_a_harness_that_fails_is_told_and_costs_the_run_nothing(tmp_path: Path):
    first, second = run_ranks(evaluated, 2, tmp_path, "raise SystemExit(3)")
    assert first["calls"] == []
    assert first["told"] == [
        "large was not evaluated on its tasks: the harness ended with exit code 3,"
        f" {tmp_path}/large/harness.log says why; `ligo-dist evaluate {tmp_path}/export --tasks endings` does it later"
    ]
    assert first["stopped"] == second["stopped"] == ""


def test_a_run_that_is_asked_to_stop_ends_it(tmp_path: Path):
    began = time.monotonic()
    outcomes = run_ranks(evaluated, 2, tmp_path, STAND_IN.replace("2.5", "600"), True)
    assert time.monotonic() - began < 300
    for outcome in outcomes:
        assert outcome["stopped"].startswith("SIGTERM after the training of large; the same command goes on")
        assert outcome["calls"] == []
    pid = (tmp_path / "large" / "harness.log").read_text().split()[0]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_without_tasks_nothing_is_done(tmp_path: Path):
    told: list[str] = []
    world = World(0, 1, torch.device("cpu"))
    nothing = tasks.ExportTasks(Harness(), 8, tmp_path, world, StopSignals(), Tracker(), told.append)
    nothing.run("large", tmp_path / "export", 17)
    assert told == []
    assert list(tmp_path.iterdir()) == []
