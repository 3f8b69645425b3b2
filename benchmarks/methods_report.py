"""The table and the picture of the methods benchmark."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.methods_reading import Curve, Reference, Saving, loss_at, saving
from ligo_dist.report.compare import Spread, spread

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BUDGETS = (1 / 8, 1 / 4, 1 / 2)
"""As parts of scratch's FLOPs."""

Cell = Callable[[float], str]


@dataclass(frozen=True)
class Measured:
    """One run of a case.

    Attributes:
        curve: of its target.
        source_flops: what trained its source.
        steps: of the target at the full learning rate; what follows is the final fall.
    """

    curve: Curve
    source_flops: float
    steps: int

    @property
    def at_full_rate(self) -> Curve:
        return self.curve.until(self.steps)


@dataclass(frozen=True)
class Row:
    """One line of the table; each quantity over the seeds, None where no seed has it.

    Attributes:
        name: of the case.
        source: loss of the model that is grown.
        grown: loss right after growing.
        budgets: losses after `BUDGETS`, the source not counted.
        excluded, included: part of scratch's FLOPs that is saved, without and with the source's training.
        final: loss at the end, the learning rate fallen.
        ahead: by how much that is below scratch's.
        spent, spent_in_all: for that, as a part of what scratch has spent, without and with the source's training.
    """

    name: str
    source: Spread | None
    grown: Spread | None
    budgets: list[Spread | None]
    excluded: Spread | None
    included: Spread | None
    final: Spread | None
    ahead: Spread | None
    spent: Spread | None
    spent_in_all: Spread | None


def make_row(name: str, runs: Mapping[int, Measured], references: Mapping[int, Reference]) -> Row:
    """A case's line, from its runs by seed."""
    pairs = [(run, references[seed]) for seed, run in runs.items()]
    savings: list[Saving] = [
        saving(run.at_full_rate.points, run.source_flops, reference) for run, reference in pairs
    ]
    bound = any(not each.reached for each in savings)
    finals = [(run.curve.final, run.source_flops, reference) for run, reference in pairs]
    return Row(
        name=name,
        source=spread(run.curve.source_loss for run, _ in pairs),
        grown=spread(run.curve.grown_loss for run, _ in pairs),
        budgets=[
            spread(loss_at(run.at_full_rate.points, part * reference.flops) for run, reference in pairs)
            for part in BUDGETS
        ],
        excluded=spread((each.excluded for each in savings), bound=bound),
        included=spread((each.included for each in savings), bound=bound),
        final=spread(final.loss for final, _, _ in finals),
        ahead=spread(reference.final_loss - final.loss for final, _, reference in finals),
        spent=spread(final.flops / reference.final_flops for final, _, reference in finals),
        spent_in_all=spread(
            (final.flops + source) / reference.final_flops for final, source, reference in finals
        ),
    )


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as text, the largest saving (source excluded) first, those that did not get so far last."""
    width = max(len(row.name) for row in rows)
    heads = ["source", "grown", *(f"at {part:.3g}" for part in BUDGETS), "saved %", "all in %"]
    heads += ["end", "ahead", "spent %", "all in %"]
    lines = [f"{'method':<{width}}" + "".join(f"{head:>15}" for head in heads)]
    for row in sorted(rows, key=_rank):
        cells = [
            _cell(row.source, _loss),
            _cell(row.grown, _loss),
            *(_cell(budget, _loss) for budget in row.budgets),
        ]
        cells += [_cell(row.excluded, _percent), _cell(row.included, _percent)]
        cells += [_cell(row.final, _loss), _cell(row.ahead, _difference)]
        cells += [_cell(row.spent, _percent, plain=True), _cell(row.spent_in_all, _percent, plain=True)]
        lines.append((f"{row.name:<{width}}" + "".join(f"{cell:>15}" for cell in cells)).rstrip())
    return lines


def _rank(row: Row) -> tuple[bool, float]:
    assert row.excluded is not None
    return row.excluded.bound, -row.excluded.mean


def draw(
    path: Path, measured: Mapping[str, Mapping[int, Measured]], title: str, named: Collection[str]
) -> None:
    """Validation loss against FLOPs, the mean over seeds with a band from the lowest to the highest: on the left
    without the source's training, on the right with it. Cases that are not `named` are grey lines."""
    figure, axes = plt.subplots(1, 2, figsize=(15, 7), sharey=True, layout="constrained")
    colours = iter(f"C{number}" for number in range(len(named)))
    others = "others"  # in the legend, once
    for name, runs in sorted(measured.items(), key=lambda item: item[0] in named):
        is_scratch = name == "scratch"
        if name in named:
            colour = "black" if is_scratch else next(colours)
            style = {"label": name, "linewidth": 2.5 if is_scratch else 1.6}
        else:
            colour = "lightgrey"
            style = {"label": others, "linewidth": 0.8}
            others = "_"
        for axis, included in zip(axes, (False, True), strict=True):
            flops, losses = band([run.curve for run in runs.values()])
            source = np.mean([run.source_flops for run in runs.values()]) if included else 0.0
            axis.plot(flops + source, losses.mean(axis=0), color=colour, **style)
            if name in named:
                lowest, highest = losses.min(axis=0), losses.max(axis=0)
                axis.fill_between(flops + source, lowest, highest, color=colour, alpha=0.15)
    scratch = [run.curve.final.loss for run in measured.get("scratch", {}).values()]
    for axis, name in zip(axes, ("source's training excluded", "everything included"), strict=True):
        axis.set_xlabel(f"FLOPs, {name}")
        axis.set_xlim(left=0)
        if scratch:
            axis.axhline(np.mean(scratch), color="black", linewidth=0.8, linestyle=":")
    lowest = min(run.curve.final.loss for runs in measured.values() for run in runs.values())
    axes[0].set_ylim(lowest - 0.05, lowest + 1.0)
    axes[0].set_ylabel("validation loss")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def band(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs [points] and losses [curves, points] of several runs of one case, at the first one's FLOPs as far as all
    of them go. What learning only looked at is left out."""
    kept = [curve.until(None).points for curve in curves]
    last = min(points[-1].flops for points in kept)
    flops = np.array([point.flops for point in kept[0] if point.flops <= last])
    losses = [
        np.interp(flops, [point.flops for point in points], [point.loss for point in points])
        for points in kept
    ]
    return flops, np.array(losses)


def notes(rows: Iterable[Row]) -> list[str]:
    """What the columns mean, and who is below scratch at the end."""
    below = [row.name for row in rows if row.ahead and row.ahead.mean > 0 and row.name != "scratch"]
    return [
        "source: validation loss of the model that is grown; grown: right after growing; at x: after x of",
        "scratch's FLOPs, learning and growing counted, the source not, at the full learning rate. saved: FLOPs that",
        "are not needed for the loss that scratch reaches with its whole budget at the full learning rate, as a part",
        "of that budget; all in: the source's training counted too; < marks an upper bound, where at least one seed",
        "ended before. end: loss after the learning rate's final fall; ahead: by how much it is below scratch's;",
        "spent: FLOPs for it, as a part of scratch's. Mean over the seeds ± half of their range.",
        f"Below scratch at the end: {', '.join(below) or 'none'}.",
    ]


def _cell(value: Spread | None, show: Cell, *, plain: bool = False) -> str:
    if value is None:
        return "-"
    mark = "<" if value.bound else ""
    if plain:
        return mark + show(value.mean)
    return f"{mark}{show(value.mean)} ±{show(value.half_range).lstrip('+')}"


def _loss(value: float) -> str:
    return f"{value:.3f}"


def _difference(value: float) -> str:
    return f"{value:+.3f}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f}"
