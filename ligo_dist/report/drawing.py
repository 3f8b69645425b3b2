"""How all figures look: their colours, axes and lines, and how they become files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

BLACK = "#222222"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Told apart by the colour-blind too (Okabe and Ito 2008)."""


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of a size in inches, which fits its panels into it when it is drawn."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def style(axes: Axes, across: str, along: str) -> None:
    """Name the axes of a panel of curves, and let these stand out."""
    axes.set_xlabel(across)
    axes.set_ylabel(along)
    axes.grid(color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plot(axes: Axes, across: ArrayLike, along: ArrayLike, **style: Any) -> None:
    """A line, with markers on the points that no line leads to, which would not be seen."""
    finite = np.pad(np.isfinite(along), 1)
    alone = np.flatnonzero(~finite[:-2] & ~finite[2:]).tolist()
    axes.plot(across, along, **{"marker": "o", "markevery": alone, **style})


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Name what is drawn below the panels, where it hides nothing."""
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=9,
    )


def png(figure: Figure, dots_per_inch: int = 100) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return file.getvalue()
