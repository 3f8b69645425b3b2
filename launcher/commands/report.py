"""`ligo-dist report`: compare runs, and draw loss against FLOPs and time."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from ligo_dist.report import check_arguments

_MODULE = "ligo_dist.report"
"""Run in a process of its own: it imports matplotlib."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report", help="compare runs: loss against FLOPs and time, what growing saved"
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="directory of a run",
    )
    parser.add_argument(
        "--baseline",
        metavar="RUN",
        help="the run to hold the others against, e.g. the target trained from scratch",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("report"),
        help="where the report goes; default: report",
    )


def run(arguments: argparse.Namespace) -> int:
    baseline = [] if arguments.baseline is None else [arguments.baseline]
    check_arguments([*arguments.runs, *baseline], arguments.output)
    options = [f"--output={arguments.output}", *(f"--baseline={place}" for place in baseline)]
    return subprocess.run([sys.executable, "-m", _MODULE, *options, "--", *arguments.runs]).returncode
