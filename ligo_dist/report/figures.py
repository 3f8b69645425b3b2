"""The picture of a report: loss against FLOPs and time, the source's training excluded and included."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from ligo_dist.report.compare import Case, Report, spread
from ligo_dist.report.drawing import BLACK, COLOURS, legend_below, new_figure, plot, style
from ligo_dist.report.read import Cost, CurvePoint, Quantity, Run, amount

_ROUND_STEPS = (1, 2, 2.5, 5, 10)
"""What the numbers at an axis may go up by, but for the power of ten."""

_DOTS = (0, (1, 1.5))
_ROW = 11
"""Height of a line of text at the crossings, in points."""
_PANEL = (6.3, 4.2)
"""Width and height of a panel in inches."""
_PLOTTED = 3.0
"""Height of a panel within its axes, in inches, at least."""

Line = tuple[np.ndarray, np.ndarray]
"""Costs and losses, [points] each."""


def draw(report: Report) -> Figure:
    """The picture; its panels are those of FLOPs, then those of time if times are known."""
    units = [_flops(report), *([_time(report)] if _has_times(report) else [])]
    has_sources = any(run.source_total != Cost() for run in report.runs)
    rows, columns = (len(units), 2) if has_sources else (1, len(units))
    figure = new_figure(_PANEL[0] * columns + 0.4, _PANEL[1] * rows + 0.6)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    others = cycle(COLOURS)
    colours = {case.label: BLACK if case.is_baseline else next(others) for case in report.cases}
    sides = (False, True) if has_sources else (False,)
    panels = [(unit, included) for unit in units for included in sides]
    for axes, (unit, included) in zip(grid.flat, panels, strict=True):
        _Panel(axes, report, colours, unit, included).draw()
    for row in grid:
        row[0].set_ylabel("validation loss")
    if has_sources:
        titles = ("the source's training excluded", "everything included")
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=11, fontweight="bold", color=BLACK, pad=10)
    lowest = min(float(np.min(line.get_ydata())) for axes in grid.flat for line in axes.lines)
    _limit_losses(grid[0][0], report, lowest)
    legend_below(figure, _legend(report, colours))
    return figure


@dataclass(frozen=True)
class _Unit:
    """What the costs of an axis are in.

    Attributes:
        name: for its label.
        quantity: FLOPs or seconds of a cost.
        size: how many of these the unit is.
    """

    name: str
    quantity: Quantity
    size: float

    def of(self, cost: Cost | None) -> float | None:
        """A cost in this unit; None if it is not known."""
        number = amount(cost, self.quantity)
        return None if number is None else number / self.size


@dataclass(frozen=True)
class _Panel:
    """A panel.

    Attributes:
        axes: where it is drawn.
        report: what is drawn.
        colours: of the cases, by label.
        unit: of the costs.
        included: whether the training of the sources counts.
    """

    axes: Axes
    report: Report
    colours: Mapping[str, str]
    unit: _Unit
    included: bool

    def draw(self) -> None:
        """Draw everything but what panels share: the limits of the losses, the legend."""
        for case in self.report.cases:
            self._draw_case(case)
        row = 0
        for case in sorted(self.report.cases, key=self._needed):
            row += self._draw_crossing(case, row)
        axes = self.axes
        style(axes, self.unit.name, "")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=_ROUND_STEPS))
        axes.xaxis.set_major_formatter("{x:g}")

    def _draw_case(self, case: Case) -> None:
        """The mean over the seeds, the seeds as thin lines, and what came before."""
        offsets = [run.source_total if self.included else Cost() for run in case.runs]
        lines = [self._line(run.curve, offset) for run, offset in zip(case.runs, offsets, strict=True)]
        known = [line for line in lines if line is not None]
        if len(known) != len(lines):
            return  # a note says what is not known
        colour = self.colours[case.label]
        costs, losses = _mean(known)
        plot(self.axes, costs, losses, color=colour, linewidth=2.3 if case.is_baseline else 1.8, zorder=3)
        if len(known) > 1:
            for line in known:
                plot(self.axes, *line, color=colour, linewidth=0.8, alpha=0.4)
        if all(run.target.growth for run in case.runs):
            begins = _mean_of([self.unit.of(offset) for offset in offsets])
            source_loss = _mean_of([run.target.source_loss for run in case.runs])
            self._draw_growth((begins, source_loss), (costs[0], losses[0]), colour)
        if self.included:
            for run in case.runs:
                self._draw_source(run, colour)

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

    def _draw_source(self, run: Run, colour: str) -> None:
        """The losses of what was trained before a target."""
        before, maker = run.source_before, run.source_maker
        if before is None:
            return
        if maker is not None:
            self._draw_thin(maker.target.curve, before - maker.target.ends, colour)
        for stage in run.source_stages if run.source_own != Cost() else ():
            offset = before - run.origin
            self._draw_thin(stage.curve, offset, colour)
            grown = None if stage.growth is None else self.unit.of(stage.begins + stage.growth + offset)
            if grown is not None and stage.grown_loss is not None:
                source = self.unit.of(stage.begins + offset), stage.source_loss
                self._draw_growth(source, (grown, stage.grown_loss), colour, size=4)

    def _draw_thin(self, curve: Sequence[CurvePoint], offset: Cost, colour: str) -> None:
        line = self._line(curve, offset)
        if line is not None:
            plot(self.axes, *line, color=colour, linewidth=0.9, alpha=0.5)

    def _line(self, curve: Sequence[CurvePoint], offset: Cost | None) -> Line | None:
        """A curve moved by a cost; None if that, or any of the curve's own, is not known."""
        costs = [None if offset is None else self.unit.of(point.cost + offset) for point in curve]
        if None in costs:
            return None
        return np.array(costs, dtype=float), np.array([point.loss for point in curve])

    def _needed(self, case: Case) -> float:
        """What a case needs on the mean to reach the baseline's final loss; infinite where that is not known."""
        needed = case.needed(self.unit.quantity, included=self.included)
        return math.inf if needed is None else needed.mean

    def _draw_crossing(self, case: Case, row: int) -> bool:
        """A diamond where the case reaches the baseline's final loss, on the line of that loss; what is saved below
        it in the strip that is left for it under all curves, in a row of its own.

        Returns:
            Whether the row is taken.
        """
        needed = self._needed(case)
        if needed == math.inf:
            return False
        place, loss = (
            needed / self.unit.size,
            fmean(each.loss for each in case.comparisons if each is not None),
        )
        if case.is_baseline:
            self.axes.axhline(loss, color=BLACK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        colour = self.colours[case.label]
        self.axes.plot(place, loss, "D", color=colour, markersize=6.5, markeredgecolor="white", zorder=5)
        saved = case.saved(self.unit.quantity, included=self.included)
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


def _mean(lines: Sequence[Line]) -> Line:
    """Mean costs and losses of runs that differ by their seed, evaluation by evaluation as far as all of them go."""
    length = min(len(costs) for costs, _ in lines)
    costs, losses = (np.mean([line[which][:length] for line in lines], axis=0) for which in (0, 1))
    return costs, losses


def _mean_of(values: Sequence[float | None]) -> float | None:
    """None unless all are known."""
    found = spread(values)
    return None if found is None else found.mean


def _limit_losses(axes: Axes, report: Report, lowest: float) -> None:
    """From just below the lowest loss that is drawn to where nine tenths of the targets' are, so that the first steps
    do not flatten the rest, with every growth in sight; logarithmic where that is a wide range. Below the curves is
    room for a row of each case."""
    targets = [run.target for run in report.runs]
    losses = np.array([point.loss for target in targets for point in target.curve])
    growths = [
        loss for target in targets for loss in (target.source_loss, target.grown_loss) if loss is not None
    ]
    highest = max([np.quantile(losses, 0.9), *(loss for loss in growths if loss < 1.5 * lowest)])
    margin = 0.06 * max(highest - lowest, 0.01)
    if highest > 2 * lowest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=_ROUND_STEPS))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    rows = sum(case.saved("flops", included=False) is not None for case in report.cases)
    strip = rows * _ROW / (72 * _PLOTTED)
    to, back = (math.log, math.exp) if axes.get_yscale() == "log" else (float, float)
    top, bottom = to(highest + margin), to(max(lowest - margin, 0.5 * lowest))
    axes.set_ylim(back(bottom - (top - bottom) * strip / (1 - strip)), highest + margin)


def _legend(report: Report, colours: Mapping[str, str]) -> list[Line2D]:
    handles = []
    for case in report.cases:
        seeds = f" ({len(case.runs)} seeds)" if len(case.runs) > 1 else ""
        label = f"{case.label}{seeds}{', the baseline' if case.is_baseline else ''}"
        width = 2.2 if case.is_baseline else 1.7
        handles.append(Line2D([], [], color=colours[case.label], linewidth=width, label=label))
    mark = partial(Line2D, [], [], linestyle="none", color="#555555")
    if any(run.target.growth for run in report.runs):
        handles.append(mark(marker="o", markerfacecolor="white", label="just grown"))
    if report.baseline:
        handles.append(mark(marker="D", markersize=6, label="reaches the baseline's final loss"))
    return handles


def _has_times(report: Report) -> bool:
    return any(run.target.ends.seconds is not None for run in report.runs)


def _flops(report: Report) -> _Unit:
    """FLOPs, with the power of a thousand below the most expensive run."""
    most = max(_spent(run).flops for run in report.runs)
    power = 3 * int(math.log10(most) // 3) if most > 1 else 0
    return _Unit(f"$10^{{{power}}}$ FLOPs" if power else "FLOPs", "flops", 10.0**power)


def _time(report: Report) -> _Unit:
    """The unit of time that the longest run is at least two of."""
    longest = max(_spent(run).seconds or 0.0 for run in report.runs)
    lengths = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
    name, length = next((unit for unit in lengths if longest >= 2 * unit[1]), lengths[-1])
    return _Unit(f"time in {name}", "seconds", length)


def _spent(run: Run) -> Cost:
    """All that is known to have been spent on a run's target."""
    return run.spent + (run.source_before or Cost())
