"""The MLflow runs of a run directory, in a file, so that a resumed run goes on in them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

RUN_IDS_FILE = "mlflow.json"
PARENT = ""
"""Key of the parent run; the nested runs are keyed by stage."""


def read_run_ids(run_dir: Path) -> dict[str, str]:
    """Run ids by key; none if there is no file or it is damaged, as the runs can be begun anew."""
    try:
        state = json.loads((run_dir / RUN_IDS_FILE).read_text(encoding="utf-8"))
        return {PARENT: state["run"], **state["stages"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_run_ids(run_dir: Path, run_ids: Mapping[str, str], address: str) -> None:
    """Keep the run ids, atomically, and for the reader the store's address, which holds no secrets."""
    stages = {stage: run_id for stage, run_id in run_ids.items() if stage != PARENT}
    state = {"address": address, "run": run_ids[PARENT], "stages": stages}
    temporary = run_dir / f"{RUN_IDS_FILE}.temporary"
    temporary.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, run_dir / RUN_IDS_FILE)
