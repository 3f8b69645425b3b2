"""Traces of a few steps: which steps and ranks are in them, and that none of what goes wrong harms the run."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import record_function

from ligo_dist.config import Profile
from ligo_dist.corpus import MicroBatch
from ligo_dist.engine import OptimizerSettings, StepResult, World
from ligo_dist.schedule import LearningRate, PhasePlan
from ligo_dist.training import StepProfiler, run_phase
from ranks import run_ranks

ALONE = World(0, 1, torch.device("cpu"))


@dataclass
class StandIn:
    """Engine and batches in one, whose steps have names in a trace; one of them may fail."""

    world: World = ALONE
    fails_at: int | None = None

    def micro_batches(self, step: int, rank: int, world_size: int, size: int) -> Iterator[MicroBatch]:
        yield MicroBatch({"number": torch.tensor(step + 1)}, 1)

    def finish(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return inputs

    def weight(self, step: int) -> int:
        return 1

    def train_step(self, micro_batches: Any, batch_size: int, learning_rates: Any) -> StepResult:
        ((inputs, _),) = micro_batches
        number = int(inputs["number"])
        with record_function(f"step-{number}"):
            torch.ones(3).sum()
        if number == self.fails_at:
            raise RuntimeError("this step fails")
        return StepResult(1.0, 0.5)


@dataclass
class Kept:
    """A tracker that notes its artifacts, and the messages for the user."""

    artifacts: dict[str, Path] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def artifact(self, content: Path, name: str) -> None:
        self.artifacts[name] = content


def phase(steps: int, world_size: int) -> PhasePlan:
    settings = OptimizerSettings(1.0, (0.9, 0.95), 1e-8, 0.0, 1.0)
    rate = LearningRate("constant", 1.0, steps, 0, 0, 0.0)
    return PhasePlan("train", steps, world_size, 1, settings, rate, activation_checkpointing=False)


def profiled(
    section: Profile, directory: Path, steps: int = 6, done: int = 0, stand_in: StandIn | None = None
) -> Kept:
    """What is kept of a phase that is profiled so."""
    kept, stand_in = Kept(), stand_in or StandIn()
    world, plan = stand_in.world, phase(steps, stand_in.world.size)
    profiler = StepProfiler(section, directory, world, kept, kept.messages.append)  # type: ignore[arg-type]
    with profiler.around(plan, done):
        run_phase(stand_in, stand_in, plan, done, 0, [profiler])  # type: ignore[arg-type]
    return kept


def steps_in(trace: Path) -> list[int]:
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {event.get("name", "") for event in events}
    return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d+", name))


@pytest.mark.parametrize(
    ("start", "steps", "done", "expected"),
    [(1, 2, 0, [1, 2]), (2, 3, 0, [2, 3, 4]), (5, 9, 0, [5, 6]), (6, 1, 0, [6]), (2, 3, 2, [3, 4])],
    ids=["first", "amid", "beyond the end", "last", "resumed"],
)
def test_the_chosen_steps_are_in_the_trace(
    start: int, steps: int, done: int, expected: list[int], tmp_path: Path
):
    kept = profiled(Profile(start_step=start, steps=steps), tmp_path / "profile" / "large", done=done)
    trace = tmp_path / "profile" / "large" / "train-rank-0.json.gz"
    assert steps_in(trace) == expected
    assert kept.artifacts == {"profile/train-rank-0.json.gz": trace}
    assert [f"train step {expected[-1]}" in message for message in kept.messages] == [True]


@pytest.mark.parametrize("section", [Profile(), Profile(start_step=2, steps=3)], ids=["off", "over"])
def test_nothing_is_profiled_by_itself_or_again(section: Profile, tmp_path: Path):
    kept = profiled(section, tmp_path, done=4)
    assert (kept.artifacts, kept.messages, list(tmp_path.iterdir())) == ({}, [], [])


def test_what_cannot_be_profiled_is_told(tmp_path: Path):
    late = profiled(Profile(start_step=7, steps=1), tmp_path)
    elsewhere = profiled(Profile(start_step=1, steps=1, ranks=[1, 4]), tmp_path)
    assert late.artifacts == elsewhere.artifacts == {}
    assert ["profile.start_step: 7" in line for line in late.messages] == [True]
    assert ["profile.ranks: 1, 4" in line for line in elsewhere.messages] == [True]


def test_a_trace_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path):
    (tmp_path / "profile").write_text("a file where the directory should be")
    kept = profiled(Profile(start_step=1, steps=1), tmp_path / "profile" / "large")
    assert kept.artifacts == {}
    assert ["could not be written, the run goes on" in line for line in kept.messages] == [True]


def test_a_step_that_fails_leaves_no_profiler(tmp_path: Path):
    with pytest.raises(RuntimeError, match="this step fails"):
        profiled(Profile(start_step=1, steps=4), tmp_path, stand_in=StandIn(fails_at=2))
    assert list(tmp_path.iterdir()) == []
    profiled(Profile(start_step=1, steps=1), tmp_path)
    assert steps_in(tmp_path / "train-rank-0.json.gz") == [1]


def profiled_rank(world: World, directory: Path, ranks: list[int]) -> dict[str, Path]:
    section = Profile(start_step=2, steps=2, ranks=ranks)
    return profiled(section, directory, stand_in=StandIn(world)).artifacts


@pytest.mark.parametrize("ranks", [[1], [0, 1]], ids=str)
def test_the_chosen_ranks_are_profiled_and_the_first_knows_all_traces(ranks: list[int], tmp_path: Path):
    names = {f"profile/train-rank-{rank}.json.gz" for rank in ranks}
    assert set(run_ranks(profiled_rank, 2, tmp_path, ranks)[0]) == names
    assert [steps_in(tmp_path / f"train-rank-{rank}.json.gz") for rank in ranks] == [[2, 3]] * len(ranks)
