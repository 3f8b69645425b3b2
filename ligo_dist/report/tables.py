"""A report as tables on the terminal, and as `report.json`: every number that it prints or draws."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from ligo_dist.report.compare import Member, Spread, curve_of
from ligo_dist.report.read import CurvePoint, StageResult
from ligo_dist.report.report import Case, Measure, Report, saved_percent
from ligo_dist.runtime.quantities import count, duration, flops, loss, percent


def to_json(report: Report) -> str:
    """The report as JSON, the same for the same runs."""
    content = {
        "baseline": None if report.baseline is None else report.baseline.label,
        "cases": [asdict(case) for case in report.cases],
        "runs": [_run(report, member) for member in report.members],
        "notes": list(report.notes),
    }
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def growth_share(member: Member, stage: StageResult) -> float | None:
    """The part of a run's FLOPs that growing into a stage took."""
    whole = member.run.stages[-1].ends.flops
    return None if stage.growth is None or not whole else stage.growth.flops / whole


def _run(report: Report, member: Member) -> dict[str, Any]:
    run, source = member.run, member.source
    comparison = report.comparisons.get(member.label)
    return {
        "label": member.label,
        "place": run.recorded.place,
        "status": run.recorded.status,
        "seed": run.seed,
        "target": run.target.name,
        "source": {
            "own": asdict(source.own),
            "begun_from": source.begun_from,
            "before": None if source.before is None else asdict(source.before),
        },
        "curve": [_point(evaluation) for evaluation in curve_of(member)],
        "stages": [_stage(member, stage) for stage in run.stages],
        "comparison": None if comparison is None else _comparison_numbers(asdict(comparison)),
    }


def _stage(member: Member, stage: StageResult) -> dict[str, Any]:
    return {
        "name": stage.name,
        "parameters": stage.parameters,
        "tokens": stage.tokens,
        **asdict(stage.cost),
        "source_loss": stage.source_loss,
        "grown_loss": stage.grown_loss,
        "final_loss": stage.final_loss,
        "growth": None if stage.growth is None else asdict(stage.growth),
        "growth_share": growth_share(member, stage),
    }


def _comparison_numbers(values: dict[str, Any]) -> dict[str, Any]:
    for name in ("best", "first"):
        cost = values[name].pop("cost")
        values[name] = {**cost, "loss": values[name]["loss"]}
    return values


def _point(evaluation: CurvePoint) -> dict[str, Any]:
    return {**asdict(evaluation.cost), "loss": evaluation.loss}


def _finite(value: Any) -> Any:
    """JSON has no number for what is not finite."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


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
        "hardware\nFLOPs",
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
            UNKNOWN if stage.cost.hardware_flops is None else flops(stage.cost.hardware_flops),
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


def show(console: Console, report: Report) -> None:
    """Print what came of the comparison, the tables and the notes; fits 100 columns."""
    for table in tables(report):
        console.print(_rich(table))
    for case in report.cases:
        if case.verdict:
            console.print(_said(case.label, case.verdict))
    for note in report.notes:
        console.print(_said("note", note))


def _said(about: str, what: str) -> Padding:
    return Padding(Text.assemble((f"{about}: ", "bold"), what), (0, 0, 0, 2))


def _rich(table: Table) -> RichTable:
    shown = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        collapse_padding=True,
    )
    for index, head in enumerate(table.heads):
        if index < table.num_names:
            shown.add_column(head, style="bold" if index == 0 else "", overflow="fold", vertical="bottom")
        else:
            shown.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    for row in table.rows:
        shown.add_row(*row)
    return shown
