"""What a comparison will run, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from launcher.comparison.runs import ComparedRun
from launcher.tables import print_whole
from ligo_dist.runtime import quantities
from ligo_dist.schedule.costs import PhaseCost
from ligo_dist.schedule.plan import Plan


def print_runs(planned: Sequence[tuple[ComparedRun, Plan]], baseline: str) -> None:
    """One row per run, in the order in which they run; each comes with its plan."""
    of_baseline = next(plan.cost.flops for run, plan in planned if run.method == baseline)
    table = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        caption="FLOPs: over all ranks, without evaluation and recomputation.",
        caption_justify="left",
        show_footer=True,
    )
    table.add_column("run", "total", no_wrap=True)
    for name in ("learn steps", "train steps", "learn FLOPs", "grow FLOPs", "train FLOPs"):
        table.add_column(name.replace(" ", "\n"), no_wrap=True, justify="right")
    total = quantities.flops(sum(plan.cost.flops for _, plan in planned))
    table.add_column("total\nFLOPs", total, no_wrap=True, justify="right")
    table.add_column(f"of {baseline}'s", no_wrap=True, justify="right")
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
