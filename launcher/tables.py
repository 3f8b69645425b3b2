"""What the commands print as tables: stages and their costs, plans (docs/internals/accounting.md explains them line by
line), methods and families."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from ligo_dist.architectures import Architecture, Axis, ModelShape, architecture_names, get_architecture
from ligo_dist.corpus.cache import describe_prepared
from ligo_dist.growth.registry import DEPTHS, METHODS, WIDTHS, Entry  # noqa: TID251 - names alone: no torch
from ligo_dist.planning import SECONDS_PER_BLOCK, BreakEven, Forecast, PhaseEstimate
from ligo_dist.runtime import quantities
from ligo_dist.schedule.plan import Plan, StagePlan

_WIDEST = 1000


def print_whole(table: Table, file: TextIO | None = None) -> None:
    """Print a table as wide as it is: a number cut short says nothing."""
    width = Console(file=file, width=_WIDEST).measure(table).maximum
    Console(file=file, width=width, markup=False).print(table)


_SCOPES = {"model": "whole model", "layer": "each layer", "fixed": "never grows"}


def print_architectures() -> None:
    """All families of the package, with their axes by the scope of their operators."""
    table = _listing("family", "model class", "objective", *(f"axes: {words}" for words in _SCOPES.values()))
    for name in architecture_names():
        architecture = get_architecture(name)
        axes = [_axes_of_scope(architecture, scope) for scope in _SCOPES]
        table.add_row(name, architecture.model_class, architecture.objective, *axes)
    _print(table)
    print("(heads): whole heads are mixed. More of one family: ligo-dist architectures NAME")


def print_architecture(name: str) -> None:
    """One family: its axes, and the table of its parameters.

    Raises:
        ArchitectureError: for a family that is not known, or `module:NAME` that is none.
    """
    architecture = get_architecture(name)
    print(f"{architecture.name}: {architecture.model_class}, {architecture.objective}")
    axes = _listing("axis", "operator for", "it mixes", "remarks")
    for axis in architecture.axes.values():
        mixes = "-" if axis.scope == "fixed" else {"element": "elements", "head": "whole heads"}[axis.unit]
        axes.add_row(axis.name, _SCOPES[axis.scope], mixes, ", ".join(_remarks(axis)))
    _print(axes)
    parameters = _listing("parameter", "axes of its dims")
    for role, line in architecture.table(_any_shape(architecture)).items():
        parameters.add_row(role, line)
    _print(parameters)


def print_methods() -> None:
    """The methods, then what `grow.depth` and `grow.width` may name."""
    methods = _listing("method", "depth", "width", "what it does", "keeps the function", "source")
    for name, method in METHODS.items():
        depth, width = method.depth or "-", method.width or "-"
        methods.add_row(name, depth, width, method.description, method.preserves, method.source)
    _print(methods)
    _print(_ways("depth", DEPTHS))
    _print(_ways("width", WIDTHS))


def _ways(kind: str, entries: Mapping[str, Entry]) -> Table:
    table = _listing(kind, "what it does", "keeps the function", "source")
    for name, entry in entries.items():
        table.add_row(name, entry.description, entry.preserves, entry.source)
    return table


def _axes_of_scope(architecture: Architecture, scope: str) -> str:
    axes = [axis for axis in architecture.axes.values() if axis.scope == scope]
    return ", ".join(f"{axis.name} (heads)" if axis.unit == "head" else axis.name for axis in axes)


def _remarks(axis: Axis) -> list[str]:
    remarks = [f"{axis.lifted_from}, repeated per query head"] if axis.lifted_from else []
    remarks += ["ordered by key/value group"] if axis.grouped else []
    return remarks + (["acted on element by element"] if axis.elementwise else [])


def _any_shape(architecture: Architecture) -> ModelShape:
    """The lines of a table depend on no size, only on whether the head is tied."""
    return ModelShape(1, 1, 1, 1, 1, tied=architecture.tied_by_default)


def _listing(*names: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for index, name in enumerate(names):
        table.add_column(name, no_wrap=index == 0, overflow="fold")
    return table


def _print(table: Table) -> None:
    """On a terminal as wide as that is; elsewhere, where lines are searched, as wide as the table is."""
    Console(width=None if sys.stdout.isatty() else _WIDEST, markup=False).print(table)


_KINDS = ("parameters", "gradients", "optimizer", "activations", "gathered", "buffers", "total")


def print_forecast(name: str, forecast: Forecast, file: TextIO | None = None) -> None:
    """Print all tables of one configuration, as wide as they are: a number cut short says nothing."""
    console = Console(file=file, width=_WIDEST, highlight=False, markup=False)
    console.print(_heading(name, forecast))
    for table in (_work(forecast), _memory(forecast), _communication(forecast)):
        print_whole(table, file)
    for line in (*_fit(forecast), *map(_break_even, forecast.break_evens())):
        console.print(line)
    console.print()


def _heading(name: str, forecast: Forecast) -> str:
    setting, gpu = forecast.setting, forecast.gpu
    ranks = f"{setting.ranks:,} rank{'s' if setting.ranks > 1 else ''}"
    memory, bandwidth = gpu.memory / 1e9, gpu.bandwidth(setting.ranks) / 1e9
    figures = f"{gpu.peak(setting) / 1e12:,.6g} TFLOPS, {memory:,.6g} GB, {bandwidth:,.6g} GB/s"
    precision = "bf16" if setting.number == 2 else "fp32"
    reached = f"HFU {forecast.hfu:.0%}" if forecast.mfu is None else f"MFU {forecast.mfu:.0%}"
    return f"{name}: {ranks} of {gpu.name} ({figures}), {precision}, {reached}"


def _work(forecast: Forecast) -> Table:
    table = _table(
        "parameters, FLOPs and time",
        ("stage", "phase"),
        (
            *("source", "operator", "target", "steps", "tokens", "FLOPs", "hardware FLOPs"),
            *("computing a step", "sending", "time"),
        ),
        "FLOPs: over all ranks, without evaluation; hardware: with what is recomputed. time: steps x the slowest of"
        f" computing, sending, and {_seconds(SECONDS_PER_BLOCK)} for each block that a rank runs.",
    )
    for stage, phase in _phases(forecast):
        took = forecast.duration(phase)
        counts = (f"{count:,}" if count else "-" for count in (phase.source, phase.operator, phase.target))
        cost = phase.cost
        table.add_row(
            stage,
            phase.kind,
            *counts,
            f"{cost.steps:,}" if cost.steps else "-",
            quantities.count(cost.tokens) if cost.tokens else "-",
            quantities.flops(cost.flops),
            quantities.flops(cost.hardware_flops),
            _seconds(took.computing),
            _seconds(took.sending),
            quantities.duration(took.total),
        )
    return table


def _memory(forecast: Forecast) -> Table:
    table = _table(
        "memory of a rank at its peak",
        ("stage", "phase"),
        (*_KINDS, "peak at", "fits on"),
        "gathered: weights that are whole, or generated. buffers: copies on their way to a checkpoint or an engine."
        " fits on: the smallest number of ranks.",
    )
    fewest = iter([ranks for stage in forecast.fewest_ranks() for ranks in stage])
    for stage, phase in _phases(forecast):
        sizes = (getattr(phase.peak, kind) for kind in _KINDS)
        ranks = next(fewest)
        table.add_row(
            stage,
            phase.kind,
            *(quantities.size(size) if size else "-" for size in sizes),
            phase.peak.point,
            f"{ranks:,}" if ranks else "none",
        )
    return table


def _communication(forecast: Forecast) -> Table:
    table = _table(
        "communication of an optimizer step (of growing: of all of it), and disk",
        ("stage", "phase"),
        ("all-gather", "reduce-scatter", "all-reduce", "sent by a rank", "checkpoint", "export"),
        "bytes of the collectives' whole tensors; of these a rank sends (N - 1) / N, and receives as much.",
    )
    exports = {stage.name: stage.export for stage in forecast.stages}
    for stage, phase in _phases(forecast):
        traffic = phase.traffic
        parts = (traffic.all_gather, traffic.reduce_scatter, traffic.all_reduce)
        export = exports[stage] if phase.kind == "train" else 0
        table.add_row(
            stage,
            phase.kind,
            *(
                quantities.size(size) if size else "-"
                for size in (*parts, traffic.sent(forecast.setting.ranks), phase.checkpoint, export)
            ),
        )
    return table


def _fit(forecast: Forecast) -> Iterator[str]:
    fewest, ranks, gpu = forecast.fewest, forecast.setting.ranks, forecast.gpu
    room = f"{quantities.size(gpu.usable)} of the {quantities.size(gpu.memory)} of {gpu.name}"
    if fewest is None:
        yield (
            f"does not fit in {room}, on no number of ranks up to the samples of a batch, {forecast.most_ranks:,}:"
            " smaller micro-batches or activation checkpointing would help"
        )
    elif forecast.fits:
        yield f"fits on {_ranks(ranks)}, in {room}" + (
            "" if fewest == ranks else f"; on {_ranks(fewest)} too"
        )
    else:
        yield f"does not fit on {_ranks(ranks)}, in {room}: it takes {fewest:,}"
    mfu, hfu = forecast.utilisation()
    yield (
        f"time of all phases: {quantities.duration(forecast.seconds)}, without evaluations and checkpoints; of the peak"
        f" are reached {100 * mfu:.2g} % (MFU), {100 * hfu:.2g} % (HFU)"
    )
    if forecast.setting.zero3.offloads:
        yield "what deepspeed.zero_optimization offloads is counted as if it stayed on the accelerator"


def _break_even(stage: BreakEven) -> str:
    return (
        f"{stage.stage}: all stages so far cost {quantities.flops(stage.so_far)} FLOPs, as"
        f" {stage.scratch_steps:,.0f} steps from scratch do; it trains {stage.train_steps:,}, so growing pays if"
        f" the same loss took scratch more than {stage.scratch_steps / stage.train_steps:.2f} times as many"
    )


def _ranks(number: int) -> str:
    return "one rank" if number == 1 else f"{number:,} ranks"


def _phases(forecast: Forecast) -> Iterator[tuple[str, PhaseEstimate]]:
    return ((stage.name, phase) for stage in forecast.stages for phase in stage.phases)


def _seconds(value: float) -> str:
    if not value:
        return "-"
    return f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...], caption: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        caption=caption,
        caption_justify="left",
    )
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, no_wrap=True, justify="right")
    return table


_MUCH_PADDING = 0.25


def stage_table(plan: Plan) -> Table:
    """One row per stage, then the total. FLOPs are over all ranks, without evaluation and recomputation;
    parameters count ties once."""
    table = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        caption="steps: learn + train. FLOPs: over all ranks, without evaluation and recomputation.",
        caption_justify="left",
        show_footer=True,
    )
    total = plan.cost
    names = ("stage", "method", "layers", "width", "heads (kv)", "ffn", "parameters", "steps", "tokens")
    footers = {"stage": "total", "steps": f"{total.steps:,}", "tokens": quantities.count(total.tokens)}
    for name in (*names, "learn FLOPs", "grow FLOPs", "train FLOPs"):
        table.add_column(name.replace(" ", "\n"), footers.get(name, ""), no_wrap=True, justify="right")
    table.columns[0].justify = table.columns[1].justify = "left"
    table.add_column("total\nFLOPs", quantities.flops(total.flops), no_wrap=True, justify="right")
    for stage in plan.stages:
        table.add_row(*_row(stage))
    return table


def print_plan(plan: Plan, file: TextIO | None = None) -> None:
    """Print the table, and what is to be said of each growth."""
    print_whole(stage_table(plan), file)
    console = Console(file=file, width=_WIDEST)
    console.print(describe_prepared(plan.config, plan.samples), highlight=False, markup=False)
    for note in plan.source_notes:
        console.print(f"stages[0].from: {note}", highlight=False, markup=False)
    for before, stage in pairwise(plan.stages):
        console.print(_claim(before, stage), highlight=False, markup=False)
    padding = _padding(plan)
    if padding:
        console.print(padding, highlight=False, markup=False)


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


def _padding(plan: Plan) -> str | None:
    """The phases whose ranks compute much for nothing, if there are any."""
    phases = [
        f"{stage.name} {name} {cost.padding:.0%}"
        for stage in plan.stages
        for name, cost in (("learn", stage.cost.learn), ("train", stage.cost.train))
        if cost is not None and cost.padding > _MUCH_PADDING
    ]
    if not phases:
        return None
    return f"batch_size does not divide over the ranks; what they compute for padding: {', '.join(phases)}"


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
