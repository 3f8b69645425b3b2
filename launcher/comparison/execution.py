"""Taking a comparison to its end: its runs one after another, then the report."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.comparison.runs import ComparedRun
from launcher.signals import Signals
from ligo_dist.config import SOURCE
from ligo_dist.runtime.errors import FAILED, FINISHED, MISTAKE, MORE_NODES, REQUEUE, LigoError
from ligo_dist.runtime.files import replace_text
from ligo_dist.runtime.quantities import duration
from ligo_dist.runtime.redaction import redact
from ligo_dist.schedule import Plan

_REPORT = "ligo_dist.report"
"""Run in a process of its own: it draws. It says itself where the picture is."""

StartRun = Callable[[ComparedRun, Plan], int]
"""Takes one run to its end, or from its last checkpoint to its end; gives its exit code."""


def run_comparison(
    planned: Sequence[tuple[ComparedRun, Plan]], baseline: str, root: Path, start: StartRun
) -> int:
    """Take what has not finished yet to its end, then write the report of what there is.

    Args:
        planned: the runs in their order, each with its plan.
        baseline: the method whose runs the others are held against.
        root: directory of the comparison.
        start: what runs one.

    Returns:
        0: all finished; 1: a run failed, or there is no report; any other: that of the run that was stopped.
    """
    failed: list[ComparedRun] = []
    began, done = time.monotonic(), 0  # FLOPs of those runs that this call has taken to their end
    with Signals() as signals:
        for number, (run, plan) in enumerate(planned, 1):
            place = f"{number}/{len(planned)} {run.name}"
            if run.has_finished:
                _say(f"{place}: has finished before, in {run.directory}")
                continue
            if any(other.directory == run.needs for other in failed):
                _say(f"{place}: left out, as its source failed")
                failed.append(run)
                continue
            left = ""
            if done:
                ahead = _flops_ahead(planned[number - 1 :])
                left = f"; about {duration((time.monotonic() - began) * ahead / done)} left"
            _say(f"{place}: in {run.directory}{left}")
            code = _take_to_its_end(run, plan, start)
            if signals.order is not None or code in (REQUEUE, MORE_NODES):
                _say("the comparison has stopped; the same command goes on")
                return signals.exit_code if signals.order else code
            if code == FINISHED:
                done += plan.cost.hardware_flops
            else:
                _say(f"{place}: failed with exit code {code}")
                failed.append(run)
        written = _write_report([run for run, _ in planned], baseline, root)
    if failed:
        _say(f"failed: {', '.join(run.name for run in failed)}; the same command tries again")
    return FINISHED if written and not failed else FAILED


def _flops_ahead(planned: Sequence[tuple[ComparedRun, Plan]]) -> int:
    """Of the runs that have not finished, what takes time: those that are recomputed too."""
    return sum(plan.cost.hardware_flops for run, plan in planned if not run.has_finished)


def _take_to_its_end(run: ComparedRun, plan: Plan, start: StartRun) -> int:
    """The exit code of a run; what stops this one need not stop the next."""
    try:
        run.directory.mkdir(parents=True, exist_ok=True)
        replace_text(run.file, run.text)
        return start(run, plan)
    except LigoError as error:
        _say(redact(str(error)))
        return error.exit_code
    except OSError as error:
        _say(f"{run.directory} cannot be written: {error.strerror or error}")
        return MISTAKE


def _write_report(runs: Sequence[ComparedRun], baseline: str, root: Path) -> bool:
    """Hold those that finished against the first of the baseline's; whether that was possible."""
    finished = [run for run in runs if run.has_finished and run.method != SOURCE]
    references = [run for run in finished if run.method == baseline]
    if not references:
        _say(f"no report: no run of the baseline {baseline!r} has finished")
        return False
    output = root / "report"
    command = [sys.executable, "-m", _REPORT, *(str(run.directory) for run in finished)]
    command += ["--baseline", str(references[0].directory), "--output", str(output)]
    if subprocess.run(command).returncode != FINISHED:
        _say("no report: what failed has been said; the same command tries again")
        return False
    return True


def _say(text: str) -> None:
    print(f"ligo-dist: {text}", file=sys.stderr, flush=True)
