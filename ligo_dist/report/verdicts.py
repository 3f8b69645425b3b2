"""A report in sentences: what came of each case, and what has to be known to read the numbers right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ligo_dist.report.compare import Case, Comparison, Report, Spread
from ligo_dist.report.grouping import MANNER
from ligo_dist.report.read import Cost, Quantity, Run
from ligo_dist.runtime.quantities import flops

_MOST_DIFFERENCES = 4


def saved_percent(saved: Spread) -> str:
    """A saving over the seeds, `31 ± 5 %`; with a tenth, `31.2 ± 0.8 %`, where they agree to one percent. Of one run,
    whose scatter is not known, `31 %`."""
    digits = 1 if saved.count > 1 and saved.half_range < 0.01 else 0
    scatter = f" ± {100 * saved.half_range:.{digits}f}" if saved.count > 1 else ""
    return f"{100 * saved.mean:.{digits}f}{scatter} %"


def verdict(case: Case, baseline: Case | None) -> str:
    """What came of holding a case against the baseline, in a sentence; empty without one."""
    if baseline is None:
        return ""
    if case.is_baseline:
        return "the baseline"
    if case.saved("flops", included=False) is None:
        return "no saving is stated: " + "; ".join(_outcomes(case))
    has_source = any(run.source_total != Cost() for run in case.runs)
    said = f"needs {_less(case, 'flops', has_source)} than {baseline.label} to its final loss"
    if case.saved("seconds", included=False) is not None:
        said += f", and {_less(case, 'seconds', has_source)}"
    said += "; in brackets, its source's training is counted" if has_source else ""
    return said + ("; of one run, so how far this scatters is not known" if len(case.runs) == 1 else "")


def _less(case: Case, quantity: Quantity, has_source: bool) -> str:
    """`31.2 % fewer FLOPs (20.1 % fewer)`; more, where it is."""
    less, what = ("fewer", "FLOPs") if quantity == "flops" else ("less", "time")
    saved, whole = (case.saved(quantity, included=included) for included in (False, True))
    assert saved is not None
    in_all = "not known" if whole is None else _signed(whole, less)
    return f"{_signed(saved, less)} {what}" + (f" ({in_all})" if has_source else "")


def _signed(saved: Spread, less: str) -> str:
    if saved.mean >= 0:
        return f"{saved_percent(saved)} {less}"
    return f"{saved_percent(replace(saved, mean=-saved.mean))} more"


def _outcomes(case: Case) -> list[str]:
    """What each run of a case came to."""
    said = []
    for run, comparison in zip(case.runs, case.comparisons, strict=True):
        name = f"seed {run.seed}" if len(case.runs) > 1 else "it"
        missing = f"has no baseline of its seed, {run.seed}"
        said.append(f"{name} {missing if comparison is None else _outcome(comparison)}")
    return said


def _outcome(comparison: Comparison) -> str:
    """Whether a run's curve crosses the loss, in words."""
    best, first, loss = comparison.best, comparison.first, f"{comparison.loss:.3f}"
    if comparison.needed is not None:
        return f"reaches {loss} at {flops(comparison.needed.flops)} FLOPs"
    if comparison.outcome == "not reached":
        return f"does not reach {loss}: best {best.loss:.3f} at {flops(best.cost.flops)} FLOPs"
    return (
        f"is at {first.loss:.3f} in its first evaluation, at {flops(first.cost.flops)} FLOPs, so where it crossed"
        f" {loss} was not measured"
    )


def notes(report: Report) -> list[str]:
    """A sentence or two for each thing that is not as it might be thought to be."""
    runs, baseline = report.runs, report.baseline
    if baseline is None:
        said = [
            "No baseline was named, so no saving is stated. Name a finished run to hold the others against, usually the"
            " same target trained from scratch: --baseline RUN."
        ]
    else:
        said = _of_baseline(baseline)
        said += [
            note for case in report.cases if not case.is_baseline for note in _of_differences(case, baseline)
        ]
    said += [
        f"{run.label}: what trained the model that it began with ({run.begun_from}) is not known: that is no"
        " RUN_DIR/export/STAGE of a run that is still there. So nothing is stated with its source included."
        for run in runs
        if run.source_total is None
    ]
    said += [
        f"{run.label} is {run.status}: it is shown as far as it came."
        for run in runs
        if run.status != "FINISHED"
    ]
    if timeless := [run.label for run in runs if run.target.ends.seconds is None]:
        said.append(
            f"No times of {_listed(timeless)}: made by a version that did not record cumulative/seconds."
        )
    if recomputing := [run.label for run in runs if not _knows_model_flops(run)]:
        said.append(
            f"The FLOPs of {_listed(recomputing)} include what was recomputed, in learning and with activation"
            " checkpointing: made by a version that counted it in cumulative/flops."
        )
    return said + _of_machines(runs)


def _knows_model_flops(run: Run) -> bool:
    return run.knows_model_flops and (run.source_maker is None or run.source_maker.knows_model_flops)


def _of_baseline(baseline: Case) -> list[str]:
    """What counts as the baseline's cost."""
    first = baseline.runs[0]
    said = []
    if first.source_own.flops:
        said.append(
            f"{baseline.label} trained its source itself ({flops(first.source_own.flops)} FLOPs): that is part of the"
            " baseline's cost in all columns."
        )
    if first.begun_from is not None:
        said.append(
            f"{baseline.label} began with {first.begun_from}: what trained that is part of the baseline's cost where"
            " sources are included."
        )
    return said


def _of_differences(case: Case, baseline: Case) -> list[str]:
    """In what a case differs from the baseline beside how its models are made: `train.steps 70 (100)`."""
    own, other = _training(case.runs[0]), _training(baseline.runs[0])

    def differs(key: str) -> bool:
        values = own.get(key, "None"), other.get(key, "None")
        # What the configuration of a model leaves open, its family or the model that is begun with says.
        return values[0] != values[1] and not (key.startswith("model.") and "None" in values)

    found = [f"{key} {own.get(key, '-')} ({other.get(key, '-')})" for key in {**own, **other} if differs(key)]
    if not found:
        return []
    more = f" and {len(found) - _MOST_DIFFERENCES} more" if len(found) > _MOST_DIFFERENCES else ""
    return [
        f"{case.label} differs from {baseline.label} in more than how its model is made, so that a saving is that of"
        f" all of it: {', '.join(found[:_MOST_DIFFERENCES])}{more}; in brackets, of {baseline.label}."
    ]


def _training(run: Run) -> dict[str, str]:
    """What the target is and how it is trained; not how it is made, nor how its batches are computed."""
    last = f"stages.{len(run.planned_stages) - 1}."
    sections = ("precision", "model.", "data.random_", f"{last}train.")
    found = {"parameters": "-" if run.target.parameters is None else f"{run.target.parameters:,}"}
    for name, value in run.parameters.items():
        if name.startswith(sections) and not name.endswith(MANNER):
            found[name.removeprefix(last)] = value
    return found


def _of_machines(runs: Sequence[Run]) -> list[str]:
    places = {(run.tags.get("world_size", "?"), run.tags.get("hosts", "?")) for run in runs}
    if len(places) == 1:
        return []
    where = sorted(f"{ranks} rank{'' if ranks == '1' else 's'} on {hosts}" for ranks, hosts in places)
    return [
        f"The runs were made on different machines ({'; '.join(where)}), so their times compare these too."
    ]


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
