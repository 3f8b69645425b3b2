"""`ligo-dist report`: compare runs, and draw loss against FLOPs and time."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from launcher.secret_words import refuse_secrets
from ligo_dist.report import check_arguments

_MODULE = "ligo_dist.report"
"""Run in a process of its own: it imports matplotlib, and perhaps mlflow."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report", help="compare runs: loss against FLOPs and time, what growing saved"
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="directory of a run, or mlflow:RUN_ID of one in an MLflow store",
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
    parser.add_argument("--uri", help="of the MLflow store; default: MLFLOW_TRACKING_URI")


def run(arguments: argparse.Namespace) -> int:
    uri = [] if arguments.uri is None else [f"--uri={arguments.uri}"]
    refuse_secrets(uri)
    baseline = [] if arguments.baseline is None else [arguments.baseline]
    check_arguments([*arguments.runs, *baseline], arguments.output, arguments.uri)
    options = [f"--output={arguments.output}", *uri, *(f"--baseline={place}" for place in baseline)]
    return subprocess.run([sys.executable, "-m", _MODULE, *options, "--", *arguments.runs]).returncode
