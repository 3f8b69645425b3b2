"""The benchmark of the horizon: which runs there are, that they are taken to their end, and what is made of them."""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.horizon import __main__ as horizon
from benchmarks.horizon.results import Scratch, best_rate, law_lines, mixing_time, rows_of, table, write
from benchmarks.horizon.runs import HORIZONS, Case, Run, Target, queue
from benchmarks.horizon.work import RECORD, Workers, in_order, read_results
from ligo_dist.config import config_from, load_config
from ligo_dist.planning import Carry, Law, tokens_count
from ligo_dist.runtime.errors import LigoError
from ligo_dist.schedule import Plan

DEEP = Target("deep", 6e-3, every_text=False)


@pytest.mark.parametrize("name", ["deep", "wide"])
def test_every_run_is_an_ordinary_configuration(name: str):
    target = Target(name, 6e-3, every_text=False)
    runs = in_order(list(queue(target, [0])))
    assert len({run.name for run in runs}) == len(runs) > 80
    for run in runs:
        assert run.needs is None or runs.index(run.needs) < runs.index(run)
        start = {"run": run.needs.name, "step": run.step} if run.needs else None
        config = config_from(run.config | {"start_from": start}, run.name)
        whole = sum(stage.train.steps for stage in config.stages if stage.train)
        part = 0.9 if run.about["kind"] == "trunk" else 1
        assert whole == target.steps(run.about["horizon"], part)


def test_a_run_forks_from_a_checkpoint_that_its_trunk_keeps():
    for run in in_order(list(queue(DEEP, [0]))):
        if run.needs is not None and run.about["kind"] != "trunk":
            assert run.step in run.needs.config["checkpoints"]["keep_steps"], run.name
            own, trunk = (r.config["stages"][0] for r in (run, run.needs))
            assert own["size"] == trunk["size"]
            assert run.step <= trunk["train"]["steps"]
            warm = [stage["train"]["schedule"]["warmup_steps"] for stage in (own, trunk)]
            assert warm == [100, 100]


def test_pieces_of_a_trunk_join():
    pieces = [DEEP.trunk((16, 32), horizon, 0) for horizon in HORIZONS]
    for before, after in pairwise(pieces):
        assert after.needs is before
        assert after.step == before.config["stages"][0]["train"]["steps"]
    flops = sum(piece.flops for piece in pieces)
    assert flops == DEEP.step_flops((16, 32)) * DEEP.steps(300, 0.9)


def test_a_grown_run_costs_what_its_plan_says():
    case = Case(((2, 32), (4, 32), (8, 32)), (0.4, 0.6, 0.8), "damped")
    run = DEEP.grown(case, 20, 1)
    plan = Plan.of(config_from(run.config), 512, 1)
    trained = sum(stage.cost.train.flops for stage in plan.stages)
    trunk = DEEP.step_flops((2, 32)) * run.step
    assert run.flops + trunk == trained
    assert run.step == DEEP.steps(20, 0.4)
    assert [stage.shape.layers for stage in plan.stages] == [2, 4, 8, 16]
    assert {stage.section.grow.method for stage in plan.stages if stage.section.grow} == {"damped"}
    last = plan.last.section.train.schedule
    assert (last.kind, last.final_ratio, last.decay_steps) == ("wsd", 0, DEEP.steps(20) - DEEP.steps(20, 0.9))


# --- taking runs to their end ---

_FAKE = """
import json, pathlib, sys, time, yaml
config = yaml.safe_load(open(sys.argv[1]))
directory = pathlib.Path(config["run_dir"])
start = config.get("start_from")
assert start is None or (pathlib.Path(start["run"]) / "summary.json").exists(), "what it begins from is not there"
if "random" in directory.name:
    sys.exit(1)
time.sleep({seconds})
stage = {{"final_loss": 2.0, "flops": 1.0, "parameters": 3, "tokens": 4}}
(directory / "summary.json").write_text(json.dumps({{"stages": [stage]}}))
step = {{"stage": "x", "phase": "train", "time": "t", "step": start["step"] + 1 if start else 1,
        "evaluate/loss": 2.0, "cumulative/flops": 1.0, "cumulative/seconds": 5.0}}
(directory / "metrics.jsonl").write_text(json.dumps(step) + "\\n")
"""


def workers(root: Path, seconds: float = 0.0, **arguments: Any) -> Workers:
    fake = root / "fake.py"
    fake.write_text(_FAKE.format(seconds=seconds))
    return Workers(root, command=lambda file: [sys.executable, str(fake), str(file)], **arguments)


def some_runs() -> list[Run]:
    cases = [Case(((2, 32),), (0.8,), way) for way in ("damped", "random")]
    return [DEEP.scratch(5, 0), *(DEEP.grown(case, 5, 0) for case in cases)]


def test_runs_are_recorded_when_they_finish_and_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert not workers(tmp_path, jobs=2).take(some_runs())
    names = [name.removeprefix("deep/seed-0/") for name in read_results(tmp_path)]
    assert set(names) == {
        "trunk-16x32-to-5",
        "scratch-16x32-at-5",
        "trunk-2x32-to-5",
        "damped-2x32-at-5-from-0.8",
    }
    assert "random-2x32-at-5-from-0.8: failed with exit code 1" in capsys.readouterr().out
    result = read_results(tmp_path)["deep/seed-0/damped-2x32-at-5-from-0.8"]
    assert (result["loss"], result["way"], result["taus"]) == (2.0, "damped", [0.8])
    # Beside each directory its configuration and its log: names have dots in them.
    beside = {path.name for path in (tmp_path / "deep/seed-0").iterdir() if path.is_file()}
    assert {"damped-2x32-at-5-from-0.8.yaml", "damped-2x32-at-5-from-0.8.log"} <= beside
    with (tmp_path / RECORD).open("a") as file:
        file.write('{"name": "torn')
    before = (tmp_path / RECORD).read_text()
    assert workers(tmp_path).take(some_runs()[:2])
    assert (tmp_path / RECORD).read_text() == before
    assert workers(tmp_path).take([DEEP.scratch(5, 1)])
    assert len(read_results(tmp_path)) == 6


def test_the_time_is_up(tmp_path: Path):
    stopped = workers(tmp_path, seconds=30, until=time.monotonic() + 1)
    assert not stopped.take(some_runs())
    assert stopped.was_stopped
    assert read_results(tmp_path) == {}
    assert workers(tmp_path).take(some_runs()[:2])


# --- what is made of them ---

LAW = Law(e=1.5, a=0.0, alpha=0.0, b=300.0, beta=0.4)


def scratch_result(horizon: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    tokens = DEEP.steps(horizon) * DEEP.tokens_per_step
    parameters = DEEP.parameters((16, 32))
    return {
        "kind": "scratch",
        "target": "deep",
        "seed": seed,
        "rate": 6e-3,
        "horizon": horizon,
        "sizes": [[16, 32]],
        "loss": LAW.loss(parameters, tokens),
        "flops": DEEP.steps(horizon) * DEEP.step_flops((16, 32)),
        "parameters": [parameters],
        "tokens": [tokens],
        "own_flops": 1.0,
        "own_seconds": 60.0,
        "curve": [],
    } | more


def grown_result(horizon: int, seed: int, loss: float) -> dict[str, Any]:
    """Grown from two layers at eight tenths, for half of what its loss costs from scratch."""
    parameters, tokens = DEEP.parameters((16, 32)), DEEP.steps(horizon) * DEEP.tokens_per_step
    cost = LAW.tokens(parameters, loss) * DEEP.step_flops((16, 32)) / DEEP.tokens_per_step
    return scratch_result(
        horizon,
        seed,
        kind="grown",
        way="damped",
        sizes=[[2, 32], [16, 32]],
        taus=[0.8],
        loss=loss,
        flops=cost / 2,
        own_flops=cost / 4,
        parameters=[DEEP.parameters((2, 32)), parameters],
        tokens=[0.8 * tokens, 0.2 * tokens],
        curve=[[100, 1.0, 3.0], [DEEP.steps(horizon), 1.0, loss]],
    )


def some_results() -> list[dict[str, Any]]:
    parameters = DEEP.parameters((16, 32))
    loss = LAW.loss(parameters, 0.7 * DEEP.steps(75) * DEEP.tokens_per_step)
    scratch = [scratch_result(horizon, seed) for horizon in (20, 40, 75) for seed in (0, 1)]
    swept = [
        scratch_result(20, kind="rate", rate=rate, loss=loss) for rate, loss in ((6e-3, 2.1), (1e-2, 2.0))
    ]
    return [*scratch, *swept, *(grown_result(75, seed, loss) for seed in (0, 1))]


def test_what_is_saved_is_measured_against_the_length_that_reaches_the_loss():
    results = some_results()
    scratch = Scratch.of(results)
    (row,) = rows_of(results, scratch)
    assert (row.case, row.horizon, row.measured) == ("damped 2x32 at 0.8", 75, True)
    assert row.saved == pytest.approx([0.5, 0.5], abs=0.002)
    assert row.given == pytest.approx([0.75, 0.75], abs=0.001)
    assert row.by_law == pytest.approx((0.5, 0.5), abs=0.02)
    # 0.7 of the horizon is needed from scratch, 0.2 was the target's own: 0.5 of the source's 0.8.
    assert row.carried == pytest.approx(0.5 / 0.8, abs=0.02)
    inside, outside = scratch.flops(2.1), scratch.flops(1.55)
    assert (inside[1], outside[1]) == (True, False)
    assert outside[0] > scratch.points[-1][0]


def test_when_a_grown_run_has_mixed():
    run = grown_result(20, 0, 2.0)
    last = DEEP.steps(20)
    grown_at = round(0.8 * last)
    run["curve"] = [[grown_at + n, 1.0, 2.1] for n in (1, 50)] + [
        [grown_at + 60, 1.0, 2.004],
        [last, 1.0, 2.0],
    ]
    trunk = scratch_result(20, kind="trunk", curve=[[step, 1.0, 2.0] for step in (1, last)])
    assert mixing_time(run, [trunk]) == pytest.approx(60, abs=1)
    assert mixing_time(run, [scratch_result(20, kind="trunk", seed=1, curve=trunk["curve"])]) is None


def test_the_table_and_the_picture(tmp_path: Path):
    results = some_results()
    assert best_rate(results) == 1e-2
    text = "\n".join(table(results))
    assert "the best is at the edge of what was tried" in text
    assert "50.0 ± 0.0 %" in text
    write(results, ["head"], tmp_path / "out" / "horizon")
    assert (tmp_path / "out/horizon.txt").read_text().startswith("head\n")
    assert (tmp_path / "out/horizon.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(LigoError, match="fewer than 3 horizons"):
        table(results[:4])


def test_the_laws_predict_the_longest_horizon():
    """Runs of a law in which a half of the source's tokens count, at three horizons and of three sizes."""
    law = Law(e=1.2, a=5.0, alpha=0.2, b=300.0, beta=0.4)
    results = []
    for length in (10, 20, 40, 75):
        tokens = DEEP.steps(length) * DEEP.tokens_per_step
        sizes = [(layers, 32) for layers in (2, 4, 16)]
        counts = {size: DEEP.parameters(size) for size in sizes}
        for size, count in counts.items():
            same = {"sizes": [list(size)], "parameters": [count], "flops": tokens * count}
            results.append(scratch_result(length, **same, loss=law.loss(count, tokens)))
        stages = [(counts[2, 32], 0.8 * tokens), (counts[16, 32], 0.2 * tokens)]
        grown = grown_result(length, 0, tokens_count(law, stages, Carry(tokens=0.5)))
        results += [grown, grown | {"way": "stack"}]
    lines = law_lines(results)
    way, tokens_that_count, missed = next(line.split() for line in lines if line.startswith("damped "))[:3]
    assert (way, float(tokens_that_count)) == ("damped", pytest.approx(0.5, abs=0.02))
    assert float(missed) < 1e-3
    assert "At 75, predicted without it:" in lines
    assert "At 75, damped predicted without it and without any damped:" in lines
    predicted = [line for line in lines if line.startswith("damped 2x32 at 0.8")]
    assert len(predicted) == 2
    assert all(abs(float(line.split()[-1])) < 1e-3 for line in predicted)
    assert law_lines(some_results()) == []


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert horizon.main([str(tmp_path), "--list", "--seeds", "1", "--only", "damped.*at-20-"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("deep/seed-0/rate-0.006")
    assert "deep/seed-0/trunk-2x32-to-20" in out
    assert "scratch" not in out
    assert horizon.main([str(tmp_path), "--list", "--only", "sideways"]) != 0
    assert "--only sideways: no run has that in its name" in capsys.readouterr().err
    lines = "".join(json.dumps(r | {"name": str(n)}) + "\n" for n, r in enumerate(some_results()))
    (tmp_path / RECORD).write_text(lines)
    assert horizon.main([str(tmp_path), "--report", str(tmp_path / "horizon")]) == 0
    assert "damped 2x32 at 0.8" in capsys.readouterr().out
    assert horizon.main([str(tmp_path), "--list"]) != 0
    assert "its runs are of a rate of 0.006, not 0.01; give that as --rate" in capsys.readouterr().err
    assert horizon.main([str(tmp_path), "--list", "--rate", "6e-3", "--seeds", "1"]) == 0


def test_the_targets_stand_alone():
    for name, parameters in (("deep", 221_760), ("wide", 437_000)):
        file = Path(horizon.__file__).with_name(f"{name}.yaml")
        assert load_config(file).stages[0].name == "target"
        assert Target(name, 6e-3).parameters(Target(name, 6e-3).size) == pytest.approx(parameters, rel=0.01)
