"""The methods benchmark: reading runs, FLOPs to a loss, savings, the table, the plan; on made-up metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods
from benchmarks.methods_cases import (
    CASES,
    FULL,
    QUICK,
    SCALES,
    SCRATCH,
    Case,
    case_config,
    source_config,
    steps,
)
from benchmarks.methods_reading import (
    Curve,
    Point,
    Reference,
    flops_to_reach,
    loss_at,
    make_reference,
    read_curve,
    saving,
)
from benchmarks.methods_report import Measured, band, draw, make_row, table
from benchmarks.methods_runs import Run, Workers
from ligo_dist.config.load import config_from


def _points(*pairs: tuple[float, float], phase: str = "train") -> list[Point]:
    return [Point(flops, loss, phase, number) for number, (flops, loss) in enumerate(pairs, 1)]


def _record(stage: str, phase: str, step: int, flops: float, loss: float, **more: float) -> dict[str, Any]:
    metrics = {"evaluate/loss": loss, "cumulative/flops": flops, **more}
    return {"time": "-", "stage": stage, "phase": phase, "step": step, **metrics}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """A run that trains its own source for 10 steps, learns for 4, grows, trains for 6."""
    records = [
        _record("source", "train", 5, 50.0, 5.0),
        _record("source", "train", 10, 100.0, 4.0),
        {"time": "-", "stage": "target", "phase": "learn", "step": 12, "learn/loss": 3.9},
        _record("target", "learn", 14, 180.0, 3.8),
        _record("target", "grow", 14, 181.0, 3.7, **{"grow/source_loss": 4.0}),
        {"time": "-", "stage": "target", "phase": "grow", "step": 14, "grow/preservation_error": 0.0},
        _record("target", "train", 17, 241.0, 3.5),
        _record("target", "train", 20, 301.0, 3.3),
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_curve_counts_from_where_the_target_begins(metrics: Path) -> None:
    curve = read_curve(metrics, "target")
    assert curve.own_source_flops == 100
    assert curve.source_loss == 4.0
    assert curve.grown_loss == 3.7
    assert curve.final == Point(201, 3.3, "train", 6)
    assert [(point.phase, point.step, point.flops) for point in curve.points] == [
        ("learn", 4, 80),
        ("grow", 0, 81),
        ("train", 3, 141),
        ("train", 6, 201),
    ]
    assert [point.step for point in curve.until(3).points] == [0, 3]
    assert [point.step for point in curve.until(None).points] == [0, 3, 6]


def test_a_run_without_a_loss_is_refused(metrics: Path) -> None:
    with pytest.raises(ValueError, match="no validation loss of stage 'large'"):
        read_curve(metrics, "large")


def test_flops_to_a_loss_lie_between_the_points() -> None:
    points = _points((10, 5.0), (20, 4.0), (30, 3.0))
    assert flops_to_reach(points, 4.5) == 15
    assert flops_to_reach(points, 3.0) == 30
    assert flops_to_reach(points, 6.0) == 10
    assert flops_to_reach(points, 2.9) is None


def test_the_loss_at_a_budget_is_interpolated() -> None:
    points = _points((10, 5.0), (20, 4.0), (20, 3.0), (30, 2.0))
    assert loss_at(points, 15) == 4.5
    assert loss_at(points, 25) == 2.5
    assert loss_at(points, 9) is None
    assert loss_at(points, 31) is None


def test_the_reference_is_the_end_of_scratch_at_the_full_rate() -> None:
    scratch = Curve(_points((10, 5.0), (20, 3.0), (30, 4.0), (40, 2.5)))
    assert make_reference(scratch, steps=3) == Reference(loss=3.5, flops=30, final_loss=2.5, final_flops=40)


def test_savings_are_parts_of_scratch_and_bounds_where_it_was_not_reached() -> None:
    reference = Reference(loss=4.5, flops=100, final_loss=4.0, final_flops=120)
    points = _points((10, 5.0), (20, 4.0))
    reached = saving(points, 30, reference)
    assert (reached.excluded, reached.included, reached.reached) == (0.85, pytest.approx(0.55), True)
    ended = saving(points, 30, Reference(3.5, 100, 3.0, 120))
    assert (ended.excluded, ended.included, ended.reached) == (0.8, pytest.approx(0.5), False)


def _measured(losses: list[float], *, source: float = 0.0, steps: int) -> Measured:
    points = [Point(10.0 * number, loss, "train", number) for number, loss in enumerate(losses, 1)]
    return Measured(Curve(points), source, steps)


def test_the_table_ranks_by_what_is_saved() -> None:
    scratch = {seed: _measured([6, 5, 4, 3.5], steps=3) for seed in (0, 1)}
    better = {
        0: _measured([4.5, 3.5, 3.0], source=6.0, steps=2),
        1: _measured([4.0, 3.5, 3.2], source=6.0, steps=2),
    }
    worse = {seed: _measured([6, 5, 4.5], source=6.0, steps=2) for seed in (0, 1)}
    references = {seed: make_reference(run.curve, run.steps) for seed, run in scratch.items()}
    lines = table(
        [
            make_row(name, runs, references)
            for name, runs in {"worse": worse, "scratch": scratch, "better": better}.items()
        ]
    )
    assert [line.split()[0] for line in lines] == ["method", "better", "scratch", "worse"]
    # Reached after 15 and 10 of 30 FLOPs; the source cost 6 more.
    assert "58 ±8" in lines[1]
    assert "38 ±8" in lines[1]
    assert "+0.400 ±0.100" in lines[1]
    assert "<33 ±0" in lines[3]
    assert "-1.000" in lines[3]


def test_a_band_goes_as_far_as_all_of_its_curves() -> None:
    long, short = _measured([6, 5, 4], steps=3).curve, _measured([5, 3], steps=2).curve
    flops, losses = band([long, short])
    assert flops.tolist() == [10, 20]
    assert losses.tolist() == [[6, 5], [5, 3]]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    scratch = {seed: _measured([6, 5, 4, 3.5], steps=3) for seed in (0, 1)}
    draw(tmp_path / "picture.png", {"scratch": scratch, "other": scratch}, "title", ["scratch"])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", CASES)
def test_every_case_is_a_valid_configuration(name: str, scale: str, tmp_path: Path) -> None:
    raw = case_config(SCALES[scale], CASES[name], 0, tmp_path / "cache", tmp_path / "export")
    if "from" in raw["stages"][0]:  # not there: what the source is stands in its place
        raw["stages"][0] = source_config(SCALES[scale], 0, tmp_path / "cache")["stages"][0]
    config = config_from({**raw, "run_dir": "run"})
    assert config.stages[1].train.schedule.decay_steps == SCALES[scale].decay


def test_the_shares_name_cases_and_hold_scratch() -> None:
    for share in (FULL, QUICK):
        assert set(share) <= set(CASES)
        assert SCRATCH in share


def test_a_source_of_its_own_costs_what_the_case_says() -> None:
    scale = SCALES["full"]
    stage = case_config(scale, CASES["g-stack"], 0, Path("cache"), Path("export"))["stages"][0]
    assert stage["size"]["width"] == scale.target["width"]
    assert stage["size"]["layers"] * 4 == scale.target["layers"]
    spent = stage["train"]["steps"] * scale.step_flops(stage["size"])
    assert spent == pytest.approx(scale.source_flops, rel=0.01)


def test_whole_schedules_have_the_steps_of_scratch() -> None:
    scale = SCALES["full"]
    for name in ("progressive-1", "progressive-0"):
        stages = case_config(scale, CASES[name], 0, Path("cache"), Path("export"))["stages"]
        assert sum(stage["train"]["steps"] for stage in stages) == scale.budget + scale.decay
    assert steps(scale, Case("", part=0.25)) == scale.budget / 4


class _FakeWorkers(Workers):
    """Notes what would be run; runs named after a fruit fail."""

    def __init__(self) -> None:
        super().__init__(jobs=2, threads=1, commit="abc")
        self.called: list[str] = []

    def _call(self, command: list[str], output: Path) -> int:
        name = output.parent.name
        self.called.append(name)
        output.write_text("some\nligo-dist: steps: too ripe\nrest\n")
        return int(name == "pear")


def test_a_finished_run_is_not_repeated_until_its_configuration_changes(tmp_path: Path) -> None:
    runs = [Run("a", tmp_path / "a", {"seed": 1}), Run("b", tmp_path / "b", {"betas": (0.9, 0.95)})]
    workers = _FakeWorkers()
    assert [outcome.error for outcome in workers.run(runs)] == [None, None]
    workers.run([Run("a", tmp_path / "a", {"seed": 2}), runs[1]])
    assert sorted(workers.called) == ["a", "a", "b"]
    assert (tmp_path / "a.yaml").read_text() == f"seed: 2\nrun_dir: {tmp_path / 'a'}\n"


def test_a_run_whose_source_failed_fails_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = _FakeWorkers()
    pear, apple = tmp_path / "pear", tmp_path / "apple"
    outcomes = workers.run(
        [Run("pear", pear, {}), Run("pie", tmp_path / "pie", {}, needs=pear), Run("apple", apple, {})]
    )
    assert [outcome.error for outcome in outcomes] == ["ligo-dist: steps: too ripe", "pear failed", None]
    assert sorted(workers.called) == ["apple", "pear"]
    assert "pie: FAILED: pear failed" in capsys.readouterr().out


def test_the_benchmark_from_end_to_end_with_workers_that_only_write_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(self: Workers, command: list[str], output: Path) -> int:
        flops = 1e11 if output.parent.name == SCRATCH else 3e10
        losses = (6.0, 5.0, 4.0)
        records = [_record("target", "train", n, flops * n, loss) for n, loss in enumerate(losses, 1)]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (output.parent / "metrics.jsonl").write_text(lines)
        output.write_text("")
        return int(output.parent.name == "stack")

    monkeypatch.setattr(Workers, "_call", call)
    arguments = ["--quick", "--only", "ligo", "stack", "--out", str(tmp_path), "--results", str(tmp_path)]
    assert methods.main(arguments) == 1
    out = capsys.readouterr().out
    assert "FAILED, so not measured: stack 0: no output" in out
    assert next(tmp_path.glob("*-methods-quick.png")).exists()
    lines = next(tmp_path.glob("*-methods-quick.txt")).read_text().splitlines()
    row = next(line.split() for line in lines if line.startswith("ligo "))
    assert "70" in row  # per cent of scratch's FLOPs that are saved, the source's training not counted
