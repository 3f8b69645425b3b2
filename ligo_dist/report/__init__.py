"""What came of runs: loss against FLOPs and time, and what growing saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ligo_dist.errors import LigoError
from ligo_dist.files import replace_bytes

from .places import NUMBERS, PAGE, PICTURE, check_arguments

if TYPE_CHECKING:
    from .report import Report

__all__ = ["check_arguments", "write_report"]


def write_report(runs: Sequence[str], baseline: str | None, output: Path, uri: str | None = None) -> Report:
    """Compare runs, and write `report.html`, `report.png` and `report.json` into a directory.

    Args:
        runs: run directories, or `mlflow:RUN_ID`.
        baseline: one of them, or another one, to hold the others against; None: no saving is stated.
        output: the directory. It is made; an earlier report in it is replaced.
        uri: of the MLflow store; None: as the environment's `MLFLOW_TRACKING_URI`.

    Raises:
        LigoError: what is named is no run, the runs cannot be compared, the directory cannot be written or holds other
            things.
        OutOfReach, Refused: the store does not answer.
    """
    # What takes seconds to load is loaded when there is something to report: the launcher imports this package.
    from .numbers import to_json
    from .report import build_report

    check_arguments([*runs, *([] if baseline is None else [baseline])], output, uri)
    report = build_report(runs, baseline, uri)

    from .figures import draw
    from .page import make_page
    from .panels import colours

    picture = draw(report)
    page = make_page(report, picture, colours(report))
    files = {PICTURE: picture, NUMBERS: to_json(report).encode(), PAGE: page.encode()}
    _write(output, files)
    return report


def _write(output: Path, files: dict[str, bytes]) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace_bytes(output / name, content)
    except OSError as error:
        raise LigoError(f"--output: {output} cannot be written: {error.strerror or error}") from error
