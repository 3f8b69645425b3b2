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


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of a size in inches."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=_NORMAL + 1)
    return figure


def new_grid(title: str, panels: Sequence[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of some titles, up to four beside each other, each of a size in inches."""
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    # The extra inches hold the title, the labels of the whole and the colour bar.
    figure = new_figure(max(5.0, columns * width + 1.0), rows * height + 0.9, title)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[len(panels) :]:
        unused.remove()
    for panel, name in zip(axes, panels, strict=False):
        panel.set_title(name, fontsize=_SMALL - 1)
        panel.tick_params(labelsize=_SMALL - 1)
    return figure, axes[: len(panels)]


def label(axes: Axes, across: str, along: str) -> None:
    """Name the axes of a panel that stands for itself, and make its numbers readable."""
    axes.set_xlabel(across, fontsize=_NORMAL)
    axes.set_ylabel(along, fontsize=_NORMAL)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(alpha=0.25, linewidth=0.6)


def label_grid(figure: Figure, across: str, along: str) -> None:
    """Name the axes of all panels of a grid at once."""
    figure.supxlabel(across, fontsize=_NORMAL)
    figure.supylabel(along, fontsize=_NORMAL)


def layer_ticks(layers: int) -> range:
    """The layers to number: all of a few, every so many of more."""
    return range(0, layers, max(1, -(-layers // _MOST_TICKS)))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})
