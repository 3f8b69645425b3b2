"""What can be said of a comparison before any of its runs starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.comparison.runs import ComparedRun
from launcher.tables import cost_table, print_whole
from ligo_dist.config import changes, check_world_size, load_config
from ligo_dist.runtime import quantities
from ligo_dist.runtime.errors import ConfigError, Fault, LigoError
from ligo_dist.runtime.redaction import holds_secret
from ligo_dist.schedule import PhaseCost, Plan
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


def print_runs(planned: Sequence[tuple[ComparedRun, Plan]], baseline: str) -> None:
    """One row per run, in the order in which they run; each comes with its plan."""
    of_baseline = next(plan.cost.flops for run, plan in planned if run.method == baseline)
    names = ("learn\nsteps", "train\nsteps", "learn\nFLOPs", "grow\nFLOPs", "train\nFLOPs")
    numbers = {
        **dict.fromkeys(names, ""),
        "total\nFLOPs": quantities.flops(sum(plan.cost.flops for _, plan in planned)),
        f"of {baseline}'s": "",
    }
    table = cost_table(("run",), numbers, "FLOPs: over all ranks, without evaluation and recomputation.")
    table.add_column("directory", no_wrap=True)
    for run, plan in planned:
        learn, _, train = phases = _phases(plan)
        table.add_row(
            run.name,
            *(f"{phase.steps:,}" if phase.steps else "-" for phase in (learn, train)),
            *(quantities.flops(phase.flops) if phase.flops else "-" for phase in phases),
            quantities.flops(plan.cost.flops),
            f"{plan.cost.flops / of_baseline:.0%}",
            f"{run.directory}{' (has finished)' if run.has_finished else ''}",
        )
    print_whole(table)


def _phases(plan: Plan) -> tuple[PhaseCost, PhaseCost, PhaseCost]:
    """What learning, growing and training cost, over all stages and ranks."""
    costs = [stage.cost for stage in plan.stages]
    return (
        sum((cost.learn for cost in costs if cost.learn), PhaseCost()),
        sum((cost.grow for cost in costs if cost.grow), PhaseCost()),
        sum((cost.train for cost in costs), PhaseCost()),
    )


def _faults(run: ComparedRun, world_size: int) -> list[Fault]:
    """What is wrong with a run by itself."""
    faults = [Fault(run.name, str(fault)) for fault in check_world_size(run.config, world_size)]
    if holds_secret(run.text):
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
