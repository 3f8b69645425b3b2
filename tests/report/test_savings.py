"""What is saved, on curves whose crossing is known; and what is not stated where there is none."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.report import Comparison, Spread, build_report, notes, verdict
from ligo_dist.tracking import source_tags
from recorded_runs import GROWN, SCRATCH, SECONDS_PER_FLOP, SMALL, Leg, Recorder, shifted

OTHER = partial(Recorder, parameters={"precision": "bf16"})
"""Of another case than a run with the same stages."""
GIVEN = Leg("given", [(0, 5.0)])
"""A model that another run trained."""


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    return Recorder(tmp_path / "scratch").record(SCRATCH)


def compared(run: str, baseline: str) -> tuple[Comparison, str, list[str]]:
    """The comparison of a run, the verdict on its case, and the notes."""
    report = build_report([run, baseline], baseline)
    (case,) = (case for case in report.cases if not case.is_baseline)
    (comparison,) = case.comparisons
    assert comparison is not None
    return comparison, verdict(case, report.baseline), notes(report)


def saved(comparison: Comparison) -> list[float | None]:
    """Parts of the FLOPs, source excluded and included."""
    return [comparison.saved("flops", included=included) for included in (False, True)]


@pytest.mark.parametrize(
    ("legs", "outcome", "savings", "said"),
    [
        (
            (SMALL, GROWN),
            "reached",
            [0.74, 0.64],
            "needs 74 % fewer FLOPs (64 % fewer) than scratch to its final loss, and 74 % less time (64 % less);"
            " in brackets, its source's training is counted; of one run, so how far this scatters is not known",
        ),
        (
            (Leg("large", [(75, 5.0), (125, 4.0), (150, 3.9)]),),
            "reached",
            [-0.25, -0.25],
            "needs 25 % more FLOPs than scratch to its final loss, and 25 % more time; of one run, so how far this"
            " scatters is not known",
        ),
        (
            (SMALL, Leg("large", GROWN.points[:3], source_loss=5.0)),
            "not reached",
            [None, None],
            "no saving is stated: it does not reach 4.000: best 4.200 at 22 FLOPs",
        ),
        (  # one lucky evaluation is no crossing
            (Leg("large", [(10, 5.0), (20, 3.9), (30, 4.6), (40, 4.2)]),),
            "not reached",
            [None, None],
            "no saving is stated: it does not reach 4.000: best 3.900 at 20 FLOPs",
        ),
        (
            (SMALL, Leg("large", [(6, 3.9), (14, 3.8)], source_loss=3.9)),
            "below from its first evaluation",
            [None, None],
            "no saving is stated: it is at 3.900 in its first evaluation, at 6 FLOPs, so where it crossed 4.000 was not"
            " measured",
        ),
    ],
    ids=["fewer", "more", "above", "lucky", "below"],
)
def test_a_run_against_one_from_scratch(
    tmp_path: Path,
    scratch: str,
    legs: tuple[Leg, ...],
    outcome: str,
    savings: list[float | None],
    said: str,
) -> None:
    comparison, words, _ = compared(OTHER(tmp_path / "run").record(*legs), scratch)
    assert (comparison.loss, comparison.outcome, words) == (4.0, outcome, said)
    assert saved(comparison) == pytest.approx(savings)
    assert [comparison.saved("seconds", included=side) for side in (False, True)] == pytest.approx(savings)
    assert (comparison.needed is None) == (outcome != "reached")


def test_a_source_that_another_run_exported(tmp_path: Path, scratch: str) -> None:
    """Of that run all counts until its stage `small`, and nothing after it; of a run before it everything."""
    Recorder(tmp_path / "first").record(Leg("tiny", [(3, 7.0)]))
    maker = Recorder(tmp_path / "second")
    maker.record(SMALL, shifted(GROWN, 1.0), begun_from=tmp_path / "first" / "export" / "tiny")
    run = Recorder(tmp_path / "grown").record(
        GIVEN, GROWN, begun_from=tmp_path / "second" / "export" / "small"
    )
    comparison, _, said = compared(run, scratch)
    assert saved(comparison) == pytest.approx([0.74, 1 - (26 + 10 + 3) / 100])
    assert said == []


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
    run.record(GIVEN, GROWN, begun_from=model)
    return run.directory


def included(run: Path, scratch: str) -> float | None:
    return saved(compared(str(run), scratch)[0])[1]


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


@pytest.mark.parametrize("model", ["elsewhere/model", "runs/gone/export/small", "hub/name"])
def test_a_source_of_unknown_making(tmp_path: Path, scratch: str, model: str) -> None:
    run = Recorder(tmp_path / "grown").record(GIVEN, GROWN, begun_from=Path(model))
    comparison, words, (note,) = compared(run, scratch)
    assert saved(comparison) == [pytest.approx(0.74), None]
    assert note.startswith(f"grown: what trained the model that it began with ({model}) is not known")
    assert "74 % fewer FLOPs (not known)" in words


def test_a_target_from_scratch_inherits_nothing(tmp_path: Path, scratch: str) -> None:
    """Whatever stands before it in its schedule."""
    given = Leg("given", [(50, 5.0)])
    run = Recorder(tmp_path / "other").record(given, SCRATCH, begun_from=Path("nobody/knows"))
    assert saved(compared(run, scratch)[0]) == [0, 0]


def test_the_baseline_of_a_schedule_costs_all_that_it_spent(tmp_path: Path) -> None:
    """10 FLOPs for its source, 30 for its target."""
    baseline = Recorder(tmp_path / "baseline").record(SMALL, GROWN)
    faster = Leg("large", [(1, 5.0), (11, 4.0), (21, 3.0)], source_loss=5.0)
    comparison, _, said = compared(OTHER(tmp_path / "run").record(SMALL, faster), baseline)
    assert saved(comparison) == pytest.approx([1 - 13 / 40, 1 - 23 / 40])
    assert said[0] == (
        "baseline trained its source itself (10 FLOPs): that is part of the baseline's cost in all columns."
    )


def test_savings_are_those_of_the_model(tmp_path: Path, scratch: str) -> None:
    """The same run with what it recomputes: other hardware FLOPs, the same saving."""
    plain, recomputing = (
        compared(OTHER(tmp_path / f"grown-{factor}", recomputing=factor).record(SMALL, GROWN), scratch)[0]
        for factor in (1.0, 1.3)
    )
    assert saved(plain) == saved(recomputing)
    assert plain.needed is not None
    assert recomputing.needed is not None
    assert (plain.needed.hardware_flops, recomputing.needed.hardware_flops) == pytest.approx((26, 33.8))
    assert plain.needed.seconds == pytest.approx(26 * SECONDS_PER_FLOP)


# --- what has to be known beside the numbers ---


def given(**parameters: Any) -> dict[str, Any]:
    return {"parameters": parameters}


def trained(steps: int, micro_batch_size: int) -> dict[str, Any]:
    return {"train": {"steps": steps, "micro_batch_size": micro_batch_size}}


@pytest.mark.parametrize(
    ("baseline", "run", "said"),
    [
        ({}, given(precision="bf16"), "precision bf16 (-)"),
        ({}, given(data={"random_flip": True}), "data.random_flip True (-)"),
        (given(model={"vocab_size": 512}), given(model={"vocab_size": 420}), "model.vocab_size 420 (512)"),
        # What a configuration leaves open is no difference: a run from a model has what that says filled in.
        (given(model={"vocab_size": None}), given(model={"vocab_size": 420}), None),
        (given(model={"huggingface": {}}), given(model={"huggingface": {"hidden_act": "relu"}}), None),
        (trained(100, 2), trained(70, 4), ": train.steps 70 (100); in brackets, of scratch."),
        (trained(100, 2), trained(100, 4), None),
        ({"tags": {"world_size": "4", "hosts": "b, c"}}, {}, "machines (1 rank on a; 4 ranks on b, c)"),
        ({}, {"has_seconds": False}, "No times of run: made by a version that did not record"),
        ({}, {"has_hardware_flops": False}, "The FLOPs of run include what was recomputed"),
        ({}, {"status": "KILLED"}, "run is KILLED: it is shown as far as it came."),
    ],
)
def test_a_note_says_what_else_differs(
    tmp_path: Path, baseline: dict[str, Any], run: dict[str, Any], said: str | None
) -> None:
    reference = Recorder(tmp_path / "scratch", **baseline).record(SCRATCH)
    comparison, _, found = compared(Recorder(tmp_path / "run", **run).record(SMALL, GROWN), reference)
    assert len(found) == (said is not None)
    assert all(said in note for note in found if said is not None)
    is_timed = run.get("has_seconds", True)
    assert (comparison.saved("seconds", included=False) is not None) == is_timed


def test_without_a_baseline_nothing_is_compared(scratch: str) -> None:
    report = build_report([scratch])
    (case,) = report.cases
    assert (case.comparisons, verdict(case, report.baseline)) == ([None], "")
    (note,) = notes(report)
    assert "Name a finished run" in note
    assert "--baseline RUN" in note


# --- several seeds ---


def seeds(tmp_path: Path, name: str, *runs: tuple[Leg, ...]) -> list[str]:
    return [Recorder(tmp_path / f"{name}-seed-{n}", seed=n).record(*legs) for n, legs in enumerate(runs)]


def close(mean: float, half_range: float) -> Spread:
    """About that, over two seeds."""
    about: list[Any] = [pytest.approx(mean), pytest.approx(half_range)]
    return Spread(*about, count=2)


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
    mean, half_range = sum(excluded) / 2, (excluded[0] - excluded[1]) / 2
    assert grown.saved("flops", included=False) == close(mean, half_range)
    assert grown.saved("flops", included=True) == close(mean - 0.1, half_range)
    percents = f"{100 * mean:.0f} ± {100 * half_range:.0f} % fewer FLOPs"
    assert percents in verdict(grown, report.baseline)


def test_a_single_baseline_is_that_of_all_seeds(tmp_path: Path, scratch: str) -> None:
    runs = seeds(tmp_path, "grown", (SMALL, GROWN), (SMALL, GROWN))
    (grown, _) = build_report(runs, scratch).cases
    assert grown.saved("flops", included=False) == close(0.74, 0.0)


def test_no_mean_is_made_of_those_seeds_alone_that_reach_it(tmp_path: Path) -> None:
    baselines = seeds(tmp_path, "scratch", (SCRATCH,), (SCRATCH,))
    short = Leg("large", GROWN.points[:2], source_loss=5.0)
    runs = seeds(tmp_path, "grown", (SMALL, GROWN), (SMALL, short), (SMALL, GROWN))
    report = build_report([*runs, *baselines], baselines[0])
    assert report.cases[0].saved("flops", included=False) is None
    assert verdict(report.cases[0], report.baseline) == (
        "no saving is stated: seed 0 reaches 4.000 at 26 FLOPs; seed 1 does not reach 4.000: best 4.600 at 14 FLOPs;"
        " seed 2 has no baseline of its seed, 2"
    )
