"""The picture of a report: validation loss against FLOPs and against time, without and with the source's training."""

from __future__ import annotations

import io
import math
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from .groups import Member
from .panels import BLACK, ROUND_STEPS, Panel, Unit, colours
from .report import Report
from .runs import Cost

_DPI = 140
_PANEL = (6.3, 4.2)
"""Width and height of a panel in inches."""


def draw(report: Report) -> bytes:
    """The picture as a PNG file."""
    units = [_flops(report), *([_time(report)] if _has_times(report) else [])]
    has_sources = any(member.source.total != Cost() for member in report.members)
    rows, columns = (len(units), 2) if has_sources else (1, len(units))
    size = (_PANEL[0] * columns + 0.4, _PANEL[1] * rows + 0.6)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    sides = (False, True) if has_sources else (False,)
    panels = [(unit, included) for unit in units for included in sides]
    for axes, (unit, included) in zip(grid.flat, panels, strict=True):
        Panel(axes, report, unit, included).draw()
    for row in grid:
        row[0].set_ylabel("validation loss")
    if has_sources:
        for axes, side in zip(
            grid[0], ("the source's training excluded", "everything included"), strict=True
        ):
            axes.set_title(side, fontsize=11, fontweight="bold", color=BLACK, pad=10)
    _limit_losses(grid[0][0], report)
    legend = _legend(report)
    figure.legend(
        handles=legend, loc="outside lower center", ncols=min(4, len(legend)), frameon=False, fontsize=9
    )
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _limit_losses(axes: Axes, report: Report) -> None:
    """From just below the lowest loss to where nine tenths of all are, so that the first steps do not flatten the
    rest, with every growth in sight; logarithmic where that is a wide range."""
    targets = [member.run.target for member in report.members]
    losses = np.array([evaluation.loss for target in targets for evaluation in target.curve])
    lowest = losses.min()
    growths = [
        loss for target in targets for loss in (target.source_loss, target.grown_loss) if loss is not None
    ]
    highest = max([np.quantile(losses, 0.9), *(loss for loss in growths if loss < 1.5 * lowest)])
    margin = 0.06 * max(highest - lowest, 0.01)
    if highest > 2 * lowest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=ROUND_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(lowest - margin, highest + margin)


def _legend(report: Report) -> list[Line2D]:
    palette = colours(report)
    handles = []
    for group in report.groups:
        count = len(group.members)
        seeds = f" ({count} seeds)" if count > 1 else ""
        baseline = ", the baseline" if group is report.baseline else ""
        width = 2.2 if baseline else 1.7
        handles.append(
            Line2D([], [], color=palette[group.label], linewidth=width, label=group.label + seeds + baseline)
        )
    mark = partial(Line2D, [], [], linestyle="none", color="#555555")
    if any(member.run.target.growth for member in report.members):
        handles.append(mark(marker="o", markerfacecolor="white", label="just grown"))
    if report.baseline:
        handles.append(mark(marker="D", markersize=6, label="reaches the baseline's final loss"))
    return handles


def _has_times(report: Report) -> bool:
    return any(member.run.target.ends.seconds is not None for member in report.members)


def _flops(report: Report) -> Unit:
    """FLOPs, with the power of a thousand below the most expensive run."""
    most = max(_spent(member).flops for member in report.members)
    power = 3 * int(math.log10(most) // 3) if most > 1 else 0
    name = f"$10^{{{power}}}$ FLOPs" if power else "FLOPs"
    return Unit(name, lambda cost: cost.flops, 10.0**power, lambda case: case.flops)


def _time(report: Report) -> Unit:
    """The unit of time that the longest run is at least two of."""
    longest = max(_spent(member).seconds or 0.0 for member in report.members)
    lengths = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
    name, length = next((unit for unit in lengths if longest >= 2 * unit[1]), lengths[-1])
    return Unit(f"time in {name}", lambda cost: cost.seconds, length, lambda case: case.seconds)


def _spent(member: Member) -> Cost:
    """All that is known to have been spent on a run's target."""
    return member.run.spent + (member.source.before or Cost())
