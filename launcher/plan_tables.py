"""What `ligo-dist plan` prints: `docs/accounting.md` explains it line by line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from launcher.tables import print_whole
from ligo_dist import quantities
from ligo_dist.planning import Forecast, PhaseEstimate, Saving

_WIDEST = 1000
_KINDS = ("parameters", "gradients", "optimizer", "activations", "whole", "copies", "total")


def print_forecast(name: str, forecast: Forecast, file: TextIO | None = None) -> None:
    """Print all tables of one configuration, as wide as they are: a number cut short says nothing."""
    console = Console(file=file, width=_WIDEST, highlight=False, markup=False)
    console.print(_heading(name, forecast))
    for table in (_work(forecast), _memory(forecast), _communication(forecast)):
        print_whole(table, file)
    for line in (*_fit(forecast), *_saved(forecast)):
        console.print(line)
    console.print()


def _heading(name: str, forecast: Forecast) -> str:
    setting, gpu = forecast.setting, forecast.gpu
    ranks = f"{setting.ranks:,} rank{'s' if setting.ranks > 1 else ''}"
    memory, bandwidth = gpu.memory / 1e9, gpu.bandwidth(setting.ranks) / 1e9
    figures = f"{gpu.flops / 1e12:,.6g} TFLOPS, {memory:,.6g} GB, {bandwidth:,.6g} GB/s"
    precision = "bf16" if setting.number == 2 else "fp32"
    return f"{name}: {ranks} of {gpu.name} ({figures}), {precision}, utilisation {forecast.utilisation:.0%}"


def _work(forecast: Forecast) -> Table:
    table = _table(
        "parameters, FLOPs and time",
        ("stage", "phase"),
        ("source", "operator", "target", "steps", "tokens", "FLOPs", "computing a step", "sending", "time"),
        "FLOPs: over all ranks, without evaluation. time: steps x the slower of computing and sending.",
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
            _seconds(took.computing),
            _seconds(took.sending),
            quantities.duration(took.total),
        )
    return table


def _memory(forecast: Forecast) -> Table:
    table = _table(
        "memory of a rank at its fullest",
        ("stage", "phase"),
        (*_KINDS, "fullest at", "fits on"),
        "whole: weights gathered or generated. copies: on their way to a checkpoint or an engine. fits on: the"
        " smallest number of ranks.",
    )
    fewest = iter([ranks for stage in forecast.fewest_ranks() for ranks in stage])
    for stage, phase in _phases(forecast):
        sizes = (getattr(phase.fullest, kind) for kind in _KINDS)
        ranks = next(fewest)
        table.add_row(
            stage,
            phase.kind,
            *(quantities.size(size) if size else "-" for size in sizes),
            phase.fullest.moment,
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
    fewest = [ranks for stage in forecast.fewest_ranks() for ranks in stage]
    gpu = forecast.gpu
    room = f"{quantities.size(gpu.usable)} of the {quantities.size(gpu.memory)} of {gpu.name}"
    if None in fewest:
        yield f"fits on no number of ranks in {room}: smaller micro-batches or activation checkpointing would help"
    elif fewest:
        most = max(ranks for ranks in fewest if ranks)
        yield f"fits on {'one rank' if most == 1 else f'{most:,} ranks'}, in {room}"
    yield f"time of all phases: {quantities.duration(forecast.seconds)}, without evaluations and checkpoints"
    if forecast.setting.zero3.offloads:
        yield "what deepspeed.zero_optimization offloads is counted as if it stayed on the accelerator"


def _saved(forecast: Forecast) -> Iterator[str]:
    part, ground = forecast.assumed
    for saving in forecast.savings():
        yield _break_even(saving)
        yield (
            f"  assumed that the stage itself saves {quantities.percent(part)} of training from scratch ({ground}):"
            f" scratch takes {quantities.flops(saving.scratch)} FLOPs, and the whole schedule"
            f" {_more_or_less(saving.with_sources)}"
        )


def _break_even(saving: Saving) -> str:
    return (
        f"{saving.stage}: all stages so far cost {quantities.flops(saving.so_far)} FLOPs, as"
        f" {saving.scratch_steps:,.0f} steps from scratch do; it trains {saving.train_steps:,}, so growing pays if"
        f" the same loss took scratch more than {saving.scratch_steps / saving.train_steps:.2f} times as many"
    )


def _more_or_less(part: float) -> str:
    return f"{quantities.percent(abs(part))} {'less' if part >= 0 else 'more'}"


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
