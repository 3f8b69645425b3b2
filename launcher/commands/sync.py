"""`ligo-dist sync`: deliver to MLflow what it misses of runs that have ended."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from launcher.arguments import refuse_secrets
from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import check_run_dir

_MODULE = "ligo_dist.tracking.sync"
"""Run in a process of its own: it imports mlflow."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sync", help="deliver to MLflow what it misses of runs that have ended")
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="+", type=Path, help="directory of a run")
    parser.add_argument("--uri", help="another tracking URI than the run had")


def run(arguments: argparse.Namespace) -> int:
    uri = [] if arguments.uri is None else [f"--uri={arguments.uri}"]
    refuse_secrets(uri)
    faults = []
    for run_dir in arguments.run_dirs:
        try:
            check_run_dir(run_dir, arguments.uri)
        except LigoError as error:
            faults.append(f"{run_dir}: {error}")
    if faults:
        raise LigoError("\n".join(faults))
    return deliver(arguments.run_dirs, *uri)


def deliver(run_dirs: Iterable[Path], *options: str) -> int:
    """Deliver what MLflow misses of these runs: an exit code."""
    return subprocess.run([sys.executable, "-m", _MODULE, *options, *map(str, run_dirs)]).returncode
