"""What the commands print as tables: stages and their costs, and plans.

docs/internals/accounting.md explains those of plans line by line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from ligo_dist.corpus import describe_prepared
from ligo_dist.planning import SECONDS_PER_BLOCK, Forecast, export_bytes
from ligo_dist.runtime import quantities
from ligo_dist.runtime.zero3 import Zero3
from ligo_dist.schedule import TRAIN, Plan, StagePlan

_WIDEST = 1000


def print_whole(table: Table, file: TextIO | None = None) -> None:
    """Print a table as wide as it is: a number cut short says nothing."""
    width = Console(file=file, width=_WIDEST).measure(table).maximum
    Console(file=file, width=width, markup=False).print(table)


def listing(*names: str) -> Table:
    """A table of words, whose first column is never broken."""
    table = _plain()
    for index, name in enumerate(names):
        table.add_column(name, no_wrap=index == 0, overflow="fold")
    return table


def _plain(**more: Any) -> Table:
    """A table without lines between its rows and columns; `more` as in `rich.table.Table`."""
    return Table(box=box.SIMPLE, padding=(0, 1, 0, 0), caption_justify="left", **more)


def print_listing(table: Table) -> None:
    """On a terminal as wide as that is; elsewhere, where lines are searched, as wide as the table is."""
    Console(width=None if sys.stdout.isatty() else _WIDEST, markup=False).print(table)


def _print_lines(lines: Sequence[str], file: TextIO | None) -> None:
    console = Console(file=file, width=_WIDEST, highlight=False, markup=False)
    for line in lines:
        console.print(line)


_KINDS = ("parameters", "gradients", "optimizer", "activations", "gathered", "buffers", "total")


def print_forecast(name: str, forecast: Forecast, file: TextIO | None = None) -> None:
    """Print all tables of one configuration, as wide as they are: a number cut short says nothing."""
    _print_lines([_heading(name, forecast)], file)
    for table in (_work(forecast), _memory(forecast), _communication(forecast)):
        print_whole(table, file)
    plan = forecast.plan
    mixture = describe_prepared(plan.config, plan.samples_by_source) if plan.config.data.mixture else []
    _print_lines([*_fit(forecast), *_break_evens(forecast), *mixture, *_attention(plan), ""], file)


def _heading(name: str, forecast: Forecast) -> str:
    gpu, ranks, precision = forecast.gpu, forecast.plan.world_size, forecast.plan.config.precision
    memory, bandwidth = gpu.memory / 1e9, gpu.bandwidth(ranks) / 1e9
    figures = f"{gpu.peak(precision) / 1e12:,.6g} TFLOPS, {memory:,.6g} GB, {bandwidth:,.6g} GB/s"
    reached = f"HFU {forecast.hfu:.0%}" if forecast.mfu is None else f"MFU {forecast.mfu:.0%}"
    number = f"{ranks:,} rank{'s' if ranks > 1 else ''}"
    return f"{name}: {number} of {gpu.name} ({figures}), {precision}, {reached}"


def _work(forecast: Forecast) -> Table:
    table = _by_phase(
        "parameters, FLOPs and time",
        *("source", "operator", "target", "steps", "tokens", "FLOPs", "hardware FLOPs"),
        *("computing a step", "sending", "time"),
        caption="FLOPs: over all ranks, without evaluation; hardware: with what is recomputed. time: steps x the"
        f" slowest of computing, sending, and {_seconds(SECONDS_PER_BLOCK)} for each block that a rank runs.",
    )
    for phase in forecast.phases:
        took, cost = forecast.duration(phase), phase.cost
        table.add_row(
            phase.stage.name,
            phase.kind,
            *_cells("{:,}".format, phase.source, phase.operator, phase.stage.parameters, cost.steps),
            *_cells(quantities.count, cost.tokens),
            quantities.flops(cost.flops),
            quantities.flops(cost.hardware_flops),
            *_cells(_seconds, took.computing, took.sending),
            quantities.duration(took.total),
        )
    return table


def _memory(forecast: Forecast) -> Table:
    table = _by_phase(
        "memory of a rank at its peak",
        *(*_KINDS, "peak at", "fits on"),
        caption="gathered: weights that are whole, or generated. buffers: copies on their way to a checkpoint or an"
        " engine. fits on: the smallest number of ranks.",
    )
    for phase in forecast.phases:
        fewest = forecast.fewest_ranks([phase])
        sizes = _cells(quantities.size, *(getattr(phase.peak, kind) for kind in _KINDS))
        ranks = f"{fewest:,}" if fewest else "none"
        table.add_row(phase.stage.name, phase.kind, *sizes, phase.peak.point, ranks)
    return table


def _communication(forecast: Forecast) -> Table:
    collectives = ["all_gather", "reduce_scatter", "all_reduce"]
    caption = (
        "bytes of the collectives' whole tensors; of these a rank sends (N - 1) / N, and receives as much."
    )
    if any(phase.traffic.all_to_all for phase in forecast.phases):
        collectives.append("all_to_all")
        caption = caption.replace("sends (N - 1) / N", "sends (N - 1) / N, of an all-to-all an Nth of that")
    table = _by_phase(
        "communication of an optimizer step (of growing: of all of it), and disk",
        *(name.replace("_", "-") for name in collectives),
        *("sent by a rank", "checkpoint", "export"),
        caption=caption,
    )
    for phase in forecast.phases:
        traffic, export = phase.traffic, export_bytes(phase.stage) if phase.kind == TRAIN else 0
        parts = [getattr(traffic, name) for name in collectives]
        sizes = (*parts, traffic.sent(forecast.plan.world_size), phase.checkpoint, export)
        table.add_row(phase.stage.name, phase.kind, *_cells(quantities.size, *sizes))
    return table


def _cells(show: Callable[[Any], str], *values: float) -> list[str]:
    """Numbers as they are shown; a dash where there is nothing."""
    return [show(value) if value else "-" for value in values]


def _fit(forecast: Forecast) -> Iterator[str]:
    fewest, ranks, gpu = forecast.fewest, forecast.plan.world_size, forecast.gpu
    room = f"{quantities.size(gpu.usable)} of the {quantities.size(gpu.memory)} of {gpu.name}"
    if fewest is None:
        yield (
            f"does not fit in {room}, on no number of ranks up to the samples of a batch, {forecast.most_ranks:,}:"
            " smaller micro-batches or activation checkpointing would help"
        )
    elif forecast.fits:
        fewer = "" if fewest == ranks else f"; on {_ranks(fewest)} too"
        yield f"fits on {_ranks(ranks)}, in {room}{fewer}"
    else:
        yield f"does not fit on {_ranks(ranks)}, in {room}: it takes {fewest:,}"
    mfu, hfu = forecast.utilisation()
    yield (
        f"time of all phases: {quantities.duration(forecast.seconds)}, without evaluations and checkpoints; of the peak"
        f" are reached {100 * mfu:.2g} % (MFU), {100 * hfu:.2g} % (HFU)"
    )
    if Zero3.from_keys(forecast.plan.config.deepspeed).offloads:
        yield "what deepspeed.zero_optimization offloads is counted as if it stayed on the accelerator"


def _break_evens(forecast: Forecast) -> Iterator[str]:
    for stage, so_far, scratch in forecast.break_evens():
        steps = stage.train.steps
        yield (
            f"{stage.name}: all stages so far cost {quantities.flops(so_far)} FLOPs, as {scratch:,.0f} steps from"
            f" scratch do; it trains {steps:,}, so growing pays if the same loss took scratch more than"
            f" {scratch / steps:.2f} times as many"
        )


def _ranks(number: int) -> str:
    return "one rank" if number == 1 else f"{number:,} ranks"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def _by_phase(title: str, *columns: str, caption: str) -> Table:
    """A table with a row for each phase."""
    table = _plain(title=title, title_justify="left", caption=caption)
    for name in ("stage", "phase"):
        table.add_column(name, no_wrap=True)
    for name in columns:
        table.add_column(name, no_wrap=True, justify="right")
    return table


_MUCH_PADDING = 0.25


def _by_stage(plan: Plan) -> Table:
    """One row per stage, then the total. FLOPs are over all ranks, without evaluation and recomputation;
    parameters count ties once."""
    total = plan.cost
    sizes = ("layers", "width", "heads\n(kv)", "ffn", "parameters")
    numbers = {
        **dict.fromkeys(sizes, ""),
        "steps": f"{total.steps:,}",
        "tokens": quantities.count(total.tokens),
        **dict.fromkeys(("learn\nFLOPs", "grow\nFLOPs", "train\nFLOPs"), ""),
        "total\nFLOPs": quantities.flops(total.flops),
    }
    caption = "steps: learn + train. FLOPs: over all ranks, without evaluation and recomputation."
    table = cost_table(("stage", "method"), numbers, caption)
    for stage in plan.stages:
        table.add_row(*_row(stage))
    return table


def cost_table(words: Sequence[str], numbers: Mapping[str, str], caption: str) -> Table:
    """Columns of words, then columns of numbers, each with what stands in its last line, the total."""
    table = _plain(caption=caption, show_footer=True)
    for name in words:
        table.add_column(name, "total" if name == words[0] else "", no_wrap=True)
    for name, total in numbers.items():
        table.add_column(name, total, no_wrap=True, justify="right")
    return table


def print_plan(plan: Plan, file: TextIO | None = None) -> None:
    """Print the table, and what is to be said of each growth."""
    print_whole(_by_stage(plan), file)
    corpus = describe_prepared(plan.config, plan.samples_by_source)
    notes = [f"stages[0].from: {note}" for note in plan.source_notes]
    start = plan.config.start_from
    if start is not None:
        notes.append(f"begins from step {start.step} of {start.run}, whose steps until then are among these")
    claims = [_claim(before, stage) for before, stage in pairwise(plan.stages)]
    _print_lines([*corpus, *notes, *claims, *_padding(plan), *_attention(plan)], file)


def _attention(plan: Plan) -> list[str]:
    """What the FLOPs of attention are counted by, where documents are kept apart."""
    length = plan.config.data.sequence_length
    if not plan.config.data.separate_documents:
        return []
    if plan.attended is None:
        return [
            "data.separate_documents: the FLOPs are an upper bound, with attention over whole sequences, until the"
            " corpus is prepared and it is known how long its documents are"
        ]
    return [
        f"data.separate_documents: a token attends to {plan.attended / length:,.1f} of {length:,} on average"
    ]


def _claim(before: StagePlan, stage: StagePlan) -> str:
    """Whether growing keeps the function, and why not."""
    obstacles = [f"{_method(stage)!r} starts anew"] if stage.grow is None else stage.grow.obstacles
    if obstacles:
        return f"{stage.name}: does not start as the function of {before.name}: {'; '.join(obstacles)}"
    return (
        f"{stage.name}: starts as the function of {before.name}, which the run verifies right after growing"
    )


def _method(stage: StagePlan) -> str:
    """How its model is made: the method, with what replaces its own ways."""
    grow = stage.section.grow
    if grow is None:
        return "-" if stage.section.from_ is None else "from"
    return " + ".join(name for name in (grow.method, grow.depth, grow.width) if name is not None)


def _padding(plan: Plan) -> Iterator[str]:
    """The phases whose ranks compute much for nothing, if there are any."""
    phases = [
        f"{stage.name} {name} {cost.padding:.0%}"
        for stage in plan.stages
        for name, cost in (("learn", stage.cost.learn), ("train", stage.cost.train))
        if cost is not None and cost.padding > _MUCH_PADDING
    ]
    if phases:
        yield f"batch_size does not divide over the ranks; what they compute for padding: {', '.join(phases)}"


def _row(stage: StagePlan) -> list[str]:
    shape, cost = stage.shape, stage.cost
    steps = f"{cost.learn.steps:,} + {cost.train.steps:,}" if cost.learn else f"{cost.train.steps:,}"
    return [
        stage.name,
        _method(stage),
        str(shape.layers),
        str(shape.width),
        f"{shape.heads} ({shape.key_value_heads})",
        str(shape.ffn),
        f"{stage.parameters:,}",
        steps,
        quantities.count(cost.total.tokens),
        *(
            quantities.flops(phase.flops) if phase else "-"
            for phase in (cost.learn, cost.grow, cost.train, cost.total)
        ),
    ]
