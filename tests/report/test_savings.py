"""What is saved, on curves whose crossing is known; and what is not stated where there is none."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ligo_dist.report.compare import Comparison
from ligo_dist.report.report import Report, build_report
from recorded_runs import GROWN, SCRATCH, SECONDS_PER_FLOP, SMALL, Leg, Recorder, shifted

OTHER = partial(Recorder, parameters={"precision": "bf16"})
"""Of another case than a run with the same stages."""


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    return Recorder(tmp_path / "scratch").record(SCRATCH)


def compared(run: str, baseline: str) -> tuple[Comparison, Report]:
    report = build_report([run, baseline], baseline)
    label = next(member.label for member in report.members if member.run.recorded.place == run)
    return report.comparisons[label], report


def verdict(report: Report, label: str) -> str:
    return next(case.verdict for case in report.cases if case.label == label)


def test_a_run_that_trains_its_own_source(tmp_path: Path, scratch: str) -> None:
    run = Recorder(tmp_path / "grown").record(SMALL, GROWN)
    comparison, report = compared(run, scratch)
    assert (comparison.outcome, comparison.loss) == ("reached", 4.0)
    assert comparison.needed is not None
    assert comparison.needed.flops == pytest.approx(26)
    assert comparison.needed_in_all is not None
    assert comparison.needed_in_all.flops == pytest.approx(36)
    for saved in (comparison.flops, comparison.seconds):
        assert saved is not None
        assert (saved.excluded, saved.included) == (pytest.approx(0.74), pytest.approx(0.64))
    assert comparison.needed.seconds == pytest.approx(26 * SECONDS_PER_FLOP)
    assert verdict(report, "grown") == (
        "needs 74.0 % fewer FLOPs (64.0 % fewer) than scratch to its final loss, and 74.0 % less time (64.0 % less);"
        " in brackets, its source's training is counted"
    )
    assert verdict(report, "scratch") == "the baseline"


def test_a_source_that_another_run_exported(tmp_path: Path, scratch: str) -> None:
    """Of that run all counts until its stage `small`, and nothing after it; of a run before it everything."""
    Recorder(tmp_path / "first").record(Leg("tiny", [(3, 7.0)]))
    maker = Recorder(tmp_path / "second")
    maker.record(SMALL, shifted(GROWN, 1.0), begun_from=tmp_path / "first" / "export" / "tiny")
    run = Recorder(tmp_path / "grown")
    run.record(Leg("given", [(0, 5.0)]), GROWN, begun_from=tmp_path / "second" / "export" / "small")
    comparison, report = compared(str(run.directory), scratch)
    assert comparison.flops is not None
    assert comparison.flops.excluded == pytest.approx(0.74)
    assert comparison.flops.included == pytest.approx(1 - (26 + 10 + 3) / 100)
    assert report.notes == []


@pytest.mark.parametrize("model", ["elsewhere/model", "runs/gone/export/small", "hub/name"])
def test_a_source_of_unknown_making(tmp_path: Path, scratch: str, model: str) -> None:
    recorder = Recorder(tmp_path / "grown")
    run = recorder.record(Leg("given", [(0, 5.0)]), GROWN, begun_from=Path(model))
    comparison, report = compared(run, scratch)
    assert comparison.flops is not None
    assert (comparison.flops.excluded, comparison.flops.included) == (pytest.approx(0.74), None)
    assert report.notes == [
        f"grown: what trained the model that it began with ({model}) is not known: that is no RUN_DIR/export/STAGE of a"
        " run here. So nothing is stated with its source included."
    ]
    assert "74.0 % fewer FLOPs (not known)" in verdict(report, "grown")


def test_a_target_from_scratch_inherits_nothing(tmp_path: Path, scratch: str) -> None:
    """Whatever stands before it in its schedule."""
    recorder = Recorder(tmp_path / "other")
    run = recorder.record(Leg("given", [(50, 5.0)]), SCRATCH, begun_from=Path("nobody/knows"))
    comparison, _ = compared(run, scratch)
    assert comparison.flops is not None
    assert (comparison.flops.excluded, comparison.flops.included) == (0, 0)


def test_the_baseline_of_a_schedule_costs_all_that_it_spent(tmp_path: Path) -> None:
    """10 FLOPs for its source, 30 for its target."""
    baseline = Recorder(tmp_path / "baseline").record(SMALL, GROWN)
    faster = Leg("large", [(1, 5.0), (11, 4.0), (21, 3.0)], source_loss=5.0)
    comparison, report = compared(OTHER(tmp_path / "run").record(SMALL, faster), baseline)
    assert comparison.flops is not None
    assert comparison.flops.excluded == pytest.approx(1 - 13 / 40)
    assert comparison.flops.included == pytest.approx(1 - 23 / 40)
    assert report.notes == [
        "baseline trained its source itself (10 FLOPs): that is part of the baseline's cost in all columns."
    ]


def test_a_run_that_needs_more_saves_less_than_nothing(tmp_path: Path, scratch: str) -> None:
    slow = Leg("large", [(75, 5.0), (125, 4.0), (150, 3.9)])
    comparison, report = compared(OTHER(tmp_path / "slow").record(slow), scratch)
    assert comparison.flops is not None
    assert comparison.flops.excluded == pytest.approx(-0.25)
    assert verdict(report, "slow") == (
        "needs 25.0 % more FLOPs than scratch to its final loss, and 25.0 % more time"
    )


def test_a_run_that_ends_above_has_saved_nothing_that_was_seen(tmp_path: Path, scratch: str) -> None:
    run = Recorder(tmp_path / "above").record(SMALL, Leg("large", GROWN.points[:3], source_loss=5.0))
    comparison, report = compared(run, scratch)
    assert (comparison.outcome, comparison.needed, comparison.flops) == ("not reached", None, None)
    assert verdict(report, "above") == (
        "no saving is stated: it does not reach 4.000: best 4.200 at 22 FLOPs"
    )


def test_one_lucky_evaluation_is_no_crossing(tmp_path: Path, scratch: str) -> None:
    lucky = Leg("large", [(10, 5.0), (20, 3.9), (30, 4.6), (40, 4.2)])
    comparison, _ = compared(OTHER(tmp_path / "lucky").record(lucky), scratch)
    assert (comparison.outcome, comparison.flops) == ("not reached", None)


def test_a_run_that_begins_below_was_not_seen_to_cross(tmp_path: Path, scratch: str) -> None:
    below = Leg("large", [(6, 3.9), (14, 3.8)], source_loss=3.9)
    comparison, report = compared(Recorder(tmp_path / "below").record(SMALL, below), scratch)
    assert (comparison.outcome, comparison.needed) == ("below from its first evaluation", None)
    assert (comparison.flops, comparison.seconds) == (None, None)
    assert verdict(report, "below") == (
        "no saving is stated: it is at 3.900 in its first evaluation, at 6 FLOPs, so where it crossed 4.000 was not"
        " measured"
    )


def test_runs_of_older_versions_have_no_times(tmp_path: Path, scratch: str) -> None:
    run = Recorder(tmp_path / "old", has_seconds=False).record(SMALL, GROWN)
    comparison, report = compared(run, scratch)
    assert comparison.flops is not None
    assert comparison.seconds is None
    assert report.notes == ["No times of old: made by a version that did not record cumulative/seconds."]


def test_without_a_baseline_nothing_is_compared(tmp_path: Path, scratch: str) -> None:
    report = build_report([scratch])
    assert (report.comparisons, report.baseline) == ({}, None)
    assert [case.verdict for case in report.cases] == [""]
    assert "Name a finished run" in report.notes[0]
    assert "--baseline RUN" in report.notes[0]


# --- several seeds ---


def seeds(tmp_path: Path, name: str, *runs: tuple[Leg, ...]) -> list[str]:
    return [Recorder(tmp_path / f"{name}-seed-{n}", seed=n).record(*legs) for n, legs in enumerate(runs)]


def test_each_seed_is_held_against_its_own_baseline(tmp_path: Path) -> None:
    """With seed 1 all losses are higher by 1: held against the other baseline they would reach nothing."""
    baselines = seeds(tmp_path, "scratch", (SCRATCH,), (shifted(SCRATCH, 1.0),))
    slower = Leg("large", [(6, 6.0), (26, 5.5), (46, 4.9)], source_loss=6.0)
    runs = seeds(tmp_path, "grown", (SMALL, GROWN), (SMALL, slower))
    report = build_report([*runs, *baselines], baselines[1])
    grown, scratch = report.cases
    assert (grown.label, scratch.label, scratch.is_baseline) == ("grown", "scratch", True)
    second = 26 + 20 * 0.5 / 0.6  # where the slower one is at 5.0
    excluded = [1 - 26 / 100, 1 - second / 100]
    saved = grown.flops.saved_excluded
    assert saved is not None
    assert saved.count == 2
    assert saved.mean == pytest.approx(sum(excluded) / 2)
    assert saved.half_range == pytest.approx((excluded[0] - excluded[1]) / 2)
    included = grown.flops.saved_included
    assert included is not None
    assert included.mean == pytest.approx(sum(excluded) / 2 - 0.1)
    assert f"{50 * sum(excluded):.1f} ± {50 * (excluded[0] - excluded[1]):.1f} % fewer FLOPs" in grown.verdict


def test_a_single_baseline_is_that_of_all_seeds(tmp_path: Path, scratch: str) -> None:
    runs = seeds(tmp_path, "grown", (SMALL, GROWN), (SMALL, GROWN))
    (grown, _) = build_report(runs, scratch).cases
    assert grown.flops.saved_excluded is not None
    assert (grown.flops.saved_excluded.mean, grown.flops.saved_excluded.count) == (pytest.approx(0.74), 2)


def test_no_mean_is_made_of_those_seeds_alone_that_reach_it(tmp_path: Path) -> None:
    baselines = seeds(tmp_path, "scratch", (SCRATCH,), (SCRATCH,))
    short = Leg("large", GROWN.points[:2], source_loss=5.0)
    runs = seeds(tmp_path, "grown", (SMALL, GROWN), (SMALL, short), (SMALL, GROWN))
    report = build_report([*runs, *baselines], baselines[0])
    assert report.cases[0].flops.saved_excluded is None
    assert report.cases[0].verdict == (
        "no saving is stated: seed 0 reaches 4.000 at 26 FLOPs; seed 1 does not reach 4.000: best 4.600 at 14 FLOPs;"
        " seed 2 has no baseline of its seed, 2"
    )
