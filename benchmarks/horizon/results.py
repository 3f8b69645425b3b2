"""From what is recorded of the runs: the law of scratch, what each schedule saves, a table and a picture.

Scratch's cost of a loss is that of a decayed run of just the length that reaches it: interpolated between two measured
horizons, as a power of what it is above the law's floor; beyond them the fitted law's, and marked so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.horizon.runs import WAYS
from ligo_dist.config import dump_yaml
from ligo_dist.planning import (
    GrownPoint,
    Laws,
    Point,
    final_losses,
    fit_carry,
    fit_law,
    laws_to_values,
)
from ligo_dist.report import BLACK, COLOURS, legend_below, new_figure, png, spread, style
from ligo_dist.runtime.errors import LigoError

Result = Mapping[str, Any]
NEAR = 0.005
"""A grown run has mixed when it is so near to the trunk at the same step, in nats."""
_DRAWS = 100


@dataclass(frozen=True)
class Scratch:
    """The target from random values.

    Attributes:
        points: (FLOPs, mean final loss over the seeds) by horizon.
        laws: fitted to all runs; the sizes of sources are in it if there are enough of them.
        parameters: of the target.
        flops_per_token: of one of its training tokens.
    """

    points: Sequence[tuple[float, float]]
    laws: Laws
    parameters: int
    flops_per_token: float

    @classmethod
    def of(cls, results: Sequence[Result]) -> Scratch:
        """Of the decayed runs of one target.

        Raises:
            LigoError: there are fewer than three horizons.
        """
        own = [r for r in results if r["kind"] == "scratch" and r["sizes"] == [_target_size(results)]]
        if len({r["horizon"] for r in own}) < 3:
            raise LigoError("scratch has finished at fewer than 3 horizons; let the benchmark go on")
        by_horizon = [[r for r in own if r["horizon"] == h] for h in sorted({r["horizon"] for r in own})]
        points = [(each[0]["flops"], fmean(r["loss"] for r in each)) for each in by_horizon]
        laws = fit_law([_point(r) for r in own], "scratch", draws=_DRAWS)
        return cls(points, laws, own[0]["parameters"][-1], own[0]["flops"] / own[0]["tokens"][-1])

    def flops(self, loss: float) -> tuple[float, bool]:
        """What a loss costs, and whether it lies within what was measured."""
        floor = self.laws.best.floor(self.parameters)
        for (before, above), (after, below) in pairwise(self.points):
            if below <= loss <= above:
                # A chord of the curve itself lies above it: a percent of the cost, and that in favour of growing.
                lengths = [math.log(value - floor) for value in (above, loss, below)]
                part = (lengths[0] - lengths[1]) / (lengths[0] - lengths[2]) if above > below else 0.0
                return before * (after / before) ** part, True
        return self.laws.best.tokens(self.parameters, loss) * self.flops_per_token, False

    def interval(self, loss: float) -> tuple[float, float]:
        """What it costs by the law, from the 5th to the 95th of 100 draws."""
        costs = sorted(law.tokens(self.parameters, loss) * self.flops_per_token for law in self.laws.draws)
        return costs[len(costs) // 20], costs[-1 - len(costs) // 20]


@dataclass(frozen=True)
class Row:
    """One schedule at one horizon, over its seeds.

    Attributes:
        case: the schedule in words.
        horizon: tokens per parameter of the target, those of sources counted.
        losses: final ones.
        flops: everything counted.
        saved: parts of scratch's cost of the same loss.
        given: the same where the first source is there already, so that its training costs nothing.
        measured: whether scratch's cost lies within what was measured, for all seeds.
        by_law: the part saved by the law, lower and upper end.
        carried: the part of the source's tokens that count, as scratch's length for the final loss tells it.
        mixed: steps from the last growth until the run has mixed; None where it has not, before its decay.
    """

    case: str
    horizon: float
    losses: Sequence[float]
    flops: float
    saved: Sequence[float]
    given: Sequence[float]
    measured: bool
    by_law: tuple[float, float]
    carried: float
    mixed: float | None


def rows_of(results: Sequence[Result], scratch: Scratch) -> list[Row]:
    """Each schedule and horizon, in the order of cases and horizons."""
    grown = [r for r in results if r["kind"] == "grown"]
    groups: dict[tuple[str, float], list[Result]] = {}
    for result in grown:
        groups.setdefault((case_of(result), result["horizon"]), []).append(result)
    return [_row(case, horizon, groups[case, horizon], results, scratch) for case, horizon in sorted(groups)]


def case_of(result: Result) -> str:
    """A schedule in words: `damped 2x32 at 0.8`."""
    steps = [f"{s[0]}x{s[1]} at {tau:g}" for s, tau in zip(result["sizes"][:-1], result["taus"], strict=True)]
    return f"{result['way']} {', '.join(steps)}"


def _row(
    case: str, horizon: float, runs: Sequence[Result], results: Sequence[Result], scratch: Scratch
) -> Row:
    flops = runs[0]["flops"]
    costs = [scratch.flops(run["loss"]) for run in runs]
    low, high = scratch.interval(fmean(run["loss"] for run in runs))
    *before, own = runs[0]["tokens"]
    needed = [cost / scratch.flops_per_token for cost, _ in costs]
    mixed = [mixing_time(run, results) for run in runs]
    return Row(
        case,
        horizon,
        [run["loss"] for run in runs],
        flops,
        [1 - flops / cost for cost, _ in costs],
        [1 - runs[0]["own_flops"] / cost for cost, _ in costs],
        all(inside for _, inside in costs),
        (1 - flops / low, 1 - flops / high),
        fmean((tokens - own) / sum(before) for tokens in needed),
        None if None in mixed else median(steps for steps in mixed if steps is not None),
    )


def mixing_time(run: Result, results: Sequence[Result]) -> float | None:
    """Steps from the last growth until the run's loss is within `NEAR` of the trunk's at the same step; None if that
    does not come before the decay, or the trunk has not come so far.

    A stage is evaluated so many steps after it begins, so the trunk's loss lies between two of its evaluations.
    """
    size, seed = run["sizes"][-1], run["seed"]
    pieces = [r for r in results if r["kind"] == "trunk" and r["sizes"] == [size] and r["seed"] == seed]
    trunk = sorted({step: loss for piece in pieces for step, _, loss in piece["curve"]}.items())
    tokens_per_step = sum(run["tokens"]) / run["curve"][-1][0]
    grown_at = sum(run["tokens"][:-1]) / tokens_per_step
    decays_at = 0.9 * run["curve"][-1][0]
    if not trunk:
        return None
    steps, losses = zip(*trunk, strict=True)
    for step, _, loss in run["curve"]:
        is_stable = grown_at < step <= min(decays_at, steps[-1])
        if is_stable and loss - float(np.interp(step, steps, losses)) < NEAR:
            return step - grown_at
    return None


def law_with_ways(results: Sequence[Result], source: str) -> Laws:
    """The law and what each way carries over, by the names of methods: what `ligo-dist plan --choose --law` takes."""
    alone = [_point(r) for r in results if r["kind"] == "scratch"]
    laws = fit_law(alone, source, draws=_DRAWS)
    runs: dict[str, list[GrownPoint]] = {}
    for r in results:
        if r["kind"] == "grown" and "depth" not in WAYS[r["way"]]:
            runs.setdefault(WAYS[r["way"]]["method"], []).append(_grown_point(r))
    ways = {way: fit_carry(laws.best, each) for way, each in runs.items()}
    return Laws(laws.source, laws.best, laws.draws, laws.spread, ways)


def table(results: Sequence[Result]) -> list[str]:
    """All that was measured of one target, in lines of text."""
    lines = _rate_lines(results)
    scratch = Scratch.of(results)
    law = scratch.laws.best
    lines += [
        "",
        f"Scratch, {scratch.parameters:,} parameters: {law.e:.4f} + {law.b:.4g} / tokens^{law.beta:.4f}, which misses"
        f" its runs by {scratch.laws.spread:.4f}",
        f"{'horizon':>8}{'FLOPs':>11}{'final loss':>18}{'seeds':>7}",
    ]
    alone = [r for r in results if r["kind"] == "scratch" and r["sizes"] == [_target_size(results)]]
    for horizon in sorted({r["horizon"] for r in alone}):
        each = [r for r in alone if r["horizon"] == horizon]
        losses = [r["loss"] for r in each]
        lines.append(f"{horizon:>8}{each[0]['flops']:>11.3g}{_mean(losses, 4):>18}{len(each):>7}")
    lines += [
        "",
        "saved: mean over the seeds ± half of their range; * beyond what scratch was trained for, so by the law.",
        "by law: from the 5th to the 95th of 100 draws. source given: without the first source's training. carried: the"
        " part of the source's tokens that count.",
        f"{'schedule':<48}{'horizon':>8}{'FLOPs':>11}{'final loss':>18}{'saved':>16}{'by law':>16}{'source given':>16}"
        f"{'carried':>9}{'mixed':>7}{'seeds':>7}",
    ]
    for row in rows_of(results, scratch):
        mark = "" if row.measured else "*"
        lines.append(
            f"{row.case:<48}{row.horizon:>8}{row.flops:>11.3g}{_mean(row.losses, 4):>18}"
            f"{_mean([100 * part for part in row.saved], 1) + ' %' + mark:>16}"
            f"{f'{100 * row.by_law[0]:.0f} .. {100 * row.by_law[1]:.0f} %':>16}"
            f"{_mean([100 * part for part in row.given], 1) + ' %':>16}{row.carried:>9.2f}"
            f"{'-' if row.mixed is None else f'{row.mixed:.0f}':>7}{len(row.losses):>7}"
        )
    return [*lines, *law_lines(results)] if any(r["kind"] == "grown" for r in results) else lines


def law_lines(results: Sequence[Result]) -> list[str]:
    """Which law holds: tokens count or loss counts, by way; and what they predict of the longest horizon, fitted
    without it. Nothing before three sizes have been decayed."""
    longest = max(r["horizon"] for r in results if r["kind"] == "grown")
    shorter = [r for r in results if r["horizon"] < longest]
    if any(_sizes(part) < 3 for part in (results, shorter)):
        return []
    laws = law_with_ways(results, "all runs")
    lines = [
        "",
        f"{'way':<16}{'tokens that count':>18}{'misses by':>11}{'loss that growing adds':>24}{'misses by':>11}",
    ]
    lines += [
        f"{way:<16}{carry.tokens:>18.2f}{carry.tokens_miss:>11.4f}{carry.loss:>+24.3f}{carry.loss_miss:>11.4f}"
        for way, carry in laws.ways.items()
    ]
    lines += _predictions(results, longest, "predicted without it", shorter)
    for way in sorted({r["way"] for r in results if r["kind"] == "grown"}):
        others = [r for r in shorter if r.get("way") != way]
        own = [r for r in results if r.get("way", way) == way]
        if any(r["kind"] == "grown" for r in others):
            lines += _predictions(own, longest, f"{way} predicted without it and without any {way}", others)
    return lines


def _predictions(results: Sequence[Result], horizon: float, title: str, known: Sequence[Result]) -> list[str]:
    """The final losses at a horizon beside what is expected from what is known: an interval from both laws, with what
    a way carries over, or all ways that are known where nothing is known of that one."""
    laws = law_with_ways(known, title)
    every = fit_carry(laws.best, [_grown_point(r) for r in known if r["kind"] == "grown"])
    lines = [
        "",
        f"At {horizon:g}, {title}:",
        f"{'schedule':<48}{'predicted':>20}{'measured':>18}{'off':>9}",
    ]
    grown = [r for r in results if r["kind"] == "grown" and r["horizon"] == horizon]
    for case in sorted({case_of(r) for r in grown}):
        runs = [r for r in grown if case_of(r) == case]
        carry = laws.ways.get(WAYS[runs[0]["way"]]["method"], every)
        stages = list(zip(runs[0]["parameters"], runs[0]["tokens"], strict=True))
        ends = final_losses(laws.best, stages, carry)
        low, high = ends[0] - carry.spread, ends[1] + carry.spread
        losses = [r["loss"] for r in runs]
        # 0 where the interval has it.
        off = max(low - fmean(losses), 0.0) - max(fmean(losses) - high, 0.0)
        lines.append(f"{case:<48}{f'{low:.4f} .. {high:.4f}':>20}{_mean(losses, 4):>18}{off:>+9.4f}")
    return lines


def _sizes(results: Sequence[Result]) -> int:
    """How many sizes have been decayed."""
    return len({r["parameters"][-1] for r in results if r["kind"] == "scratch"})


def picture(results: Sequence[Result]) -> bytes:
    """Left what each schedule saves against the horizon, right the final loss against FLOPs; a PNG file."""
    scratch = Scratch.of(results)
    rows = rows_of(results, scratch)
    cases = sorted({row.case for row in rows})
    figure: Figure = new_figure(11, 5)
    left, right = figure.subplots(1, 2)
    curve = np.geomspace(scratch.points[0][0], scratch.points[-1][0])
    losses = [scratch.laws.best.loss(scratch.parameters, flops / scratch.flops_per_token) for flops in curve]
    handles = [right.plot(curve, losses, color=BLACK, linewidth=1, label="scratch: the law")[0]]
    right.plot(*zip(*scratch.points, strict=True), "o", color=BLACK, markersize=4)
    for number, case in enumerate(cases):
        own = [row for row in rows if row.case == case]
        look = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": ("-", "--", ":", "-.")[number // len(COLOURS) % 4],
            "marker": "o",
            "markersize": 3,
        }
        saved = [spread([100 * part for part in row.saved]) for row in own]
        means, bars = [s.mean for s in saved if s], [s.half_range for s in saved if s]
        handles.append(
            left.errorbar([row.horizon for row in own], means, yerr=bars, capsize=2, label=case, **look)
        )
        right.plot([row.flops for row in own], [fmean(row.losses) for row in own], **look)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")
    horizons = sorted({row.horizon for row in rows})
    left.set_xticks(horizons, list(map(str, horizons)))
    left.axhline(0, color=BLACK, linewidth=0.8)
    style(left, "tokens per parameter of the target", "FLOPs saved, everything counted (%)")
    style(right, "FLOPs, everything counted", "final validation loss")
    legend_below(figure, handles)
    return png(figure, 110)


def _rate_lines(results: Sequence[Result]) -> list[str]:
    swept = sorted((r["rate"], r["loss"]) for r in results if r["kind"] == "rate")
    if not swept:
        return ["No sweep of the learning rate."]
    losses = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in swept)
    used = sorted({r["rate"] for r in results if r["kind"] != "rate"})
    best = best_rate(results)
    edge = "" if best not in (swept[0][0], swept[-1][0]) else "; the best is at the edge of what was tried"
    return [
        f"Scratch by learning rate, one seed: {losses}{edge}; all others at {', '.join(map('{:g}'.format, used))}"
    ]


def best_rate(results: Sequence[Result]) -> float | None:
    """The rate of the sweep with the lowest final loss; None before there is one."""
    swept = [(r["loss"], r["rate"]) for r in results if r["kind"] == "rate" and math.isfinite(r["loss"])]
    return min(swept)[1] if swept else None


def write(results: Sequence[Result], head: Sequence[str], output: Path) -> None:
    """The table, the picture and, where three sizes have finished, the law: `output` with .txt, .png and .yaml."""
    lines = table(results)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_name(f"{output.name}.txt").write_text("\n".join([*head, "", *lines]) + "\n")
    output.with_name(f"{output.name}.png").write_bytes(picture(results))
    if _sizes(results) > 2:
        laws = law_with_ways(results, f"benchmarks.horizon, {output.name}")
        output.with_name(f"{output.name}.yaml").write_text(dump_yaml(laws_to_values(laws)))


def _target_size(results: Sequence[Result]) -> list[int]:
    """The largest model of all."""
    return max((list(r["sizes"][-1]) for r in results), key=lambda size: size[0] * size[1] ** 2)


def _point(result: Result) -> Point:
    return Point(result["parameters"][-1], result["tokens"][-1], result["loss"])


def _grown_point(result: Result) -> GrownPoint:
    stages = list(zip(result["parameters"], result["tokens"], strict=True))
    return GrownPoint(stages, WAYS[result["way"]]["method"], result["loss"])


def _mean(values: Sequence[float], digits: int) -> str:
    whole = spread(values)
    assert whole is not None
    return f"{whole.mean:.{digits}f}" + (f" ± {whole.half_range:.{digits}f}" if whole.count > 1 else "")
