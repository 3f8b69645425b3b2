"""A report as tables on the terminal, and as `report.json`: every number that it prints or draws."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ligo_dist.report.compare import Case, Comparison, Report, Spread
from ligo_dist.report.read import CurvePoint, Quantity, Run, StageResult
from ligo_dist.report.verdicts import notes, saved_percent, verdict
from ligo_dist.runtime.quantities import count, duration, flops, loss, percent

T = TypeVar("T")


def to_json(report: Report) -> str:
    """The report as JSON, the same for the same runs."""
    content = {
        "baseline": None if report.baseline is None else report.baseline.label,
        "cases": [_case(case, report.baseline) for case in report.cases],
        "runs": [
            _run(run, comparison)
            for case in report.cases
            for run, comparison in zip(case.runs, case.comparisons, strict=True)
        ],
        "notes": notes(report),
    }
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _case(case: Case, baseline: Case | None) -> dict[str, Any]:
    return {
        "label": case.label,
        "runs": [run.label for run in case.runs],
        "is_baseline": case.is_baseline,
        "final_loss": _spread(case.final_loss),
        "flops": _measure(case, "flops"),
        "seconds": _measure(case, "seconds"),
        "verdict": verdict(case, baseline),
    }


def _measure(case: Case, quantity: Quantity) -> dict[str, Any]:
    return {
        "excluded": _spread(case.needed(quantity, included=False)),
        "included": _spread(case.needed(quantity, included=True)),
        "saved_excluded": _spread(case.saved(quantity, included=False)),
        "saved_included": _spread(case.saved(quantity, included=True)),
    }


def _spread(value: Spread | None) -> dict[str, Any] | None:
    if value is None:
        return None
    # Earlier reports might have stated upper bounds; who reads this file may still ask.
    return {"mean": value.mean, "half_range": value.half_range, "bound": False, "count": value.count}


def _run(run: Run, comparison: Comparison | None) -> dict[str, Any]:
    before = run.source_before
    return {
        "label": run.label,
        "place": run.place,
        "status": run.status,
        "seed": run.seed,
        "target": run.target.name,
        "source": {
            "own": asdict(run.source_own),
            "begun_from": run.begun_from,
            "before": None if before is None else asdict(before),
        },
        "curve": [_point(point) for point in run.curve],
        "stages": [_stage(run, stage) for stage in run.stages],
        "comparison": None if comparison is None else _comparison(comparison),
    }


def _stage(run: Run, stage: StageResult) -> dict[str, Any]:
    return {
        "name": stage.name,
        "parameters": stage.parameters,
        "tokens": stage.tokens,
        **asdict(stage.cost),
        "source_loss": stage.source_loss,
        "grown_loss": stage.grown_loss,
        "final_loss": stage.final_loss,
        "growth": None if stage.growth is None else asdict(stage.growth),
        "growth_share": _growth_share(run, stage),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    content = asdict(comparison)
    del content["best"], content["first"]
    for quantity in ("flops", "seconds"):
        excluded, included = (comparison.saved(quantity, included=included) for included in (False, True))
        content[quantity] = None if excluded is None else {"excluded": excluded, "included": included}
    return {**content, "best": _point(comparison.best), "first": _point(comparison.first)}


def _point(point: CurvePoint) -> dict[str, Any]:
    return {**asdict(point.cost), "loss": point.loss}


def _finite(value: Any) -> Any:
    """JSON has no number for what is not finite."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _growth_share(run: Run, stage: StageResult) -> float | None:
    """The part of a run's FLOPs that growing into a stage took."""
    whole = run.stages[-1].ends.flops
    return None if stage.growth is None or not whole else stage.growth.flops / whole


def show(console: Console, report: Report) -> None:
    """Print what came of the comparison, the tables and the notes; fits 100 columns."""
    for table in _tables(report):
        if table.row_count:
            console.print(table)
    for case in report.cases:
        if said := verdict(case, report.baseline):
            console.print(_said(case.label, said))
    for note in notes(report):
        console.print(_said("note", note))


def _said(about: str, what: str) -> Padding:
    return Padding(Text.assemble((f"{about}: ", "bold"), what), (0, 0, 0, 2))


def _tables(report: Report) -> list[Table]:
    if report.baseline is None:
        rows = [[_seeds(case), _over(case.final_loss, loss)] for case in report.cases]
        made = [_table("Losses", ["", "final\nloss"], rows)]
    else:
        title = f"to the final loss of {report.baseline.label}"
        made = [
            _savings(f"FLOPs {title}", report.cases, "flops", flops),
            _savings(f"Time {title}", report.cases, "seconds", duration),
        ]
    return [*made, _stages(report), _growths(report)]


def _savings(title: str, cases: Sequence[Case], quantity: Quantity, write: Callable[[float], str]) -> Table:
    """What each case needed to reach the baseline's final loss, and saved; no rows where nothing is known."""
    heads = ["", "final\nloss", "source\nexcluded", "saved", "source\nincluded", "saved"]
    rows = []
    for case in cases:
        row = [_seeds(case), _over(case.final_loss, loss)]
        for included in (False, True):
            needed, saved = case.needed(quantity, included=included), case.saved(quantity, included=included)
            row += [_known(needed, lambda needed: write(needed.mean)), _known(saved, saved_percent)]
        rows.append(row)
    is_known = any(case.needed(quantity, included=False) is not None for case in cases)
    return _table(title, heads, rows if is_known else [])


def _stages(report: Report) -> Table:
    heads = ["run", "stage", "params", "tokens", "FLOPs", "hardware\nFLOPs", "time"]
    heads += ["source\nloss", "just\ngrown", "final\nloss"]
    rows = [
        [
            run.label,
            stage.name,
            _known(stage.parameters, count),
            count(stage.tokens),
            flops(stage.cost.flops),
            _known(stage.cost.hardware_flops, flops),
            _known(stage.cost.seconds, duration),
            loss(stage.source_loss),
            loss(stage.grown_loss),
            loss(stage.final_loss),
        ]
        for run in report.runs
        for stage in run.stages
    ]
    return _table("The stages", heads, rows, num_names=2)


def _growths(report: Report) -> Table:
    """What growing itself cost: learning the operator and applying it."""
    rows = [
        [
            run.label,
            stage.name,
            flops(stage.growth.flops),
            _known(stage.growth.seconds, duration),
            percent(_growth_share(run, stage)),
        ]
        for run in report.runs
        for stage in run.stages
        if stage.growth is not None
    ]
    heads = ["run", "into", "FLOPs", "time", "of the\nrun's FLOPs"]
    return _table("What growing itself cost", heads, rows, num_names=2)


def _seeds(case: Case) -> str:
    name = f"{case.label} (baseline)" if case.is_baseline else case.label
    return name if len(case.runs) == 1 else f"{name}, {len(case.runs)} seeds"


def _over(value: Spread | None, write: Callable[[float], str]) -> str:
    if value is None:
        return "-"
    return write(value.mean) + (f" ±{write(value.half_range)}" if value.count > 1 else "")


def _known(value: T | None, write: Callable[[T], str]) -> str:
    return "-" if value is None else write(value)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], num_names: int = 1) -> Table:
    """A table whose first columns are of names, the others of numbers."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        collapse_padding=True,
    )
    for index, head in enumerate(heads):
        if index < num_names:
            table.add_column(head, style="bold" if index == 0 else "", overflow="fold", vertical="bottom")
        else:
            table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*row)
    return table
