"""lm-evaluation-harness: whether it is there and has the tasks, the command that runs them, and what they came to.

python -m ligo_dist.tracking.harness WORD ...      the harness itself, which ends with the process that started it
"""

from __future__ import annotations

import json
import logging
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ligo_dist.config import Config, suggestion
from ligo_dist.runtime import parent
from ligo_dist.runtime.apart import ask_apart
from ligo_dist.runtime.errors import Fault, LigoError
from ligo_dist.tracking.evaluation import harness_metrics

_HARNESS = "lm_eval"
_INSTALL = "lm-evaluation-harness is not installed here; pip install 'ligo_dist[eval]' installs it"


def check_harness() -> None:
    """Whether the harness is installed.

    Raises:
        LigoError: it is not.
    """
    if find_spec(_HARNESS) is None:
        raise LigoError(_INSTALL)


def harness_faults(config: Config, *, asks_for_tasks: bool = True) -> list[Fault]:
    """What keeps this machine from evaluating the exports of a run on the tasks that its configuration names.

    Args:
        config: of the run.
        asks_for_tasks: whether the harness is to say which tasks it does not have, which takes it some ten seconds.

    Raises:
        LigoError: the harness fails at that.
    """
    harness = config.evaluation.harness
    if not harness.tasks:
        return []
    faults, key = [], "evaluation.harness"
    if "," in config.run_dir:
        wrong = f"{config.run_dir!r} has a comma, and {key} takes no export with one in its path"
        faults.append(Fault("run_dir", wrong))
    if harness.include_path is not None and not Path(harness.include_path).is_dir():
        faults.append(Fault(f"{key}.include_path", f"there is no directory {harness.include_path!r}"))
    if find_spec(_HARNESS) is None:
        faults.append(Fault(f"{key}.tasks", _INSTALL))
    if faults or not asks_for_tasks:
        return faults
    told = ask_apart(__name__, [harness.include_path, harness.tasks], f"{key}.tasks")
    return [Fault(f"{key}.tasks[{index}]", message) for index, message in told]


def harness_command(
    export: Path,
    output: Path,
    tasks: str,
    *,
    include_path: str | Path | None,
    num_fewshot: int | None,
    limit: int | None,
    batch_size: str | int,
    device: str | None,
) -> list[str]:
    """The command that evaluates an export.

    Args:
        export: its directory.
        output: where the harness puts its results.
        tasks: with commas between them.
        include_path, num_fewshot, limit, batch_size, device: the harness's own options; None: its choice.
    """
    options = {
        "--include_path": include_path,
        "--num_fewshot": num_fewshot,
        "--limit": limit,
        "--batch_size": batch_size,
        "--device": device,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    words = ["--model", "hf", "--model_args", f"pretrained={export}", "--tasks", tasks]
    return [sys.executable, "-m", __name__, *words, "--output_path", str(output), *given]


def harness_results(output: Path) -> dict[str, float] | None:
    """The metrics that the harness has put there, as `harness_metrics` names them; None: it has put none."""
    written = sorted(output.rglob("results_*.json"))
    if not written:
        return None
    return harness_metrics(json.loads(written[-1].read_text(encoding="utf-8"))["results"])


def answer_apart(request: Any) -> Any:
    """The answer to a question that was asked through `ligo_dist.runtime.apart`: unknown tasks, by their place."""
    from lm_eval.tasks import TaskManager

    include_path, tasks = request
    logging.disable(logging.WARNING)  # of others among its thousands of tasks
    manager = TaskManager(include_path=include_path)
    unknown = [(index, task) for index, task in enumerate(tasks) if not manager.match_tasks([task])]
    wrong = "is no task that lm-evaluation-harness has"
    return [(index, f"{task!r} {wrong}{suggestion(task, manager.all_tasks)}") for index, task in unknown]


def main() -> None:
    parent.end_with_it()
    runpy.run_module(_HARNESS, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
