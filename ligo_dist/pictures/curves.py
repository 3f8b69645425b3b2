"""Loss against tokens and FLOPs over the stages of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ligo_dist.tracking.record import Record, record_metrics

DOTS_PER_INCH = 100
COLOURS = ("#1f4e9c", "#d1622b", "#2f8f5b", "#7a4fa3")
"""Told apart by those who see colours differently too."""

_SMALL, _NORMAL = 8, 9
_MOST_TICKS = 8
_MOST_COLUMNS = 4
_LEAST_WIDTH = 5.5
"""Inches that a title needs."""
_LEFT, _TOP, _BOTTOM = 0.7, 0.55, 0.7
"""Inches around the panels of a grid."""


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of a size in inches, which fits its panels into it when it is drawn."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=_NORMAL + 1)
    return figure


def new_grid(
    title: str, panels: Sequence[str], width: float, height: float, *, right: float
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of some names, up to four beside each other. All lengths are in inches.

    The places are computed here: for dozens of panels that takes half the time of having them fitted.

    Args:
        title: of the whole.
        panels: their names.
        width, height: of a panel, at least.
        right: room beside the panels, which have the same axes, numbered on the left and below only.
    """
    columns = min(_MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    across, down = 0.2, 0.3
    around = _LEFT + right + (columns - 1) * across
    width = max(width, (_LEAST_WIDTH - around) / columns)
    whole_width, whole_height = around + columns * width, _TOP + _BOTTOM + rows * height + (rows - 1) * down
    figure = Figure(figsize=(whole_width, whole_height), dpi=DOTS_PER_INCH)
    figure.suptitle(title, fontsize=_NORMAL + 1, y=1 - 0.1 / whole_height, va="top")
    grid = figure.add_gridspec(
        rows,
        columns,
        left=_LEFT / whole_width,
        right=1 - right / whole_width,
        bottom=_BOTTOM / whole_height,
        top=1 - _TOP / whole_height,
        wspace=across / width,
        hspace=down / height,
    )
    axes = [figure.add_subplot(grid[index // columns, index % columns]) for index in range(len(panels))]
    for index, (panel, name) in enumerate(zip(axes, panels, strict=True)):
        panel.set_title(name, fontsize=_SMALL - 1, pad=3)
        panel.tick_params(labelsize=_SMALL - 1)
        panel.tick_params(labelleft=index % columns == 0, labelbottom=index + columns >= len(panels))
    return figure, axes


def label(axes: Axes, across: str, along: str) -> None:
    """Name the axes of a panel that stands for itself, and make its numbers readable."""
    axes.set_xlabel(across, fontsize=_NORMAL)
    axes.set_ylabel(along, fontsize=_NORMAL)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(alpha=0.25, linewidth=0.6)


def label_grid(figure: Figure, across: str, along: str) -> None:
    """Name the axes of all panels of a grid at once."""
    width, height = figure.get_size_inches()
    figure.supxlabel(across, fontsize=_NORMAL, y=0.1 / height, va="bottom")
    figure.supylabel(along, fontsize=_NORMAL, x=0.1 / width, ha="left")


def layer_ticks(layers: int) -> range:
    """The layers to number: all of a few, every so many of more."""
    return range(0, layers, max(1, -(-layers // _MOST_TICKS)))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})


Place = Callable[[Record], float | None]
"""Where a record lies on the horizontal axis; None: nowhere."""

_SHOWN_LOSSES = (
    ("train/loss", "training", COLOURS[0], {"linewidth": 0.9, "alpha": 0.6}),
    ("learn/loss", "learning the operator", COLOURS[1], {"linewidth": 0.9, "alpha": 0.8}),
    (
        "evaluate/loss",
        "validation",
        "black",
        {"linewidth": 0.9, "marker": "o", "markersize": 2.5, "markevery": 1},
    ),
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


def _draw(panel: Axes, curves: dict[str, tuple[list[float], list[float]]], **style: Any) -> None:
    """One line for each stage, so that none leads from a stage to the next; one name in the legend for all."""
    for across, along in curves.values():
        # What no line leads to would not be seen.
        panel.plot(across, along, **{"marker": ".", "markevery": _isolated(along), **style})
        style["label"] = None


def _isolated(values: Sequence[float]) -> list[int]:
    """Which of the values have no finite neighbour."""
    finite = [False, *map(math.isfinite, values), False]
    return [index for index in range(len(values)) if not finite[index] and not finite[index + 2]]


def _legend(figure: Figure, panel: Axes) -> None:
    """Below the panels, where it hides nothing."""
    handles, names = panel.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8, frameon=False)


def _mark(panel: Axes, marks: dict[str, float]) -> None:
    """A line where each stage begins, its name above the panel, where it covers nothing."""
    for stage, at in marks.items():
        panel.axvline(at, color="0.5", linestyle="--", linewidth=0.8)
        panel.text(
            at,
            1.01,
            stage,
            rotation=30,
            rotation_mode="anchor",
            ha="left",
            va="bottom",
            fontsize=8,
            color="0.35",
            transform=panel.get_xaxis_transform(),
        )
