"""`python -m ligo_dist.report RUN ... [--baseline RUN]`: compare runs. `ligo-dist report` starts it, as the launcher
itself imports no matplotlib."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ligo_dist.report import PICTURE, show, write_report
from ligo_dist.runtime.errors import FINISHED, MISTAKE, LigoError
from ligo_dist.runtime.redaction import redact


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: the report is written; 2: a mistake in what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m ligo_dist.report", description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("--baseline", metavar="RUN")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        report = write_report(arguments.runs, arguments.baseline, arguments.output)
    except LigoError as error:
        print(f"ligo-dist: {redact(str(error))}", file=sys.stderr, flush=True)
        return MISTAKE
    console = Console()
    show(console, report)
    console.print(f"\n  picture     {arguments.output / PICTURE}", soft_wrap=True, highlight=False)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
