"""The tables of a report as words, which the terminal and the page show alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ligo_dist.quantities import count, duration, flops, loss, percent

from .cases import Case, Measure, saved_percent
from .curves import Spread
from .numbers import growth_share
from .report import Report

UNKNOWN = "-"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: of the table.
        heads: of the columns; a line break where one may be broken.
        rows: as many words as there are heads.
        num_names: so many columns are of names, the others of numbers.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_names: int = 1


def tables(report: Report) -> list[Table]:
    """All tables of a report that have a row."""
    made = [_losses(report)]
    if report.baseline is not None:
        title = f"to the final loss of {report.baseline.label}"
        made = [
            _comparison(f"FLOPs {title}", [(case, case.flops) for case in report.cases], flops),
            _comparison(f"Time {title}", [(case, case.seconds) for case in report.cases], duration),
        ]
    made += [_stages(report), _growths(report)]
    return [table for table in made if table.rows]


def _comparison(title: str, measures: Sequence[tuple[Case, Measure]], write: Callable[[float], str]) -> Table:
    """What each group needed to reach the baseline's final loss, and saved; no rows where nothing is known."""
    heads = ["", "final\nloss", "source\nexcluded", "saved", "source\nincluded", "saved"]
    rows = [
        [
            _seeds(f"{case.label} (baseline)" if case.is_baseline else case.label, len(case.runs)),
            _over(case.final_loss, loss),
            _mean(measure.excluded, write),
            _saved(measure.saved_excluded),
            _mean(measure.included, write),
            _saved(measure.saved_included),
        ]
        for case, measure in measures
    ]
    is_known = any(measure.excluded is not None for _, measure in measures)
    return Table(title, heads, rows if is_known else [])


def _losses(report: Report) -> Table:
    rows = [[_seeds(case.label, len(case.runs)), _over(case.final_loss, loss)] for case in report.cases]
    return Table("Losses", ["", "final\nloss"], rows)


def _stages(report: Report) -> Table:
    heads = [
        "run",
        "stage",
        "params",
        "tokens",
        "FLOPs",
        "time",
        "source\nloss",
        "just\ngrown",
        "final\nloss",
    ]
    rows = [
        [
            member.label,
            stage.name,
            UNKNOWN if stage.parameters is None else count(stage.parameters),
            count(stage.tokens),
            flops(stage.cost.flops),
            _time(stage.cost.seconds),
            loss(stage.source_loss),
            loss(stage.grown_loss),
            loss(stage.final_loss),
        ]
        for member in report.members
        for stage in member.run.stages
    ]
    return Table("The stages", heads, rows, num_names=2)


def _growths(report: Report) -> Table:
    """What growing itself cost: learning the operator and applying it."""
    rows = [
        [
            member.label,
            stage.name,
            flops(stage.growth.flops),
            _time(stage.growth.seconds),
            percent(growth_share(member, stage)),
        ]
        for member in report.members
        for stage in member.run.stages
        if stage.growth is not None
    ]
    return Table("What growing itself cost", ["run", "into", "FLOPs", "time", "of the\nrun's FLOPs"], rows, 2)


def _seeds(name: str, number: int) -> str:
    return name if number == 1 else f"{name}, {number} seeds"


def _over(value: Spread | None, write: Callable[[float], str]) -> str:
    if value is None:
        return UNKNOWN
    return write(value.mean) + (f" ±{write(value.half_range)}" if value.count > 1 else "")


def _mean(value: Spread | None, write: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else write(value.mean)


def _saved(value: Spread | None) -> str:
    return UNKNOWN if value is None else saved_percent(value)


def _time(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else duration(seconds)
