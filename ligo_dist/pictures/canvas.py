"""What all pictures share: sizes, fonts, colours. No pyplot, whose state is of the whole process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    title: str, panels: Sequence[str], width: float, height: float, *, right: float, shared: bool
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of some names, up to four beside each other. All lengths are in inches.

    The places are computed here: for dozens of panels that takes half the time of having them fitted.

    Args:
        title: of the whole.
        panels: their names.
        width, height: of a panel, at least.
        right: room beside the panels.
        shared: all panels have the same axes, which are numbered on the left and below only.
    """
    columns = min(_MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    across, down = (0.2, 0.3) if shared else (0.45, 0.5)
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
        if shared:
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
