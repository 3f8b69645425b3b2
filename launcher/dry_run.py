"""What `--dry-run` shows: the stages in numbers. It starts nothing and writes no file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from launcher.plan import StagePlan
from launcher.tables import print_whole
from ligo_dist import quantities
from ligo_dist.costs import PhaseCost

_WIDEST = 1000
_MUCH_PADDING = 0.25


def stage_table(plans: Sequence[StagePlan]) -> Table:
    """One row per stage, then the total. FLOPs are over all ranks, without evaluation; parameters count ties
    once."""
    table = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        caption="steps: learn + train. FLOPs: over all ranks, without evaluation.",
        caption_justify="left",
        show_footer=True,
    )
    total = sum((plan.cost.total for plan in plans), PhaseCost())
    names = ("stage", "method", "layers", "width", "heads (kv)", "ffn", "parameters", "steps", "tokens")
    footers = {"stage": "total", "steps": f"{total.steps:,}", "tokens": quantities.count(total.tokens)}
    for name in (*names, "learn FLOPs", "grow FLOPs", "train FLOPs"):
        table.add_column(name.replace(" ", "\n"), footers.get(name, ""), no_wrap=True, justify="right")
    table.columns[0].justify = table.columns[1].justify = "left"
    table.add_column("total\nFLOPs", quantities.flops(total.flops), no_wrap=True, justify="right")
    for plan in plans:
        table.add_row(*_row(plan))
    return table


def print_plan(plans: Sequence[StagePlan], file: TextIO | None = None) -> None:
    """Print the table, and what is to be said of each growth."""
    print_whole(stage_table(plans), file)
    console = Console(file=file, width=_WIDEST)
    for before, plan in pairwise(plans):
        console.print(_claim(before, plan), highlight=False, markup=False)
    padding = _padding(plans)
    if padding:
        console.print(padding, highlight=False, markup=False)


def _claim(before: StagePlan, plan: StagePlan) -> str:
    """Whether growing keeps the function, and why not."""
    if plan.obstacles:
        return f"{plan.name}: does not start as the function of {before.name}: {'; '.join(plan.obstacles)}"
    return f"{plan.name}: starts as the function of {before.name}, which the run verifies right after growing"


def _padding(plans: Sequence[StagePlan]) -> str | None:
    """The phases whose ranks compute much for nothing, if there are any."""
    phases = [
        f"{plan.name} {name} {cost.padding:.0%}"
        for plan in plans
        for name, cost in (("learn", plan.cost.learn), ("train", plan.cost.train))
        if cost is not None and cost.padding > _MUCH_PADDING
    ]
    if not phases:
        return None
    return f"batch_size does not divide over the ranks; what they compute for padding: {', '.join(phases)}"


def _row(plan: StagePlan) -> list[str]:
    shape = plan.shape
    cost = plan.cost
    steps = f"{cost.learn.steps:,} + {cost.train.steps:,}" if cost.learn else f"{cost.train.steps:,}"
    return [
        plan.name,
        plan.method or ("-" if plan.source is None else "from"),
        str(shape.layers),
        str(shape.width),
        f"{shape.heads} ({shape.key_value_heads})",
        str(shape.ffn),
        f"{plan.parameters:,}",
        steps,
        quantities.count(cost.total.tokens),
        *(
            quantities.flops(phase.flops) if phase else "-"
            for phase in (cost.learn, cost.grow, cost.train, cost.total)
        ),
    ]
