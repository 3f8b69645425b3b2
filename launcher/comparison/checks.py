"""What can be said of a comparison before any of its runs starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.comparison.runs import ComparedRun
from ligo_dist.config import changes, check_world_size, load_config
from ligo_dist.config.yaml_text import dump_yaml
from ligo_dist.runtime.errors import ConfigError, Fault, LigoError
from ligo_dist.runtime.redaction import holds_secret
from ligo_dist.tracking import METRICS_FILE


def check_runs(runs: Sequence[ComparedRun], root: Path, world_size: int, origin: str) -> None:
    """Hold the runs against their number of ranks, and against what is in their directories.

    Args:
        runs: all of them.
        root: directory of the comparison.
        world_size: number of ranks.
        origin: what the runs were derived from; errors name it.

    Raises:
        LigoError: what does not fit, all of it.
    """
    faults = []
    if (root / METRICS_FILE).exists():
        wrong = f"{str(root)!r} holds a run; a comparison needs a directory of its own"
        faults.append(Fault("run_dir", wrong))
    for run in runs:
        if run.seed == runs[0].seed:  # the others are like them
            faults += _faults(run, world_size)
        changed = _changes(run)
        if changed:
            lines = "".join(f"\n    {line}" for line in changed)
            right = "compare with the old values, or in another run_dir"
            faults.append(Fault(str(run.directory), f"was made with another configuration; {right}{lines}"))
    if faults:
        raise ConfigError(faults, origin)


def run_text(run: ComparedRun) -> str:
    """The file of a run's configuration."""
    return f"# {run.name}: derived by `ligo-dist compare`\n" + dump_yaml(run.config.values())


def _faults(run: ComparedRun, world_size: int) -> list[Fault]:
    """What is wrong with a run by itself."""
    faults = [Fault(run.name, str(fault)) for fault in check_world_size(run.config, world_size)]
    if holds_secret(run_text(run)):
        wrong = "its configuration, which is written to a file, holds a password or token"
        faults.append(Fault(run.name, f"{wrong}; give it in the environment, as docs/tracking.md says"))
    return faults


def _changes(run: ComparedRun) -> list[str]:
    """How a run that has begun in this directory differs from the one that is to be there."""
    if not run.file.exists() or not run.directory.exists():
        return []
    try:
        old = load_config(run.file)
    except LigoError as error:
        return [str(error)]
    return changes(old.values(), run.config.values())
