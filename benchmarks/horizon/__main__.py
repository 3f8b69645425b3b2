"""What growing saves against tokens per parameter of the target, everything counted.

    python -m benchmarks.horizon runs/horizon --list                  # the runs in their order, and the time they need
    python -m benchmarks.horizon runs/horizon --jobs 2 --hours 6      # the rate first, then as far as that goes
    python -m benchmarks.horizon runs/horizon --report benchmarks/results/DATE-horizon

The same command goes on where it stopped. Each run is an ordinary one, with its configuration and log beside it, at low
priority; runs.jsonl has a line for each that has finished, and all tables are made of it.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.horizon.results import best_rate, table, write
from benchmarks.horizon.runs import RATES, Run, Target, queue
from benchmarks.horizon.work import Workers, core_seconds, in_order, measured_speed, read_results
from benchmarks.provenance import commit, processor
from ligo_dist.runtime.errors import FAILED, FINISHED, REQUEUE, LigoError
from ligo_dist.runtime.files import LOCK_FILE
from ligo_dist.runtime.quantities import duration

_SPEED = 1e10
"""FLOPs per second of one core, for the estimate before anything is measured."""


def main(words: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    try:
        if arguments.report:
            return _report(arguments)
        if arguments.list:
            return _list(arguments)
        return _work(arguments)
    except LigoError as error:
        print(f"horizon: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.horizon",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, help="where runs and results lie; some GB")
    parser.add_argument("--target", choices=("deep", "wide"), default="deep", help="default: deep")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1, on all cores)")
    parser.add_argument("--hours", type=float, help="stop cleanly after so many hours")
    parser.add_argument("--only", metavar="PATTERN", help="runs whose name has this regular expression in it")
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--rate", type=float, help="learning rate, rather than the best of the sweep")
    parser.add_argument("--list", action="store_true", help="list the runs, start nothing")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write FILE.txt, .png, .yaml, start nothing"
    )
    return parser


def _work(arguments: argparse.Namespace) -> int:
    root = arguments.directory.absolute()
    root.mkdir(parents=True, exist_ok=True)
    until = None if arguments.hours is None else time.monotonic() + 3600 * arguments.hours
    try:
        with FileLock(root / LOCK_FILE, timeout=0):
            workers = Workers(root, arguments.jobs, until)
            if arguments.rate is None:
                swept = Target(arguments.target, RATES[0])
                if not workers.take([swept.swept(rate) for rate in RATES]):
                    return REQUEUE if workers.was_stopped else FAILED
            if workers.take(_runs(arguments)):
                return FINISHED
            return REQUEUE if workers.was_stopped else FAILED
    except Timeout:
        raise LigoError(f"{root}: in use by another process; wait for it") from None


def _runs(arguments: argparse.Namespace) -> list[Run]:
    results = read_results(arguments.directory)
    rate = arguments.rate or best_rate([r for r in results.values() if r["target"] == arguments.target])
    others = {r["rate"] for r in results.values() if r["kind"] != "rate" and r["target"] == arguments.target}
    if others - {rate}:
        wrong = f"its runs are of a rate of {others.pop():g}, not {rate or 0:g}"
        raise LigoError(f"{arguments.directory}: {wrong}; give that as --rate, or another directory")
    target = Target(arguments.target, rate or RATES[0])
    runs = list(queue(target, range(arguments.seeds)))
    if arguments.only:
        runs = [run for run in runs if re.search(arguments.only, run.name)]
        if not runs:
            raise LigoError(f"--only {arguments.only}: no run has that in its name; --list shows them")
    return runs


def _list(arguments: argparse.Namespace) -> int:
    results = read_results(arguments.directory)
    speed = measured_speed(results)
    swept = Target(arguments.target, RATES[0])
    runs = (
        [*(swept.swept(rate) for rate in RATES), *_runs(arguments)]
        if arguments.rate is None
        else _runs(arguments)
    )
    passed: list[Run] = []
    for run in in_order(runs):
        passed.append(run)
        hours = core_seconds(passed, results, speed or _SPEED) / 3600
        state = f"{results[run.name]['loss']:.4f}" if run.name in results else f"{hours:.1f} h"
        print(f"{run.name:<72}{run.flops:>11.3g} FLOPs  {state}")
    left = core_seconds(passed, results, speed or _SPEED)
    kind = "measured" if speed else "assumed"
    print(
        f"{len(passed)} runs; {duration(left)} of one core left at {(speed or _SPEED):.3g} FLOPs/s ({kind})"
    )
    return FINISHED


def _report(arguments: argparse.Namespace) -> int:
    results = [r for r in read_results(arguments.directory).values() if r["target"] == arguments.target]
    spent = sum(r["own_seconds"] for r in results)
    head = [
        f"python -m benchmarks.horizon {arguments.directory.name} --target {arguments.target}",
        f"{date.today()}, commit {commit()}, {processor()}; {len(results)} runs, {duration(spent)} of steps and"
        " evaluations",
    ]
    write(results, head, arguments.report)
    print("\n".join(table(results)))
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
