"""`ligo-dist evaluate`: an export on the tasks of lm-evaluation-harness, beside the losses of the run that made it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.arguments import positive
from launcher.commands.sync import deliver
from ligo_dist.runtime.errors import FAILED, FINISHED, LigoError
from ligo_dist.runtime.files import EXPORTS_DIRECTORY
from ligo_dist.tracking import (
    add_evaluation,
    check_harness,
    check_run_dir,
    harness_command,
    harness_results,
    read_state,
    run_of_export,
)

_EXAMPLES = """\
examples:
  ligo-dist evaluate runs/quickstart/export/large --tasks lambada_openai,arc_easy
  ligo-dist evaluate runs/quickstart --tasks my_task --include-path tasks/ --limit 100

Of a run's directory every export is evaluated. What is measured becomes a record of the run's metrics.jsonl, and where
the run is tracked, MLflow gets it: evaluate/TASK/METRIC. Needs `pip install 'ligo_dist[eval]'`.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="run tasks of lm-evaluation-harness on exports, and record what comes out",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("export", metavar="EXPORT", type=Path, help="directory of an export, or of a run")
    parser.add_argument("--tasks", metavar="TASK[,TASK]", required=True, help="as the harness calls them")
    parser.add_argument("--include-path", metavar="DIR", type=Path, help="tasks of your own, as YAML files")
    parser.add_argument("--num-fewshot", metavar="N", type=int, help="examples before each question")
    parser.add_argument("--limit", metavar="N", type=positive, help="questions of each task")
    parser.add_argument(
        "--batch-size", metavar="N", default="auto", help="questions at a time; default: as fit"
    )
    parser.add_argument("--device", metavar="NAME", help="cuda:0, cpu, ...; default: the harness's choice")


def run(arguments: argparse.Namespace) -> int:
    exports = _exports(arguments.export)
    check_harness()
    if arguments.include_path is not None and not arguments.include_path.is_dir():
        raise LigoError(f"--include-path: there is no directory {arguments.include_path}")
    owners = {export: run_of_export(export) for export in exports}
    for owner in owners.values():
        if owner is not None:
            check_run_dir(owner[0], None)  # rather now than when all is measured
    codes = [FINISHED]
    for export, owner in owners.items():
        codes.append(_evaluate(export, owner, arguments))
    return max(codes)


def _exports(path: Path) -> list[Path]:
    """The export that a path is, or those of the run that it is.

    Raises:
        LigoError: it is neither.
    """
    if (path / "config.json").is_file():
        found = [path]
    else:
        found = sorted(file.parent for file in path.glob(f"{EXPORTS_DIRECTORY}/*/config.json"))
    if not found:
        raise LigoError(
            f"evaluate: {path} is no export, which has a config.json, and no run with exports: {path}/"
            f"{EXPORTS_DIRECTORY}/STAGE"
        )
    for export in found:
        if "," in str(export):
            raise LigoError(f"evaluate: the harness takes no path with a comma, as {export} has; rename it")
    return found


def _evaluate(export: Path, owner: tuple[Path, str] | None, arguments: argparse.Namespace) -> int:
    """Evaluate one export: the harness's exit code, or that of `sync`."""
    print(f"{export}: {arguments.tasks}", flush=True)
    with tempfile.TemporaryDirectory(prefix="evaluate-") as directory:
        command = harness_command(
            export,
            Path(directory),
            arguments.tasks,
            include_path=arguments.include_path,
            num_fewshot=arguments.num_fewshot,
            limit=arguments.limit,
            batch_size=arguments.batch_size,
            device=arguments.device,
        )
        code = subprocess.run(command).returncode
        metrics = harness_results(Path(directory)) if code == FINISHED else None
    if metrics is None:
        print(f"ligo-dist: {export}: the harness ended with exit code {code}", file=sys.stderr)
        return FAILED
    if owner is None:
        print("  not recorded: this export lies in no run's directory", flush=True)
        return FINISHED
    run_dir, stage = owner
    add_evaluation(run_dir, stage, metrics)
    print(f"  recorded in {run_dir}: {', '.join(sorted(metrics))}", flush=True)
    state = read_state(run_dir)
    if state is None or state.address is None:
        return FINISHED
    return deliver([run_dir])
