"""What a comparison will run, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from launcher.comparison.runs import ComparedRun
from launcher.plan import plan_stages
from launcher.tables import print_whole
from ligo_dist import quantities
from ligo_dist.costs import PhaseCost


@dataclass(frozen=True)
class PlannedRun:
    """A run and what its phases cost over all ranks."""

    run: ComparedRun
    learn: PhaseCost
    grow: PhaseCost
    train: PhaseCost

    @property
    def flops(self) -> int:
        return (self.learn + self.grow + self.train).flops


def plan_runs(runs: Sequence[ComparedRun], vocabulary: int, world_size: int) -> list[PlannedRun]:
    """What each run costs; `vocabulary` is the tokenizer's number of pieces, 0 for images."""
    planned = []
    for run in runs:
        costs = [stage.cost for stage in plan_stages(run.config, vocabulary, world_size)]
        planned.append(
            PlannedRun(
                run,
                learn=sum((cost.learn for cost in costs if cost.learn), PhaseCost()),
                grow=sum((cost.grow for cost in costs if cost.grow), PhaseCost()),
                train=sum((cost.train for cost in costs), PhaseCost()),
            )
        )
    return planned


def print_runs(planned: Sequence[PlannedRun], baseline: str) -> None:
    """One row per run, in the order in which they run."""
    of_baseline = next(one.flops for one in planned if one.run.method == baseline)
    table = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        caption="FLOPs: over all ranks, without evaluation.",
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
        phases = (one.learn, one.grow, one.train)
        table.add_row(
            one.run.name,
            *(f"{phase.steps:,}" if phase.steps else "-" for phase in (one.learn, one.train)),
            *(quantities.flops(phase.flops) if phase.flops else "-" for phase in phases),
            quantities.flops(one.flops),
            f"{one.flops / of_baseline:.0%}",
            f"{one.run.directory}{' (has finished)' if one.run.has_finished else ''}",
        )
    print_whole(table)
