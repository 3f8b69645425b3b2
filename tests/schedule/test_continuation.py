"""Which checkpoint a run begins from, and what of two configurations has to agree: without torch, from plain values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from example import example, raw_example
from ligo_dist.config import StartFrom, config_from
from ligo_dist.runtime.errors import CheckpointError
from ligo_dist.schedule import (
    RunState,
    check_same_run,
    check_start,
    has_begun,
    start_checkpoint,
    taken_otherwise,
)

HERE = Path("step-00000006-0-train")


def checkpoints(run: Path, *names: str) -> None:
    for name in names:
        directory = run / "checkpoints" / name
        directory.mkdir(parents=True)
        stage, phase = name.split("-")[2:]
        state = at(int(stage), phase, 1).to_dict()
        content = {"config": example().resolved(), "state": state}
        (directory / "COMPLETE.json").write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    places = ("06-0-train", "10-0-train", "10-1-learn", "15-1-learn", "15-1-train")
    checkpoints(tmp_path, *(f"step-000000{place}" for place in places))
    (tmp_path / "checkpoints" / "step-00000012-1-train").mkdir()  # not complete
    return tmp_path


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ({"step": 6}, "step-00000006-0-train"),
        ({"step": 10, "stage": "small"}, "step-00000010-0-train"),
        ({"step": 15, "phase": "learn"}, "step-00000015-1-learn"),
        ({"step": 15, "stage": "large", "phase": "train"}, "step-00000015-1-train"),
    ],
)
def test_the_checkpoint_of_a_step(run: Path, start: dict[str, Any], name: str):
    assert start_checkpoint(StartFrom(run=str(run), **start)).name == name
    assert start_checkpoint(StartFrom(run=run.name, **start), run.parent).name == name


@pytest.mark.parametrize(
    ("start", "key", "words"),
    [
        ({"step": 12}, "start_from.step: 12", "there are: 6, 10, 15"),
        (
            {"step": 10},
            "start_from.stage: null: 2",
            "{stage: small, phase: train}, {stage: large, phase: learn}",
        ),
        (
            {"step": 15},
            "start_from.phase: null: 2",
            "{stage: large, phase: learn}, {stage: large, phase: train}",
        ),
        ({"step": 6, "stage": "large"}, "start_from.stage: 'large'", "{stage: small, phase: train}"),
        ({"step": 6, "phase": "learn"}, "start_from.phase: 'learn'", "{stage: small, phase: train}"),
    ],
)
def test_one_that_is_not_there_or_not_the_only_one(run: Path, start: dict[str, Any], key: str, words: str):
    with pytest.raises(CheckpointError) as caught:
        start_checkpoint(StartFrom(run=str(run), **start))
    assert str(caught.value).startswith(key)
    assert words in str(caught.value)


def test_a_directory_without_checkpoints(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"start_from\.run: .* has no checkpoints"):
        start_checkpoint(StartFrom(run=str(tmp_path), step=1))
    assert not has_begun(tmp_path)
    checkpoints(tmp_path, "step-00000006-0-train")
    assert has_begun(tmp_path)


def at(stage: int, phase: str, step: int) -> RunState:
    state = RunState()
    if stage:
        state.enter(stage, phase)
    state.phase, state.step = phase, step
    return state


MIDDLE, END, LEARNING, GROWN = at(0, "train", 6), at(0, "train", 10), at(1, "learn", 3), at(1, "train", 0)

CONSTANT = "stages[0].train.schedule.kind=constant"


@pytest.mark.parametrize(
    ("state", "changed"),
    [
        (MIDDLE, ("stages[0].train.steps=6",)),
        (MIDDLE, ("stages[0].train.steps=60", "stages[0].train.optimizer.weight_decay=0.0")),
        (MIDDLE, ("stages[1].size.layers=5", "stages[1].grow.method=stack", "stages[1].name=other")),
        (MIDDLE, ("run_dir=elsewhere", "tracking.mlflow=false", "stages[0].train.micro_batch_size=2")),
        (
            LEARNING,
            (
                "stages[1].grow.learn.steps=9",
                "stages[1].train.steps=9",
                "stages[1].train.optimizer.epsilon=1.0",
            ),
        ),
        (LEARNING, ("stages[1].train.batch_size=16", "stages[1].grow.learn.batch_size=8")),
        (GROWN, ("stages[1].train={steps: 3, batch_size: 5, micro_batch_size: 5}",)),
        (GROWN, ("stages[1].train.optimizer.kind=muon",)),
    ],
)
def test_what_lies_ahead_may_differ(state: RunState, changed: tuple[str, ...]):
    check_start(HERE, example().resolved(), example(*changed).resolved(), state)


@pytest.mark.parametrize(
    ("state", "changed", "line"),
    [
        (MIDDLE, "seed=1", "seed: 0 -> 1"),
        (MIDDLE, "data.sequence_length=32", "data.sequence_length: 64 -> 32"),
        (MIDDLE, "stages[0].size.ffn=64", "stages[0].size.ffn: None -> 64"),
        (MIDDLE, "stages[0].train.batch_size=4", "stages[0].train.batch_size: 8 -> 4"),
        (MIDDLE, "stages[0].name=other", "stages[0].name: 'small' -> 'other'"),
        (
            MIDDLE,
            "stages[0].train.steps=5",
            "stages[0].train.steps: 5, and 6 are done; at least 6 would be right",
        ),
        (MIDDLE, "stages[0].train.optimizer.kind=muon", "stages[0].train.optimizer.kind: 'adamw' -> 'muon'"),
        (LEARNING, "stages[0].train.steps=11", "stages[0].train.steps: 10 -> 11"),
        (
            LEARNING,
            "stages[0].train.optimizer.epsilon=1.0",
            "stages[0].train.optimizer.epsilon: 1e-08 -> 1.0",
        ),
        (LEARNING, "stages[1].grow.learn.batch_size=4", "stages[1].grow.learn.batch_size: 8 -> 4"),
        (LEARNING, "stages[1].grow.tied=true", "stages[1].grow.tied: None -> True"),
        (LEARNING, "stages[1].grow.learn.steps=2", "stages[1].grow.learn.steps: 2, and 3 are done"),
        (GROWN, "stages[1].grow.learn.steps=4", "stages[1].grow.learn.steps: 5 -> 4"),
    ],
)
def test_what_lies_behind_may_not(state: RunState, changed: str, line: str):
    with pytest.raises(CheckpointError) as caught:
        check_start(HERE, example().resolved(), example(changed).resolved(), state)
    assert f"  {line}" in str(caught.value)
    assert str(caught.value).startswith(f"start_from: {HERE} is of a run")


def test_a_run_of_fewer_stages_does_not_begin_in_a_further_one():
    old, new = example().resolved(), example().resolved()
    del new["stages"][1:]
    with pytest.raises(CheckpointError, match=r"stages\[1\]: 'large' -> absent"):
        check_start(HERE, old, new, GROWN)


def test_where_the_fingerprints_are_known_they_count_and_not_where_the_files_lie():
    old, new = example().resolved(), example("data.max_documents=5").resolved()
    check_start(HERE, {**old, "corpus_fingerprint": "a"}, {**new, "corpus_fingerprint": "a"}, MIDDLE)
    with pytest.raises(CheckpointError, match="corpus_fingerprint: 'a' -> 'b'"):
        check_start(HERE, {**old, "corpus_fingerprint": "a"}, {**new, "corpus_fingerprint": "b"}, MIDDLE)
    # The launcher knows none.
    check_start(HERE, {**old, "corpus_fingerprint": "a"}, new, MIDDLE)


def test_a_run_that_was_forked_may_be_forked():
    old = example("start_from={run: runs/trunk, step: 3}").resolved()
    check_start(HERE, old, example("start_from={run: runs/test-2, step: 6}").resolved(), MIDDLE)


def test_steps_that_were_taken_otherwise_are_told():
    wsd = ("stages[0].train.schedule.kind=wsd", "stages[0].train.schedule.decay_steps=4")
    constant = example(CONSTANT).resolved()
    assert taken_otherwise(constant, example(*wsd).resolved(), MIDDLE) == []
    assert taken_otherwise(constant, example(*wsd).resolved(), at(0, "train", 7)) == [
        "learning rate of step 7: 0.001 -> 0.000775"
    ]
    other = example(CONSTANT, "stages[0].train.optimizer.weight_decay=0.2").resolved()
    assert taken_otherwise(constant, other, MIDDLE) == ["optimizer.weight_decay: 0.1 -> 0.2"]
    assert taken_otherwise(constant, other, GROWN) == []


# --- more of the same run ---

LAST = "stages[1].train."
RATES = (f"{LAST}schedule.kind=wsd", f"{LAST}schedule.decay_steps=4")
TRAINED, DONE = at(1, "train", 6), at(1, "train", 10)


def more(*changed: str) -> dict[str, Any]:
    """The example with a further stage."""
    raw = raw_example(*changed)
    third = {"name": "huge", "size": {"layers": 4, "width": 64, "heads": 8}, "grow": {}}
    raw["stages"].append({**third, "train": {"steps": 5, "batch_size": 4, "micro_batch_size": 4}})
    return config_from(raw).resolved()


@pytest.mark.parametrize(
    ("state", "old", "new"),
    [
        (DONE, (f"{LAST}schedule.kind=constant",), (f"{LAST}schedule.kind=constant", f"{LAST}steps=20")),
        (DONE, (f"{LAST}schedule.kind=constant",), (*RATES, f"{LAST}steps=14")),
        (TRAINED, RATES, (*RATES, f"{LAST}steps=20")),  # whose fall begins with the seventh step
        (TRAINED, RATES, (f"{LAST}schedule.kind=constant", f"{LAST}steps=6")),
        (MIDDLE, (), (f"{LAST}steps=20",)),  # of a stage that has not begun
    ],
)
def test_a_run_may_have_more_steps(state: RunState, old: tuple[str, ...], new: tuple[str, ...]):
    check_same_run(HERE, example(*old).resolved(), example(*new).resolved(), state)
    check_same_run(HERE, example(*old).resolved(), more(*new), state)


@pytest.mark.parametrize(
    ("state", "old", "new", "lines"),
    [
        # The rates of steps that are done would be others.
        (
            at(1, "train", 7),
            RATES,
            (*RATES, f"{LAST}steps=20"),
            ["train.steps: 10 -> 20", "step 7: 0.000775 -> 0.001"],
        ),
        (
            DONE,
            (),
            (f"{LAST}steps=20",),
            ["train.steps: 10 -> 20", "learning rate of step 1: 0.000978 -> 0.0009945"],
        ),
        (
            TRAINED,
            RATES,
            (*RATES, f"{LAST}steps=5"),
            ["train.steps: 10 -> 5", "6 are done; at least as many"],
        ),
        (TRAINED, RATES, (f"{LAST}schedule.kind=constant", "seed=2"), ["seed: 0 -> 2"]),
        (
            MIDDLE,
            (),
            ("stages[0].train.steps=20",),
            ["stages[0].train.steps: 10 -> 20"],
        ),  # not of the last stage
    ],
)
def test_a_run_that_would_have_been_another_one(
    state: RunState, old: tuple[str, ...], new: tuple[str, ...], lines: list[str]
):
    for asked in (example(*new).resolved(), more(*new)):
        with pytest.raises(CheckpointError) as caught:
            check_same_run(HERE, example(*old).resolved(), asked, state)
        told = str(caught.value)
        assert all(line in told for line in lines)
        assert "what may change: run_dir, " in told
        assert "steps and schedule of the last stage" in told


def test_a_run_does_not_lose_a_stage():
    with pytest.raises(CheckpointError, match=r"stages\[2\]: 'huge' -> absent"):
        check_same_run(HERE, more(), example().resolved(), DONE)
