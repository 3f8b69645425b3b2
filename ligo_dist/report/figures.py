"""The picture of a report: loss against FLOPs and time, the source's training excluded and included."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ligo_dist.report.compare import Group, Member, Spread, curve_of
from ligo_dist.report.read import Cost, CurvePoint
from ligo_dist.report.report import Case, Measure, Report

BLACK = "#222222"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Told apart by the colour-blind too (Okabe and Ito 2008); black is the baseline's."""

ROUND_STEPS = (1, 2, 2.5, 5, 10)
"""What the numbers at an axis may go up by, but for the power of ten."""

_DOTS = (0, (1, 1.5))
_ROW = 11
"""Height of a line of text at the crossings, in points."""

Line = tuple[np.ndarray, np.ndarray]
"""Costs and losses, [points] each."""


def colours(report: Report) -> dict[str, str]:
    """A colour for each group by its label."""
    others = cycle(_COLOURS)
    return {group.label: BLACK if group is report.baseline else next(others) for group in report.groups}


@dataclass(frozen=True)
class Unit:
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


@dataclass(frozen=True)
class Panel:
    """A panel that is drawn on `axes`.

    Attributes:
        axes: where.
        report: what is drawn.
        unit: of the costs.
        included: whether the training of the sources counts.
    """

    axes: Axes
    report: Report
    unit: Unit
    included: bool

    def draw(self) -> None:
        """Draw everything but what panels share: the limits of the losses, the legend."""
        palette = colours(self.report)
        for group in self.report.groups:
            self._draw_group(group, palette[group.label])
        row = 0
        for case in sorted(self.report.cases, key=self._needed):
            row += self._draw_crossing(case, palette[case.label], row)
        axes = self.axes
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=ROUND_STEPS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(self.unit.name)
        axes.grid(color="#e8e8e8", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)

    def _draw_group(self, group: Group, colour: str) -> None:
        """The mean over the seeds, the seeds as thin lines, and what came before."""
        lines = [line for member in group.members if (line := self._line(member)) is not None]
        if len(lines) != len(group.members):
            return  # a note says what is not known
        costs, losses = _mean(lines)
        width = 2.3 if group is self.report.baseline else 1.8
        self.axes.plot(costs, losses, color=colour, linewidth=width, zorder=3, marker=_marker(costs))
        if len(lines) > 1:
            for line in lines:
                self.axes.plot(*line, color=colour, linewidth=0.8, alpha=0.4, marker=_marker(line[0]))
        if all(member.run.target.growth for member in group.members):
            begins = [
                self.unit.of(member.source.total if self.included else Cost()) for member in group.members
            ]
            source_losses = [member.run.target.source_loss for member in group.members]
            self._draw_growth((_mean_of(begins), _mean_of(source_losses)), (costs[0], losses[0]), colour)
        if self.included:
            for member in group.members:
                self._draw_source(member, colour)

    def _draw_growth(
        self,
        source: tuple[float | None, float | None],
        grown: tuple[float, float],
        colour: str,
        size: float = 6,
    ) -> None:
        """A circle where a model is just grown, and a dotted line to it from where its source ended: what growing cost,
        and what it did to the loss."""
        self.axes.plot(*grown, "o", color=colour, markerfacecolor="white", markersize=size, zorder=4)
        cost, loss = source
        if cost is not None and loss is not None:
            costs, losses = zip((cost, loss), grown, strict=True)
            self.axes.plot(costs, losses, color=colour, linewidth=1.2, linestyle=_DOTS)

    def _draw_source(self, member: Member, colour: str) -> None:
        """The losses of what was trained before a target."""
        run, before, maker = member.run, member.source.before, member.source.maker
        if before is None:
            return
        if maker is not None:
            self._draw_thin(maker.target.curve, before - maker.target.ends, colour)
        for stage in run.source_stages if run.source != Cost() else ():
            offset = before - run.origin
            self._draw_thin(stage.curve, offset, colour)
            grown = None if stage.growth is None else self.unit.of(stage.begins + stage.growth + offset)
            if grown is not None and stage.grown_loss is not None:
                source = self.unit.of(stage.begins + offset), stage.source_loss
                self._draw_growth(source, (grown, stage.grown_loss), colour, size=4)

    def _draw_thin(self, curve: Sequence[CurvePoint], offset: Cost, colour: str) -> None:
        points = [(self.unit.of(each.cost + offset), each.loss) for each in curve]
        known = [(cost, loss) for cost, loss in points if cost is not None]
        if known:
            costs, losses = zip(*known, strict=True)
            self.axes.plot(costs, losses, color=colour, linewidth=0.9, alpha=0.5, marker=_marker(costs))

    def _needed(self, case: Case) -> float:
        """What a case needs on the mean to reach the baseline's final loss; infinite where that is not known."""
        needed = self._costs(case)
        return math.inf if needed is None else needed.mean

    def _costs(self, case: Case) -> Spread | None:
        measure = self.unit.measure(case)
        return measure.included if self.included else measure.excluded

    def _draw_crossing(self, case: Case, colour: str, row: int) -> bool:
        """A diamond where the group reaches the baseline's final loss, on the line of that loss; what is saved below
        it in the strip that is left for it under all curves, in a row of its own.

        Returns:
            Whether the row is taken.
        """
        comparisons = self.report.comparisons
        losses = [comparisons[run].loss for run in case.runs if run in comparisons]
        measure, needed = self.unit.measure(case), self._costs(case)
        if not losses or needed is None:
            return False
        place, loss = needed.mean / self.unit.size, fmean(losses)
        if case.is_baseline:
            self.axes.axhline(loss, color=BLACK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        self.axes.plot(place, loss, "D", color=colour, markersize=6.5, markeredgecolor="white", zorder=5)
        saved = measure.saved_included if self.included else measure.saved_excluded
        if saved is None:
            return False
        self.axes.annotate(
            f"{-100 * saved.mean:+.0f} %".replace("-", "\N{MINUS SIGN}"),
            (place, 0),
            (0, 3 + _ROW * row),
            xycoords=self.axes.get_xaxis_transform(),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            fontweight="bold",
            ha="center",
        )
        return True

    def _line(self, member: Member) -> Line | None:
        """A run's costs and losses; None if they are not known."""
        offset = member.source.total if self.included else Cost()
        if offset is None:
            return None
        curve = curve_of(member)
        costs = [self.unit.of(each.cost + offset) for each in curve]
        return (
            None if None in costs else (np.array(costs, dtype=float), np.array([each.loss for each in curve]))
        )


def _marker(points: Sequence[object] | np.ndarray) -> str | None:
    """A line of one point is not seen without one."""
    return "o" if len(points) == 1 else None


def _mean(lines: Sequence[Line]) -> Line:
    """Mean costs and losses of runs that differ by their seed, evaluation by evaluation as far as all of them go."""
    length = min(len(costs) for costs, _ in lines)
    costs, losses = (np.mean([line[which][:length] for line in lines], axis=0) for which in (0, 1))
    return costs, losses


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


_PLOTTED = 3.0
"""Height of a panel within its axes, in inches, at least."""
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
    _limit_losses(grid[0][0], report, [float(loss) for axes in grid.flat for loss in _drawn(axes)])
    legend = _legend(report)
    figure.legend(
        handles=legend, loc="outside lower center", ncols=min(4, len(legend)), frameon=False, fontsize=9
    )
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _drawn(axes: Axes) -> Iterator[float]:
    """All losses of a panel's lines."""
    return (loss for line in axes.lines for loss in np.asarray(line.get_ydata(), dtype=float))


def _limit_losses(axes: Axes, report: Report, drawn: Sequence[float]) -> None:
    """From just below the lowest loss that is drawn to where nine tenths of the targets' are, so that the first steps
    do not flatten the rest, with every growth in sight; logarithmic where that is a wide range. Below the curves is
    room for a row of each case."""
    targets = [member.run.target for member in report.members]
    losses = np.array([evaluation.loss for target in targets for evaluation in target.curve])
    lowest = min(drawn)
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
    rows = sum(case.flops.saved_excluded is not None for case in report.cases)
    strip = rows * _ROW / (72 * _PLOTTED)
    to, back = (math.log, math.exp) if axes.get_yscale() == "log" else (float, float)
    top, bottom = to(highest + margin), to(max(lowest - margin, 0.5 * lowest))
    axes.set_ylim(back(bottom - (top - bottom) * strip / (1 - strip)), highest + margin)


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
