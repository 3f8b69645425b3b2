"""What can be said about the arguments of a report without reading a run. The launcher asks it: nothing here loads what
takes seconds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ligo_dist.errors import LigoError
from ligo_dist.tracking.address import database_file, tracking_address
from ligo_dist.tracking.ledger import LEDGER_FILE

STORED = "mlflow:"
"""What a run that is to be read from an MLflow store is named by; its id follows."""

PAGE, PICTURE, NUMBERS = "report.html", "report.png", "report.json"
_OF_A_REPORT = {name + ending for name in (PAGE, PICTURE, NUMBERS) for ending in ("", ".writing")}


def check_arguments(runs: Iterable[str], output: Path, uri: str | None) -> None:
    """Whether there may be such runs, and whether the report can be written there.

    Raises:
        LigoError: every fault, a line each.
    """
    faults = []
    for run in runs:
        try:
            if run.startswith(STORED):
                store_address(run, uri)
            else:
                check_directory(Path(run))
        except LigoError as error:
            faults.append(str(error))
    try:
        check_output(output)
    except LigoError as error:
        faults.append(str(error))
    if faults:
        raise LigoError("\n".join(faults))


def check_directory(path: Path) -> None:
    """See that a path is a run directory.

    Raises:
        LigoError: it is none.
    """
    if not path.is_dir():
        raise LigoError(
            f"{path}: there is no such directory; a run is a run directory, or {STORED}RUN_ID for one in MLflow"
        )
    if not (path / LEDGER_FILE).is_file():
        raise LigoError(f"{path}: no directory of a run: {LEDGER_FILE} is missing")


def check_output(output: Path) -> None:
    """See that a report may be written to a directory, which need not be there.

    Raises:
        LigoError: there is something that is no report.
    """
    if output.exists() and not output.is_dir():
        raise LigoError(f"--output: {output} is a file; name a directory")
    others = sorted({path.name for path in output.iterdir()} - _OF_A_REPORT) if output.exists() else []
    if others:
        raise LigoError(
            f"--output: {output} holds other things than a report ({', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}), which it would get lost among; name another directory"
        )


def store_address(run: str, uri: str | None) -> str:
    """The MLflow store that `run` is in: `uri`, else what the environment says.

    Raises:
        LigoError: neither names a store that is there.
    """
    if uri is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise LigoError(f"{run}: name the store that has it, with --uri or MLFLOW_TRACKING_URI")
    address = tracking_address(uri, Path.cwd() / "run", "--uri")
    file = database_file(address)
    if file is not None and not file.is_file():
        raise LigoError(f"{'MLFLOW_TRACKING_URI' if uri is None else '--uri'}: there is no database {file}")
    return address
