"""`report.json`: every number that a report prints or draws, and those that they are computed from."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from .groups import Member
from .report import Report
from .runs import Evaluation, Stage
from .savings import curve_of


def to_json(report: Report) -> str:
    """The report as JSON, the same for the same runs."""
    content = {
        "baseline": None if report.baseline is None else report.baseline.label,
        "cases": [asdict(case) for case in report.cases],
        "runs": [_run(report, member) for member in report.members],
        "notes": list(report.notes),
    }
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def growth_share(member: Member, stage: Stage) -> float | None:
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
        "comparison": None if comparison is None else _comparison(asdict(comparison)),
    }


def _stage(member: Member, stage: Stage) -> dict[str, Any]:
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


def _comparison(values: dict[str, Any]) -> dict[str, Any]:
    for name in ("best", "first"):
        cost = values[name].pop("cost")
        values[name] = {**cost, "loss": values[name]["loss"]}
    return values


def _point(evaluation: Evaluation) -> dict[str, Any]:
    return {**asdict(evaluation.cost), "loss": evaluation.loss}


def _finite(value: Any) -> Any:
    """JSON has no number for what is not finite."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
