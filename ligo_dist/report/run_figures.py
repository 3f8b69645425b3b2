"""The pictures of a run: how its losses fell, of which source layers a target layer is made, and how far learning moved
an operator's matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter
from torch import Tensor

from ligo_dist.growth import OperatorParameter
from ligo_dist.report.drawing import BLACK, COLOURS, legend_below, new_figure, plot, style
from ligo_dist.report.read import FLOPS, GROW_SECONDS, LOSS, TOKENS
from ligo_dist.tracking import Record

_LOSSES = (
    ("train/loss", "training", {"color": COLOURS[0], "linewidth": 0.9, "alpha": 0.6, "markersize": 3}),
    ("learn/loss", "learning the operator", {"color": COLOURS[1], "linewidth": 0.9, "markersize": 3}),
    (LOSS, "validation", {"color": BLACK, "linewidth": 0.9, "markersize": 2.5, "markevery": 1}),
)
_LEAST_MOVED = 0.01
"""The least height of the axis of distances: one percent."""
_MOST_TICKS, _MOST_COLUMNS = 8, 4
_LEAST_WIDTH = 5.5
"""Inches that a title needs."""


def loss_figure(title: str, records: Sequence[Record]) -> Figure | None:
    """Training and validation loss against tokens and against FLOPs, growths marked; None where there is no loss."""
    if not any(metric in record for record in records for metric, *_ in _LOSSES):
        return None
    figure = new_figure(10.0, 4.2, title)
    panels = figure.subplots(1, 2, sharey=True)
    axes = ((TOKENS, "tokens"), (FLOPS, "FLOPs, learning and growing included"))
    for panel, (place, name) in zip(panels, axes, strict=True):
        style(panel, name, "loss" if panel is panels[0] else "")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        for metric, label, look in _LOSSES:
            for across, along in curves(records, metric, place).values():
                plot(panel, across, along, label=label, **look)
                label = ""  # one name for the lines of all stages
        _mark(panel, growths(records, place))
    handles, _ = panels[0].get_legend_handles_labels()
    legend_below(figure, handles)
    return figure


def curves(records: Sequence[Record], metric: str, place: str) -> dict[str, tuple[list[float], list[float]]]:
    """A metric by stage, in the order of the run, so that no line leads from a stage to the next.

    Args:
        records: of the run.
        metric: its name.
        place: the metric that says where a record lies; one without it lies nowhere.

    Returns:
        Where the points of a stage lie, and their values.
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        if metric in record and place in record:
            across, along = found.setdefault(record["stage"], ([], []))
            across.append(float(record[place]))
            along.append(float(record[metric]))
    return found


def growths(records: Sequence[Record], place: str) -> dict[str, float]:
    """Where each stage that was grown begins to be trained, by its name."""
    return {
        record["stage"]: float(record[place])
        for record in records
        if GROW_SECONDS in record and place in record
    }


def _mark(panel: Axes, marks: Mapping[str, float]) -> None:
    """A line where each stage begins, its name above the panel, where it covers nothing."""
    for stage, at in marks.items():
        panel.axvline(at, color="0.5", linestyle="--", linewidth=0.8)
        panel.annotate(
            stage,
            (at, 1.01),
            xycoords=panel.get_xaxis_transform(),
            rotation=30,
            rotation_mode="anchor",
            fontsize=8,
            color="0.35",
        )


def heat_maps(
    title: str, matrices: Mapping[str, Tensor], columns: Sequence[str], *, least: float = 0.0
) -> Figure:
    """One heat map for each role, up to four beside each other, all with one scale of colours, whose middle is zero.

    Args:
        title: of the whole.
        matrices: target layers x columns, by role.
        columns: their names; those of the source's layers are numbers.
        least: what the scale reaches to at least, so that next to nothing does not look like much.
    """
    layers = len(next(iter(matrices.values())))
    across = min(_MOST_COLUMNS, len(matrices))
    down = math.ceil(len(matrices) / across)
    width, height = 1.6 + across * (0.2 + _inches(len(columns))), 1.3 + down * (0.3 + _inches(layers))
    figure = new_figure(max(width, _LEAST_WIDTH), height, title)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    largest = max(least, *(float(matrix.abs().max()) for matrix in matrices.values())) or 1.0
    for panel, (role, matrix) in zip(grid.flat, matrices.items(), strict=False):
        panel.set_title(role, fontsize=7, pad=3)
        image = panel.imshow(
            matrix.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest"
        )
        _name_cells(panel, layers, columns)
    for panel in grid.flat[len(matrices) :]:
        panel.remove()
    for panel in grid.flat[len(matrices) - across : len(matrices)]:
        panel.tick_params(labelbottom=True)
    figure.colorbar(image, ax=figure.axes, aspect=30).ax.tick_params(labelsize=7)
    figure.supxlabel("source layer", fontsize=9)
    figure.supylabel("target layer", fontsize=9)
    return figure


def _inches(cells: int) -> float:
    return min(max(0.3 * cells, 1.9), 2.6)


def _name_cells(panel: Axes, layers: int, columns: Sequence[str]) -> None:
    """Number as many layers as have room; of what is no layer of the source, name the first and the last."""
    numbered = sum(name.isdecimal() for name in columns)
    others = range(numbered, len(columns))
    shown = [*layer_ticks(numbered), *sorted({*others[:1], *others[-1:]})]
    panel.set_yticks(layer_ticks(layers))
    panel.set_xticks(shown, [columns[index] for index in shown])
    panel.tick_params(labelsize=7)
    for text in panel.get_xticklabels():
        text.set_rotation(0 if text.get_text().isdecimal() else 90)


def layer_ticks(layers: int) -> range:
    """The layers to number: all of a few, every so many of more."""
    return range(0, layers, max(1, -(-layers // _MOST_TICKS)))


def moved_figure(title: str, moved: Mapping[OperatorParameter, float]) -> Figure:
    """How far each kind of matrix moved from its start, over the target's layers; whole-model ones as level lines."""
    figure = new_figure(7.0, 3.6, title)
    axes = figure.subplots()
    style(axes, "target layer", "|B - B at the start| / |B at the start|")
    layers = 1 + max(parameter.layer or 0 for parameter in moved)
    ends = (-0.5, layers - 0.5)
    own: dict[str, dict[int, float]] = {}
    shared: dict[str, float] = {}
    for parameter, distance in moved.items():
        kind = f"{parameter.axis}.{parameter.side}"
        if parameter.layer is None:
            shared[kind] = distance
        else:
            own.setdefault(kind, {})[parameter.layer] = distance
    axes.set_prop_cycle(color=COLOURS)
    for kind, by_layer in own.items():
        axes.plot(*zip(*by_layer.items(), strict=True), marker="o", markersize=3, linewidth=1.2, label=kind)
    axes.set_prop_cycle(color=COLOURS)
    for kind, distance in shared.items():
        axes.plot(ends, [distance] * 2, linestyle="--", linewidth=1, label=f"{kind}, all layers")
    axes.set_xlim(ends)
    axes.set_ylim(0, max(_LEAST_MOVED, 1.05 * max(moved.values())))
    axes.set_xticks(layer_ticks(layers))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(fontsize=7, frameon=False, loc="outside right center")
    return figure
