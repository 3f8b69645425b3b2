"""What is saved, on curves whose crossing is known; and what is not stated where there is none."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.report.compare import Comparison, spread
from ligo_dist.report.report import Report, build_report, saved_percent
from ligo_dist.tracking import source_tags
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
        "needs 74 % fewer FLOPs (64 % fewer) than scratch to its final loss, and 74 % less time (64 % less);"
        " in brackets, its source's training is counted; of one run, so how far this scatters is not known"
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


def project(directory: Path, flops: float) -> Path:
    """A project whose run `runs/source` exported a model, after so many FLOPs."""
    source = Recorder(directory / "runs" / "source")
    source.record(Leg("small", [(flops / 2, 6.0), (flops, 5.0)]))
    (source.directory / "export" / "small").mkdir(parents=True)
    return directory


def grown_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a project, begun from that model as one types it there."""
    monkeypatch.chdir(directory)
    model, run = Path("runs/source/export/small"), Recorder(directory / "runs" / "grown")
    run.tags = {**source_tags(str(model)), "checkpoints.path": str(run.directory / "checkpoints")}
    run.record(Leg("given", [(0, 5.0)]), GROWN, begun_from=model)
    return run.directory


def included(run: Path, scratch: str) -> float | None:
    comparison, _ = compared(str(run), scratch)
    assert comparison.flops is not None
    return comparison.flops.included


def test_a_source_is_found_from_the_run_wherever_the_report_is_made(
    tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = project(tmp_path / "mine", 10)
    run, other = grown_in(mine, monkeypatch), project(tmp_path / "other", 40)
    for place in (mine, other, tmp_path):
        monkeypatch.chdir(place)
        assert included(run, scratch) == pytest.approx(1 - 36 / 100), place
    moved = tmp_path / "moved"
    mine.rename(moved)
    assert included(moved / "runs" / "grown", scratch) == pytest.approx(1 - 36 / 100)
    (moved / "runs" / "grown").rename(tmp_path / "alone")
    assert included(tmp_path / "alone", scratch) is None


def test_another_run_in_the_place_of_the_source_is_not_taken_for_it(
    tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = grown_in(project(tmp_path, 10), monkeypatch)
    Recorder(tmp_path / "runs" / "source").record(Leg("small", [(1, 6.0), (2, 5.0)]))
    assert included(run, scratch) is None


def test_savings_are_those_of_the_model(tmp_path: Path, scratch: str) -> None:
    """The same run with what it recomputes: other hardware FLOPs, the same saving."""
    runs = [
        Recorder(tmp_path / f"grown-{factor}", recomputing=factor, parameters={"precision": str(factor)})
        for factor in (1.0, 1.3)
    ]
    report = build_report([scratch, *(run.record(SMALL, GROWN) for run in runs)], scratch)
    plain, recomputing = (report.comparisons[f"grown-{factor}"] for factor in (1.0, 1.3))
    assert plain.flops == recomputing.flops
    assert plain.needed is not None
    assert recomputing.needed is not None
    assert (plain.needed.hardware_flops, recomputing.needed.hardware_flops) == pytest.approx((26, 33.8))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"precision": "bf16"}, "precision bf16 (-)"),
        ({"data": {"random_flip": True}}, "data.random_flip True (-)"),
    ],
)
def test_what_else_differs_is_said(
    tmp_path: Path, scratch: str, parameters: dict[str, Any], said: str
) -> None:
    run = Recorder(tmp_path / "run", parameters=parameters).record(SMALL, GROWN)
    _, report = compared(run, scratch)
    (note,) = report.notes
    assert said in note


@pytest.mark.parametrize(
    ("model", "other", "said"),
    [
        ({"vocab_size": 420}, {"vocab_size": 512}, ["model.vocab_size 420 (512)"]),
        ({"vocab_size": 420}, {"vocab_size": None}, []),
        ({"huggingface": {"hidden_act": "relu"}}, {"huggingface": {}}, []),
    ],
)
def test_what_a_configuration_leaves_open_is_no_difference(
    tmp_path: Path, model: dict[str, Any], other: dict[str, Any], said: list[str]
) -> None:
    """A run from a model has what that says filled in."""
    baseline = Recorder(tmp_path / "scratch", parameters={"model": other}).record(SCRATCH)
    run = Recorder(tmp_path / "run", parameters={"model": model}).record(SMALL, GROWN)
    notes = compared(run, baseline)[1].notes
    assert len(notes) == len(said)
    assert all(words in note for words, note in zip(said, notes, strict=True))


def test_another_schedule_of_the_last_stage_is_said(tmp_path: Path) -> None:
    def run(name: str, steps: int, micro_batch_size: int) -> str:
        train = {"steps": steps, "micro_batch_size": micro_batch_size}
        return Recorder(tmp_path / name, train=train).record(*((SMALL, GROWN) if name != "a" else (SCRATCH,)))

    baseline = run("a", 100, 2)
    (note,) = compared(run("b", 70, 4), baseline)[1].notes
    assert note.endswith(": train.steps 70 (100); in brackets, of a.")
    assert compared(run("c", 100, 4), baseline)[1].notes == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.523], "52 %"),
        ([-0.035], "-4 %"),
        ([0.45, 0.60], "52 ± 7 %"),
        ([0.594, 0.588], "59.1 ± 0.3 %"),
    ],
)
def test_no_more_digits_than_seeds_agree_on(values: list[float], words: str) -> None:
    saved = spread(values)
    assert saved is not None
    assert saved_percent(saved) == words


@pytest.mark.parametrize("model", ["elsewhere/model", "runs/gone/export/small", "hub/name"])
def test_a_source_of_unknown_making(tmp_path: Path, scratch: str, model: str) -> None:
    recorder = Recorder(tmp_path / "grown")
    run = recorder.record(Leg("given", [(0, 5.0)]), GROWN, begun_from=Path(model))
    comparison, report = compared(run, scratch)
    assert comparison.flops is not None
    assert (comparison.flops.excluded, comparison.flops.included) == (pytest.approx(0.74), None)
    assert report.notes == [
        f"grown: what trained the model that it began with ({model}) is not known: that is no RUN_DIR/export/STAGE of a"
        " run that is still there. So nothing is stated with its source included."
    ]
    assert "74 % fewer FLOPs (not known)" in verdict(report, "grown")


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
        "baseline trained its source itself (10 FLOPs): that is part of the baseline's cost in all columns.",
        "run differs from baseline in more than how its model is made, so that a saving is that of all of it: precision"
        " bf16 (-); in brackets, of baseline.",
    ]


def test_a_run_that_needs_more_saves_less_than_nothing(tmp_path: Path, scratch: str) -> None:
    slow = Leg("large", [(75, 5.0), (125, 4.0), (150, 3.9)])
    comparison, report = compared(OTHER(tmp_path / "slow").record(slow), scratch)
    assert comparison.flops is not None
    assert comparison.flops.excluded == pytest.approx(-0.25)
    assert verdict(report, "slow") == (
        "needs 25 % more FLOPs than scratch to its final loss, and 25 % more time; of one run, so how far this scatters"
        " is not known"
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


def test_runs_that_counted_what_was_recomputed_are_told(tmp_path: Path, scratch: str) -> None:
    run = Recorder(tmp_path / "old", has_hardware_flops=False).record(SMALL, GROWN)
    (note,) = compared(run, scratch)[1].notes
    assert note.startswith("The FLOPs of old include what was recomputed")


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
    assert f"{50 * sum(excluded):.0f} ± {50 * (excluded[0] - excluded[1]):.0f} % fewer FLOPs" in grown.verdict


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
