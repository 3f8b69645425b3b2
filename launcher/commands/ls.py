"""`ligo-dist ls`: the runs of a directory, and where each stands."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.tables import listing, print_listing
from ligo_dist.report import Standing, find_runs, standing_of
from ligo_dist.runtime import quantities
from ligo_dist.runtime.errors import FINISHED

_DEFAULT = Path("runs")
"""Where the configurations of this project put their runs; a working directory in which none was started has none."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("ls", help="list runs: status, stage, loss, age")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, help=f"default: {_DEFAULT}")


def run(arguments: argparse.Namespace) -> int:
    directory: Path = arguments.directory or _DEFAULT
    found = find_runs(directory) if arguments.directory or directory.exists() else ()
    standings = [standing_of(path) for path in found]
    if not standings:
        print(f"no run in {directory}; another directory: ligo-dist ls DIR")
        return FINISHED
    table = listing("run", "status", "stage", "phase", "step", "loss", "validation", "last record")
    for standing in sorted(standings, key=lambda one: one.age):
        table.add_row(*_row(standing))
    print_listing(table)
    return FINISHED


def _row(standing: Standing) -> list[str]:
    stage = standing.stage or "-"
    if standing.stage_number is not None:
        stage += f" {standing.stage_number}/{standing.stages}"
    step = "-" if standing.step is None else f"{standing.step:,}/{standing.steps:,}"
    return [
        str(standing.run_dir),
        standing.status,
        stage,
        standing.phase or "-",
        step,
        quantities.loss(standing.loss),
        quantities.loss(standing.validation_loss),
        f"{quantities.duration(standing.age)} ago",
    ]
