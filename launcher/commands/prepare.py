"""`ligo-dist prepare`: what a run is trained on, made before the run."""

from __future__ import annotations

import argparse
import subprocess
import sys

from launcher.arguments import add_config
from ligo_dist.config import load_config

_MODULE = "ligo_dist.corpus"
"""Run in a process of its own: it imports torch and `datasets`."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "prepare",
        help="prepare the corpus without a run, such as where there is a network, and say what it is",
    )
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    load_config(arguments.config, arguments.overrides)  # its faults at once
    return subprocess.run([sys.executable, "-m", _MODULE, arguments.config, *arguments.overrides]).returncode
