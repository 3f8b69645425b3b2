"""The mark that a run leaves when it has ended well, by which the launcher tells it from one that was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

LAUNCH_ID = "LIGO_DIST_LAUNCH_ID"
"""Environment variable with a word that the worker repeats in its result, so that the result of an earlier launch is
not taken for this one's."""

_FILE = "result.json"


def write_result(run_dir: Path) -> None:
    """Say that the run has finished; replaces an older mark at once."""
    result = {"status": "finished", "launch_id": os.environ.get(LAUNCH_ID)}
    unfinished = run_dir / f"{_FILE}.writing"
    unfinished.write_text(json.dumps(result) + "\n", encoding="utf-8")
    os.replace(unfinished, run_dir / _FILE)


def has_finished(run_dir: Path, launch_id: str) -> bool:
    """Whether the run of this very launch has finished."""
    try:
        result = json.loads((run_dir / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return result.get("status") == "finished" and result.get("launch_id") == launch_id
