"""The picture of a report: validation loss against FLOPs and against time, without and with the source's training."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from .cases import Case, Measure
from .groups import Group, Member
from .report import Report
from .runs import Cost, Evaluation
from .savings import curve_of

_BLACK = "#222222"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Told apart by the colour-blind too (Okabe and Ito 2008); black is the baseline's."""

_DPI = 140


@dataclass(frozen=True)
class _Unit:
    """What the costs of an axis are in.

    Attributes:
        name: for its label.
        quantity: FLOPs or seconds of a cost.
        size: how many of these the unit is.
        measure: the same of a case.
    """

    name: str
    quantity: Callable[[Cost], float | None]
    size: float
    measure: Callable[[Case], Measure]

    def of(self, cost: Cost | None) -> float | None:
        """A cost in this unit; None if it is not known."""
        quantity = None if cost is None else self.quantity(cost)
        return None if quantity is None else quantity / self.size


def colours(report: Report) -> dict[str, str]:
    """A colour for each group by its label."""
    others = cycle(_COLOURS)
    return {group.label: _BLACK if group is report.baseline else next(others) for group in report.groups}


def draw(report: Report) -> bytes:
    """The picture as a PNG file."""
    units = [_flops(report), *([_time(report)] if _has_times(report) else [])]
    sides = (False, True) if any(m.source.total != Cost() for m in report.members) else (False,)
    figure = Figure(figsize=(6.3 * len(sides) + 0.4, 4.2 * len(units) + 0.6), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(units), len(sides), sharey=True, squeeze=False)
    for unit, row in zip(units, grid, strict=True):
        for included, axes in zip(sides, row, strict=True):
            for group, case in zip(report.groups, report.cases, strict=True):
                _draw_group(axes, report, group, unit, included)
                _draw_crossing(axes, report, case, unit, included)
            _dress(axes, unit)
        row[0].set_ylabel("validation loss")
    if len(sides) > 1:
        for axes, side in zip(
            grid[0], ("the source's training excluded", "everything included"), strict=True
        ):
            axes.set_title(side, fontsize=11, fontweight="bold", color=_BLACK, pad=10)
    _limit_losses(grid[0][0], report)
    columns = min(4, len(report.groups) + 2)
    figure.legend(
        handles=_legend(report), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_group(axes: Axes, report: Report, group: Group, unit: _Unit, included: bool) -> None:
    """The mean over the seeds, the seeds as thin lines, and what came before."""
    lines = [line for member in group.members if (line := _line(member, unit, included)) is not None]
    if len(lines) != len(group.members):
        return  # a note says what is not known
    colour, is_baseline = colours(report)[group.label], group is report.baseline
    costs, losses = _mean(lines)
    axes.plot(costs, losses, color=colour, linewidth=2.3 if is_baseline else 1.8, zorder=3)
    if len(lines) > 1:
        for each in lines:
            axes.plot(*each, color=colour, linewidth=0.8, alpha=0.4)
    if all(member.run.target.growth for member in group.members):
        axes.plot(costs[0], losses[0], "o", color=colour, markerfacecolor="white", zorder=4)
        _draw_growing(axes, group, unit, included, (costs[0], losses[0]), colour)
    if included:
        for member in group.members:
            for curve, offset in _sources(member):
                _draw_thin(axes, curve, offset, unit, colour)


def _draw_growing(
    axes: Axes, group: Group, unit: _Unit, included: bool, grown: tuple[float, float], colour: str
) -> None:
    """A dotted line from where the sources ended to the grown model: what growing cost, and what it did to the loss."""
    begins = [unit.of(member.source.total if included else Cost()) for member in group.members]
    losses = [member.run.target.source_loss for member in group.members]
    if None not in begins and None not in losses:
        start = np.mean(begins), np.mean(losses)  # type: ignore[arg-type]
        axes.plot(*zip(start, grown, strict=True), color=colour, linewidth=1.2, linestyle=(0, (1, 1.5)))


def _draw_crossing(axes: Axes, report: Report, case: Case, unit: _Unit, included: bool) -> None:
    """A diamond where the group reaches the baseline's final loss, on the line of that loss, with what is saved."""
    losses = [report.comparisons[run].loss for run in case.runs if run in report.comparisons]
    measure = unit.measure(case)
    needed = measure.included if included else measure.excluded
    if not losses or needed is None:
        return
    loss, colour = fmean(losses), colours(report)[case.label]
    if case.is_baseline:
        axes.axhline(loss, color=_BLACK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    place = needed.mean / unit.size
    axes.plot(place, loss, "D", color=colour, markersize=6.5, markeredgecolor="white", zorder=5)
    saved = measure.saved_included if included else measure.saved_excluded
    if saved is not None:
        text = f"{-100 * saved.mean:+.0f} %".replace("-", "\N{MINUS SIGN}")
        # Below and to the left of it no curve passes: they come from above, and go on to the right.
        axes.annotate(
            text,
            (place, loss),
            (-5, -5),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            fontweight="bold",
            ha="right",
            va="top",
        )


def _sources(member: Member) -> list[tuple[list[Evaluation], Cost]]:
    """The curves of what was trained before a run's target, each with what is to be added to its costs."""
    source = member.source
    if source.before is None:
        return []
    curves = [(stage.curve, source.before) for stage in member.run.stages[:-1] if source.own != Cost()]
    if source.maker is not None:
        maker = source.maker
        curves.append((maker.target.curve, source.before - maker.target.ends))
    return curves


def _draw_thin(axes: Axes, curve: Sequence[Evaluation], offset: Cost, unit: _Unit, colour: str) -> None:
    points = [(unit.of(each.cost + offset), each.loss) for each in curve]
    known = [(cost, loss) for cost, loss in points if cost is not None]
    axes.plot(
        [cost for cost, _ in known], [loss for _, loss in known], color=colour, linewidth=0.9, alpha=0.5
    )


def _line(member: Member, unit: _Unit, included: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Costs and losses of a run; None if they are not known."""
    offset = member.source.total if included else Cost()
    if offset is None:
        return None
    curve = curve_of(member)
    costs = [unit.of(each.cost + offset) for each in curve]
    if None in costs:
        return None
    return np.array(costs, dtype=float), np.array([each.loss for each in curve])


def _mean(lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean costs and losses of runs that differ by their seed, evaluation by evaluation as far as all of them go."""
    length = min(len(costs) for costs, _ in lines)
    costs, losses = (np.mean([line[which][:length] for line in lines], axis=0) for which in (0, 1))
    return costs, losses


def _dress(axes: Axes, unit: _Unit) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(unit.name)
    axes.grid(color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _limit_losses(axes: Axes, report: Report) -> None:
    """From just below the lowest loss to where nine tenths of all are, so that the first steps do not flatten the
    rest; logarithmic where that is a wide range."""
    losses = np.array([each.loss for member in report.members for each in member.run.target.curve])
    grown = [m.run.target.grown_loss for m in report.members if m.run.target.grown_loss is not None]
    lowest = losses.min()
    highest = max([np.quantile(losses, 0.9), *(loss for loss in grown if loss < 1.5 * lowest)])
    margin = 0.06 * max(highest - lowest, 0.01)
    if highest > 2 * lowest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(MaxNLocator(7))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
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
    mark = {"linestyle": "none", "color": "#555555"}
    if any(member.run.target.growth for member in report.members):
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", label="just grown", **mark))
    if report.baseline:
        label = "reaches the baseline's final loss"
        handles.append(Line2D([], [], marker="D", markersize=6, label=label, **mark))
    return handles


def _has_times(report: Report) -> bool:
    return any(member.run.target.ends.seconds is not None for member in report.members)


def _flops(report: Report) -> _Unit:
    """FLOPs, with the power of a thousand below the most expensive run."""
    most = max(member.run.spent.flops for member in report.members)
    power = 3 * int(math.log10(most) // 3) if most > 1 else 0
    return _Unit(f"$10^{{{power}}}$ FLOPs", lambda cost: cost.flops, 10.0**power, lambda case: case.flops)


def _time(report: Report) -> _Unit:
    """The unit of time that the longest run is at least two of."""
    longest = max(member.run.spent.seconds or 0.0 for member in report.members)
    lengths = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
    name, length = next((unit for unit in lengths if longest >= 2 * unit[1]), lengths[-1])
    return _Unit(f"time in {name}", lambda cost: cost.seconds, length, lambda case: case.seconds)
