"""A report as it is asked for: runs are read and compared, and what came of it is written into a directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ligo_dist.report.compare import Report, build_report
from ligo_dist.report.read import directory_fault
from ligo_dist.report.tables import to_json
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import replace_bytes

PICTURE, _NUMBERS = "report.png", "report.json"
_OF_A_REPORT = {name + ending for name in (PICTURE, _NUMBERS) for ending in ("", ".writing")}


def check_arguments(runs: Iterable[str], output: Path) -> None:
    """Whether there may be such runs, and whether the report can be written to a directory, which need not be there.

    Raises:
        LigoError: every fault, a line each.
    """
    faults = [fault for run in runs if (fault := directory_fault(Path(run))) is not None]
    if output.exists() and not output.is_dir():
        faults.append(f"--output: {output} is a file; name a directory")
    elif output.exists() and (others := sorted({path.name for path in output.iterdir()} - _OF_A_REPORT)):
        named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        faults.append(
            f"--output: {output} holds other things than a report ({named}), which it would get lost among; name"
            " another directory"
        )
    if faults:
        raise LigoError("\n".join(faults))


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
    check_arguments([*runs, *([] if baseline is None else [baseline])], output)
    report = build_report(runs, baseline)
    # Matplotlib is loaded when there is something to draw: the launcher imports this.
    from ligo_dist.report.drawing import png
    from ligo_dist.report.figures import draw

    files = {PICTURE: png(draw(report), dots_per_inch=140), _NUMBERS: to_json(report).encode()}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace_bytes(output / name, content)
    except OSError as error:
        raise LigoError(f"--output: {output} cannot be written: {error.strerror or error}") from error
    return report
