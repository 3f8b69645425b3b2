"""An operator as pictures: of which source layers a target layer is made, and how far learning moved its matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter

from ligo_dist.pictures.curves import label, label_grid, layer_ticks, new_figure, new_grid
from ligo_dist.pictures.operator import WidthMatrix

_LEAST_MOVED = 0.01
"""The least height of the axis of distances: one percent."""
_CELL_INCHES, _PANEL_INCHES, _BAR_ROOM = 0.3, (1.9, 2.6), 0.9


def heat_maps(
    title: str, matrices: Mapping[str, np.ndarray], columns: Sequence[str], *, least: float = 0.0
) -> Figure:
    """One heat map for each role, all with one scale of colours, whose middle is zero.

    Args:
        title: of the whole.
        matrices: target layers x columns, by role.
        columns: their names; those of the source's layers are numbers.
        least: what the scale reaches to at least, so that next to nothing does not look like much.
    """
    layers = len(next(iter(matrices.values())))
    figure, axes = new_grid(title, list(matrices), _inches(len(columns)), _inches(layers), right=_BAR_ROOM)
    largest = max(least, *(float(np.abs(matrix).max()) for matrix in matrices.values()))
    scale = Normalize(-largest, largest) if largest else Normalize(-1, 1)
    for panel, matrix in zip(axes, matrices.values(), strict=True):
        image = panel.imshow(matrix, cmap="RdBu_r", norm=scale, aspect="auto", interpolation="nearest")
        _name_cells(panel, layers, columns)
    _add_bar(figure, axes[0], image)
    label_grid(figure, "source layer", "target layer")
    return figure


def _add_bar(figure: Figure, first: Axes, image: AxesImage) -> None:
    """The scale of colours, right of the panels in the first row."""
    width = figure.get_size_inches()[0]
    panel = first.get_position()
    bar = figure.add_axes((1 - 0.8 * _BAR_ROOM / width, panel.y0, 0.15 / width, panel.height))
    figure.colorbar(image, cax=bar).ax.tick_params(labelsize=7)


def _inches(cells: int) -> float:
    smallest, largest = _PANEL_INCHES
    return min(max(cells * _CELL_INCHES, smallest), largest)


def _name_cells(panel: Axes, layers: int, columns: Sequence[str]) -> None:
    """Number as many layers as have room; of what is no layer of the source, name the first and the last."""
    panel.set_yticks(layer_ticks(layers))
    numbered = sum(name.isdecimal() for name in columns)
    others = range(numbered, len(columns))
    shown = [*layer_ticks(numbered), *sorted({*others[:1], *others[-1:]})]
    panel.set_xticks(shown, [columns[index] for index in shown])
    for text in panel.get_xticklabels():
        text.set_rotation(0 if text.get_text().isdecimal() else 90)


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
    axes.set_ylim(0, max(_LEAST_MOVED, 1.05 * max(matrix.moved for matrix in matrices)))
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
