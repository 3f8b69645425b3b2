"""`ligo-dist compare`: several ways to begin the last stage, over several seeds, as one job that ends with a report."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from launcher.arguments import add_config, read_config
from launcher.commands.run import add_start, choose_and_check, start
from launcher.comparison.checks import check_runs, print_runs
from launcher.comparison.execution import run_comparison
from launcher.comparison.runs import ComparedRun, as_begun, comparison_root, derive_runs
from launcher.signals import leave_when_warned
from ligo_dist.runtime.errors import FINISHED, LigoError
from ligo_dist.runtime.files import LOCK_FILE
from ligo_dist.schedule import Plan


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare", help="run several methods over several seeds, or go on with it, and report what each saves"
    )
    add_config(parser)
    parser.add_argument(
        "--methods",
        type=_names,
        metavar="A,B,...",
        help="`scratch` and names of `ligo-dist methods`, also NAME+learn and NAME+fixed; of `compare.variants`",
    )
    parser.add_argument("--seeds", type=_seeds, metavar="N", help="the seeds 0 to N-1; or a list: 0,3,5")
    parser.add_argument(
        "--baseline", metavar="METHOD", help="whose final loss the others are to reach (default: scratch)"
    )
    add_start(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print the runs, start nothing"
    )


@leave_when_warned()
def run(arguments: argparse.Namespace) -> int:
    _write_as_overrides(arguments)
    config = as_begun(read_config(arguments))
    fleet, plan = choose_and_check(arguments, config)
    runs, root = derive_runs(config, arguments.config), comparison_root(config)
    check_runs(runs, root, fleet.world_size, arguments.config)
    planned = [(run, Plan.of(run.config, plan.pieces, fleet.world_size, plan.attended)) for run in runs]
    if arguments.dry_run:
        print_runs(planned, config.compare.baseline)
        print("nothing was started")
        return FINISHED

    def start_run(run: ComparedRun, plan: Plan) -> int:
        of_run = argparse.Namespace(**{**vars(arguments), "config": str(run.file), "overrides": []})
        return start(of_run, plan, fleet)

    with _only_here(root):
        return run_comparison(planned, config.compare.baseline, root, start_run)


def _write_as_overrides(arguments: argparse.Namespace) -> None:
    """The options say what the section `compare` says, and are checked as it is."""
    for key in ("methods", "seeds", "baseline"):
        value = getattr(arguments, key)
        if value is not None:
            arguments.overrides.append(f"compare.{key}={json.dumps(value)}")


@contextmanager
def _only_here(root: Path) -> Iterator[None]:
    """Keep another comparison out of a directory."""
    lock = FileLock(root / LOCK_FILE)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise LigoError(f"run_dir: another comparison is using {str(root)!r}; wait for it") from None
    except OSError as error:
        raise LigoError(f"run_dir: {str(root)!r} cannot be written: {error.strerror}") from None
    with lock:
        yield


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _seeds(text: str) -> list[int]:
    """`3`: the seeds 0, 1, 2; `0,3,5`: those."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} should be a number of seeds, or a list such as 0,3,5")
    if len(words) > 1:
        return [int(word) for word in words]
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be at least 1")
    return list(range(int(text)))
