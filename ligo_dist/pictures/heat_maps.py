"""Depth coefficients as heat maps: which source layers a target layer is made of, role by role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ligo_dist.pictures.canvas import label_grid, layer_ticks, new_grid

_CELL_INCHES, _PANEL_INCHES, _BAR_ROOM = 0.3, (1.9, 2.6), 0.9


def heat_maps(title: str, matrices: Mapping[str, np.ndarray], columns: Sequence[str]) -> Figure:
    """One heat map for each role, all with one scale of colours, whose middle is zero.

    Args:
        title: of the whole.
        matrices: target layers x columns, by role.
        columns: their names; those of the source's layers are numbers.
    """
    layers = len(next(iter(matrices.values())))
    figure, axes = new_grid(
        title, list(matrices), _inches(len(columns)), _inches(layers), right=_BAR_ROOM, shared=True
    )
    largest = max(float(np.abs(matrix).max()) for matrix in matrices.values())
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
