"""A run's curves from the records of its metrics file: losses against tokens and FLOPs, throughput over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ligo_dist.pictures.canvas import COLOURS, label, new_figure
from ligo_dist.tracking.jsonl import Record, record_metrics

Place = Callable[[Record], float | None]
"""Where a record lies on the horizontal axis; None: nowhere."""

_SHOWN_LOSSES = (
    ("train/loss", "training", COLOURS[0], {"linewidth": 0.9, "alpha": 0.6}),
    ("learn/loss", "learning the operator", COLOURS[1], {"linewidth": 0.9, "alpha": 0.8}),
    ("evaluate/loss", "validation", "black", {"linewidth": 0.9, "marker": "o", "markersize": 2.5}),
)
_SHOWN_THROUGHPUTS = (
    ("train/tokens_per_second", "training", COLOURS[0]),
    ("learn/tokens_per_second", "learning the operator", COLOURS[1]),
)
_GROWTH = "grow/seconds"
"""A metric that a growth's record has, and no other."""


def loss_figure(title: str, records: Sequence[Record]) -> Figure | None:
    """Training and validation loss against tokens and against FLOPs, growths marked; None where there is no loss."""
    if not any(name in record for record in records for name, *_ in _SHOWN_LOSSES):
        return None
    figure = new_figure(10.0, 4.2, title)
    panels = figure.subplots(1, 2, sharey=True)
    axes = (("cumulative/tokens", "tokens"), ("cumulative/flops", "FLOPs, learning and growing included"))
    for panel, (metric, name) in zip(panels, axes, strict=True):
        place = cumulative(metric)
        for loss, what, colour, style in _SHOWN_LOSSES:
            _draw(panel, curve(records, loss, place), label=what, color=colour, **style)
        _mark(panel, growths(records, place))
        label(panel, name, "loss" if panel is panels[0] else "")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    _legend(figure, panels[0])
    return figure


def throughput_figure(title: str, records: Sequence[Record]) -> Figure | None:
    """Tokens per second over time, growths marked; None where none was measured."""
    if not any(name in record for record in records for name, *_ in _SHOWN_THROUGHPUTS):
        return None
    place, unit = elapsed(records)
    figure = new_figure(7.0, 3.6, title)
    panel = figure.subplots()
    for metric, what, colour in _SHOWN_THROUGHPUTS:
        _draw(
            panel,
            curve(records, metric, place),
            label=what,
            color=colour,
            linewidth=0.9,
            marker=".",
            markersize=3,
        )
    _mark(panel, growths(records, place))
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(EngFormatter(sep=""))
    label(panel, f"{unit} since the run's first record", "tokens per second, all ranks")
    _legend(figure, panel)
    return figure


def curve(records: Sequence[Record], metric: str, place: Place) -> dict[str, tuple[list[float], list[float]]]:
    """A metric by stage, in the order of the run: where its points lie, and their values."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        at = place(record)
        if metric in record and at is not None:
            across, along = curves.setdefault(record["stage"], ([], []))
            across.append(at)
            along.append(record_metrics({metric: record[metric]})[metric])
    return curves


def growths(records: Sequence[Record], place: Place) -> dict[str, float]:
    """Where each stage that was grown begins to be trained, by its name."""
    marks = {record["stage"]: place(record) for record in records if _GROWTH in record}
    return {stage: at for stage, at in marks.items() if at is not None}


def cumulative(metric: str) -> Place:
    """By what the run had cost when a record was made."""
    return lambda record: float(record[metric]) if metric in record else None


def elapsed(records: Sequence[Record]) -> tuple[Place, str]:
    """By the time since the first record, and the unit it is told in."""
    times = [datetime.fromisoformat(record["time"]) for record in records]
    begin, seconds = times[0], (times[-1] - times[0]).total_seconds()
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= 2 * size or size == 1)
    return lambda record: (datetime.fromisoformat(record["time"]) - begin).total_seconds() / size, unit


_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


def _draw(panel: Axes, curves: dict[str, tuple[list[float], list[float]]], **style: Any) -> None:
    """One line for each stage, so that none leads from a stage to the next; one name in the legend for all."""
    for across, along in curves.values():
        panel.plot(across, along, **style)
        style["label"] = None


def _legend(figure: Figure, panel: Axes) -> None:
    """Below the panels, where it hides nothing."""
    handles, names = panel.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8, frameon=False)


def _mark(panel: Axes, marks: dict[str, float]) -> None:
    for stage, at in marks.items():
        panel.axvline(at, color="0.5", linestyle="--", linewidth=0.8)
        panel.text(
            at,
            0.98,
            f"{stage} ",
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
            color="0.35",
            transform=panel.get_xaxis_transform(),
        )
