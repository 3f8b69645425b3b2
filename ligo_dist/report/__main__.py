"""`python -m ligo_dist.report RUN ... [--baseline RUN]`: compare runs. `ligo-dist report` starts it, as the launcher
itself imports neither matplotlib nor mlflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ligo_dist.errors import LigoError
from ligo_dist.exit_codes import FAILED, FINISHED, MISTAKE
from ligo_dist.redaction import redact
from ligo_dist.tracking.failures import OutOfReach, Refused

from . import write_report
from .places import PAGE
from .text import show


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: the report is written; 1: the store does not answer; 2: a mistake in what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m ligo_dist.report", description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("--baseline", metavar="RUN")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--uri")
    arguments = parser.parse_args(argv)
    try:
        report = write_report(arguments.runs, arguments.baseline, arguments.output, arguments.uri)
    except (LigoError, OutOfReach, Refused) as error:
        print(f"ligo-dist: {redact(str(error))}", file=sys.stderr, flush=True)
        return MISTAKE if isinstance(error, LigoError) else FAILED
    console = Console()
    show(console, report)
    console.print(f"\n  report      {arguments.output / PAGE}", soft_wrap=True, highlight=False)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
