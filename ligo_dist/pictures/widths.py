"""Width matrices: their singular values before and after learning, and how far each of them has moved."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ligo_dist.pictures.canvas import COLOURS, label, label_grid, layer_ticks, new_figure, new_grid
from ligo_dist.pictures.operator import WidthMatrix


def singular_value_figure(title: str, matrices: Sequence[WidthMatrix]) -> Figure | None:
    """A panel for each kind of matrix, its layers as lines; None where nothing was computed."""
    kinds = _by_kind([matrix for matrix in matrices if matrix.singular_values is not None])
    if not kinds:
        return None
    figure, axes = new_grid(title, list(kinds), 2.4, 1.6, right=0.2, shared=False)
    for panel, layers in zip(axes, kinds.values(), strict=True):
        for colour, matrix in zip(COLOURS, layers, strict=False):
            assert matrix.singular_values is not None
            layer = matrix.parameter.layer
            name = "all layers" if layer is None else f"layer {layer}"
            numbers = range(1, len(matrix.singular_values.now) + 1)
            panel.plot(numbers, matrix.singular_values.start, color=colour, linewidth=1, linestyle=":")
            panel.plot(numbers, matrix.singular_values.now, color=colour, linewidth=1, label=name)
        panel.margins(y=0.12)
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.legend(fontsize=6.5, frameon=False, loc="lower left", handlelength=1.2)
    label_grid(figure, "number, largest first", "singular value (dotted: at the start)")
    return figure


def moved_figure(title: str, matrices: Sequence[WidthMatrix]) -> Figure:
    """How far each kind of matrix moved from its start, over the target's layers; whole-model ones as level lines."""
    figure = new_figure(7.0, 3.6, title)
    axes = figure.subplots()
    layers = 1 + max((matrix.parameter.layer or 0) for matrix in matrices)
    own = _by_kind([matrix for matrix in matrices if matrix.parameter.layer is not None])
    shared = _by_kind([matrix for matrix in matrices if matrix.parameter.layer is None])
    for colour, (kind, some) in enumerate(own.items()):
        numbers = [matrix.parameter.layer or 0 for matrix in some]
        moved = [matrix.moved for matrix in some]
        axes.plot(numbers, moved, f"C{colour}", marker="o", markersize=3, linewidth=1.2, label=kind)
    for colour, (kind, (matrix,)) in enumerate(shared.items()):
        ends = [-0.5, layers - 0.5]
        axes.plot(
            ends, [matrix.moved] * 2, f"C{colour}", linestyle="--", linewidth=1, label=f"{kind}, all layers"
        )
    axes.set_xlim(-0.5, layers - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xticks(layer_ticks(layers))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "target layer", "|B - B at the start| / |B at the start|")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _by_kind(matrices: Sequence[WidthMatrix]) -> dict[str, list[WidthMatrix]]:
    kinds: dict[str, list[WidthMatrix]] = {}
    for matrix in matrices:
        kinds.setdefault(matrix.kind, []).append(matrix)
    return kinds
