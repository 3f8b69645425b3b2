"""One panel of the picture: validation loss against one kind of cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .cases import Case, Measure
from .curves import Spread
from .groups import Group, Member
from .report import Report
from .runs import Cost, Evaluation
from .savings import curve_of

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
        self.axes.plot(costs, losses, color=colour, linewidth=width, zorder=3)
        if len(lines) > 1:
            for line in lines:
                self.axes.plot(*line, color=colour, linewidth=0.8, alpha=0.4)
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

    def _draw_thin(self, curve: Sequence[Evaluation], offset: Cost, colour: str) -> None:
        points = [(self.unit.of(each.cost + offset), each.loss) for each in curve]
        known = [(cost, loss) for cost, loss in points if cost is not None]
        if known:
            self.axes.plot(*zip(*known, strict=True), color=colour, linewidth=0.9, alpha=0.5)

    def _needed(self, case: Case) -> float:
        """What a case needs on the mean to reach the baseline's final loss; infinite where that is not known."""
        needed = self._costs(case)
        return math.inf if needed is None else needed.mean

    def _costs(self, case: Case) -> Spread | None:
        measure = self.unit.measure(case)
        return measure.included if self.included else measure.excluded

    def _draw_crossing(self, case: Case, colour: str, row: int) -> bool:
        """A diamond where the group reaches the baseline's final loss, on the line of that loss, with what is saved in
        a row below it, so that those of neighbours stay apart.

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
        # Below and to the left of it no curve passes: they come from above, and go on to the right.
        self.axes.annotate(
            f"{-100 * saved.mean:+.0f} %".replace("-", "\N{MINUS SIGN}"),
            (place, loss),
            (-5, -5 - _ROW * row),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            fontweight="bold",
            ha="right",
            va="top",
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


def _mean(lines: Sequence[Line]) -> Line:
    """Mean costs and losses of runs that differ by their seed, evaluation by evaluation as far as all of them go."""
    length = min(len(costs) for costs, _ in lines)
    costs, losses = (np.mean([line[which][:length] for line in lines], axis=0) for which in (0, 1))
    return costs, losses


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
