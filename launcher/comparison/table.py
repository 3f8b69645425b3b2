"""What a comparison will run, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from launcher.comparison.runs import ComparedRun
from launcher.tables import print_whole
from ligo_dist.runtime import quantities
from ligo_dist.schedule.costs import PhaseCost
from ligo_dist.schedule.plan import Plan


@dataclass(frozen=True)
class PlannedRun:
    """A run of a comparison with its plan."""

    run: ComparedRun
    plan: Plan

    @property
    def phases(self) -> tuple[PhaseCost, PhaseCost, PhaseCost]:
        """What learning, growing and training cost, over all stages and ranks."""
        costs = [stage.cost for stage in self.plan.stages]
        return (
            sum((cost.learn for cost in costs if cost.learn), PhaseCost()),
            sum((cost.grow for cost in costs if cost.grow), PhaseCost()),
            sum((cost.train for cost in costs), PhaseCost()),
        )

    @property
    def flops(self) -> int:
        return self.plan.cost.flops

    @property
    def hardware_flops(self) -> int:
        """What takes time: those that are recomputed too."""
        return self.plan.cost.hardware_flops


def plan_runs(runs: Sequence[ComparedRun], pieces: int, world_size: int) -> list[PlannedRun]:
    """The runs with their plans; `pieces` is the tokenizer's number of pieces, 0 for images."""
    return [PlannedRun(run, Plan.of(run.config, pieces, world_size)) for run in runs]


def print_runs(planned: Sequence[PlannedRun], baseline: str) -> None:
    """One row per run, in the order in which they run."""
    of_baseline = next(one.flops for one in planned if one.run.method == baseline)
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
    total = quantities.flops(sum(one.flops for one in planned))
    table.add_column("total\nFLOPs", total, no_wrap=True, justify="right")
    table.add_column(f"of {baseline}'s", no_wrap=True, justify="right")
    table.add_column("directory", no_wrap=True)
    for one in planned:
        learn, _, train = phases = one.phases
        table.add_row(
            one.run.name,
            *(f"{phase.steps:,}" if phase.steps else "-" for phase in (learn, train)),
            *(quantities.flops(phase.flops) if phase.flops else "-" for phase in phases),
            quantities.flops(one.flops),
            f"{one.flops / of_baseline:.0%}",
            f"{one.run.directory}{' (has finished)' if one.run.has_finished else ''}",
        )
    print_whole(table)
