"""What came of runs: loss against FLOPs and time, and what growing saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ligo_dist.report.read import NUMBERS, PICTURE, check_arguments
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import replace_bytes

if TYPE_CHECKING:
    from ligo_dist.report.report import Report

__all__ = ["check_arguments", "write_report"]


def write_report(runs: Sequence[str], baseline: str | None, output: Path) -> Report:
    """Compare runs, and write `report.png` and `report.json` into a directory.

    Args:
        runs: run directories.
        baseline: one of them, or another one, to hold the others against; None: no saving is stated.
        output: the directory. It is made; an earlier report in it is replaced.

    Raises:
        LigoError: what is named is no run, the runs cannot be compared, the directory cannot be written or holds other
            things.
    """
    # What takes seconds to load is loaded when there is something to report: the launcher imports this package.
    from ligo_dist.report.report import build_report
    from ligo_dist.report.tables import to_json

    check_arguments([*runs, *([] if baseline is None else [baseline])], output)
    report = build_report(runs, baseline)

    from ligo_dist.report.figures import draw

    _write(output, {PICTURE: draw(report), NUMBERS: to_json(report).encode()})
    return report


def _write(output: Path, files: dict[str, bytes]) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace_bytes(output / name, content)
    except OSError as error:
        raise LigoError(f"--output: {output} cannot be written: {error.strerror or error}") from error
