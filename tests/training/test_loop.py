"""The loop and what hangs on it, with a stand-in for the engine."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from ligo_dist.checkpoints import CheckpointWriter
from ligo_dist.config import config_from, parse_yaml
from ligo_dist.corpus import MicroBatch
from ligo_dist.engine import EvaluationResult, OptimizerSettings, StepResult, World
from ligo_dist.runtime import heartbeat
from ligo_dist.runtime.errors import NonFiniteLossError
from ligo_dist.runtime.progress import Progress
from ligo_dist.schedule import LEARN, TRAIN, LearningRate, PhaseCost, PhasePlan, Plan, RunState, StageRecord
from ligo_dist.tracking import Place, SystemMetrics
from ligo_dist.training import (
    Account,
    Evaluate,
    LogMetrics,
    PhaseRunner,
    Step,
    StopAtNonFinite,
    hooks,
    run_phase,
    seconds_at_peak,
    training_steps,
)
from ligo_dist.training import phase as phase_module

CONFIG = """
run_dir: runs/test
model: {family: gpt2, max_positions: 64}
stages:
  - name: small
    size: {layers: 1, width: 8, heads: 2}
    train: {steps: 1, batch_size: 1, micro_batch_size: 1}
data: {source: stdlib, sequence_length: 64}
tokenizer: {vocab_size: 512}
evaluation: {every_steps: 1, sequences: 3, micro_batch_size: 2}
"""


def phase(steps: int = 5, first_step: int = 100, kind: str = TRAIN) -> PhasePlan:
    return PhasePlan(
        kind=kind,
        steps=steps,
        batch_size=8,
        micro_batch_size=4,
        optimizer=OptimizerSettings(1.0, (0.9, 0.95), 1e-8, 0.0, 1.0),
        learning_rate=LearningRate("linear", 1.0, steps, 0, 0, 0.0),
        activation_checkpointing=False,
        first_step=first_step,
    )


@dataclass
class StandIn:
    """Engine and batches in one: notes what it is asked for."""

    losses: list[float] = field(default_factory=lambda: [1.0] * 100)
    world: World = field(default_factory=lambda: World(0, 1, torch.device("cpu")))
    taken: list[tuple[int, float]] = field(default_factory=list)
    random: list[float] = field(default_factory=list)

    def micro_batches(self, step: int, rank: int, world_size: int, size: int) -> Iterator[MicroBatch]:
        assert (rank, world_size, size) == (0, 1, 4)
        yield from [MicroBatch({"step": torch.tensor(step)}, 4)] * 2  # 8 samples, 4 at a time

    def finish(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"finished": inputs["step"]}

    def weight(self, step: int) -> int:
        return 8

    def train_step(
        self, micro_batches: Iterable[MicroBatch], batch_size: int, learning_rates: Mapping[str, float]
    ) -> StepResult:
        assert batch_size == 8
        ((inputs, _), _), learning_rate = micro_batches, learning_rates["model"]
        step = int(inputs["finished"])
        self.taken.append((step, round(learning_rate, 6)))
        self.random.append(torch.rand(()).item())
        return StepResult(self.losses[step], 0.5)


@dataclass
class Note:
    every: int
    steps: list[int] = field(default_factory=list)

    def __call__(self, step: Step) -> None:
        self.steps.append(step.number)


def run(stand_in: Any, plan: PhasePlan, done: int, hooks: list[Any]) -> None:
    run_phase(stand_in, stand_in, plan, done, seed=3, hooks=hooks)


def test_each_step_takes_its_own_batch_and_learning_rate():
    stand_in = StandIn()
    run(stand_in, phase(), 0, [])
    assert stand_in.taken == [(0, 0.8), (1, 0.6), (2, 0.4), (3, 0.2), (4, 0.0)]


def test_hooks_come_every_so_often_and_after_the_last_step():
    every_two, every_seven, each = Note(2), Note(7), Note(1)
    run(StandIn(), phase(), 0, [every_two, every_seven, each])
    assert (every_two.steps, every_seven.steps, each.steps) == ([2, 4, 5], [5], [1, 2, 3, 4, 5])
    whole_multiple = Note(5)
    run(StandIn(), phase(), 0, [whole_multiple])
    assert whole_multiple.steps == [5]


def test_a_resumed_phase_takes_the_rest_alike():
    whole, rest = StandIn(), StandIn()
    run(whole, phase(), 0, [])
    note = Note(2)
    run(rest, phase(), 3, [note])
    assert rest.taken == whole.taken[3:]
    assert rest.random == whole.random[3:], "random numbers are a function of seed and step"
    assert note.steps == [4, 5]
    finished = StandIn()
    run(finished, phase(), 5, [])
    assert finished.taken == []


def test_steps_are_counted_through_the_whole_run():
    steps = list(training_steps(StandIn(), StandIn(), phase(3), 0, 0))  # type: ignore[arg-type]
    assert [(step.number, step.global_number, step.is_last) for step in steps] == [
        (1, 101, False),
        (2, 102, False),
        (3, 103, True),
    ]


@pytest.mark.parametrize(
    ("losses", "norm", "last", "message"),
    [
        (
            [1.0, 1.0, float("nan")],
            1.0,
            Path("runs/a/checkpoints/step-00000100-1-train"),
            "stage large, train step 3 (global step 103): loss is nan;"
            " the last good checkpoint is runs/a/checkpoints/step-00000100-1-train",
        ),
        (
            [1.0, float("inf")],
            1.0,
            None,
            "stage large, train step 2 (global step 102): loss is inf; there is no checkpoint yet",
        ),
    ],
)
def test_a_loss_that_is_no_number_stops_the_run(
    losses: list[float], norm: float, last: Path | None, message: str
):
    stand_in, later = StandIn(losses), Note(1)
    with pytest.raises(NonFiniteLossError) as caught:
        run(stand_in, phase(), 0, [StopAtNonFinite("large", lambda: last), later])
    assert str(caught.value) == message
    assert later.steps == list(range(1, len(losses))), "what comes after it does not see the broken step"


def test_a_gradient_that_is_no_number_stops_the_run():
    step = Step(1, phase(kind=LEARN), StepResult(2.0, float("inf")), 0.1, 0.5)
    with pytest.raises(NonFiniteLossError, match=r"learn step 1 \(global step 101\): gradient norm is inf"):
        StopAtNonFinite("large", lambda: None)(step)


def test_a_validation_loss_that_is_no_number_stops_the_run(monkeypatch: pytest.MonkeyPatch):
    """Else such a model would be saved over the last good one, grown, and exported."""
    monkeypatch.setattr(phase_module, "fixed_batches", lambda *_: [])
    evaluation = SimpleNamespace(sequences=4, micro_batch_size=2)
    nothing: Any = None
    runner = PhaseRunner(
        plan=SimpleNamespace(config=SimpleNamespace(evaluation=evaluation)),  # type: ignore[arg-type]
        corpus=SimpleNamespace(validation=Numbers(), sources={}),  # type: ignore[arg-type]
        world=World(0, 1, torch.device("cpu")),
        tracker=nothing,
        progress=nothing,
        checkpoints=SimpleNamespace(settle=lambda: Path("checkpoints/last")),  # type: ignore[arg-type]
    )
    engine: Any = SimpleNamespace(evaluate=lambda batches: EvaluationResult(math.nan, None))
    heartbeat.enter("large train")
    with pytest.raises(
        NonFiniteLossError, match=r"^large train: the validation loss is nan; the last good checkpoint is"
    ):
        runner.evaluate(engine, "evaluating")


def test_the_account_adds_tokens_and_flops():
    state = RunState()
    cost = PhaseCost(steps=5, flops=35, hardware_flops=45)
    run(StandIn(), phase(), 0, [Account(state, tokens_per_step=128, cost=cost)])
    assert (state.step, state.tokens, state.flops, state.hardware_flops) == (5, 5 * 8 * 16, 35, 45)
    assert (state.record.tokens, state.record.flops, state.record.hardware_flops) == (640, 35, 45)
    state.enter(1, LEARN)
    before = state.seconds
    state.add(10, 1.0, 1.5, 2.0)
    assert (state.step, state.tokens, state.record.tokens) == (0, 650, 10)
    assert (before > 0, state.seconds) == (True, before + 2), "over all stages"


def test_the_state_survives_being_written():
    state = RunState()
    state.enter(1, LEARN)
    state.add(10, 1.0, 1.5, 2.0)
    state.record.grown_loss = 3.5
    assert RunState.from_dict(state.to_dict()) == state


def test_a_state_of_hardware_flops_alone_is_read():
    written = {"stage": 0, "tokens": 5, "flops": 7.0, "records": [{"tokens": 5, "flops": 7.0}]}
    state = RunState.from_dict(written)
    assert (state.hardware_flops, state.record.hardware_flops) == (7.0, 7.0)


# --- evaluation ---


class Tracker:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[tuple[dict[str, float], int]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.records.append((metrics, step))

    def start_phase(self, kind: str) -> None:
        pass


def test_what_is_measured_is_recorded_with_the_accuracy():
    state, tracker = RunState(flops=5.0, hardware_flops=6.0, records=[StageRecord(seconds=7.0)]), Tracker()
    evaluate = Evaluate(lambda: EvaluationResult(2.5, 0.75), state, tracker, every=2)  # type: ignore[arg-type]
    run(StandIn(), phase(), 0, [evaluate])
    assert (state.record.final_loss, state.record.final_accuracy) == (2.5, 0.75)
    assert [step for _, step in tracker.records] == [102, 104, 105]
    seconds = [metrics.pop("cumulative/seconds") for metrics, _ in tracker.records]
    assert 7 < seconds[0] < seconds[1] < seconds[2] == state.seconds, "the evaluation's own time is in it"
    assert tracker.records[0][0] == {
        "evaluate/loss": 2.5,
        "evaluate/accuracy": 0.75,
        "cumulative/tokens": 0,
        "cumulative/flops": 5.0,
        "cumulative/hardware_flops": 6.0,
    }


def test_of_a_mixture_each_source_is_recorded_and_their_weighted_mean():
    state, tracker = RunState(), Tracker()
    parts = {
        "web": EvaluationResult(2.0, 0.5),
        "code": EvaluationResult(4.0, 1.0),
        "none": EvaluationResult(9.0, 0.0),
    }
    measured = EvaluationResult.of_parts(parts, {"web": 3.0, "code": 1.0, "none": 0.0})
    Evaluate(lambda: measured, state, tracker, every=1).run(7)  # type: ignore[arg-type]
    ((metrics, _),) = tracker.records
    assert {name: value for name, value in metrics.items() if name.startswith("evaluate/")} == {
        "evaluate/loss": 2.5,
        "evaluate/accuracy": 0.625,
        "evaluate/loss/web": 2.0,
        "evaluate/accuracy/web": 0.5,
        "evaluate/loss/code": 4.0,
        "evaluate/accuracy/code": 1.0,
        "evaluate/loss/none": 9.0,
        "evaluate/accuracy/none": 0.0,
    }
    assert state.record.final_losses == {"web": 2.0, "code": 4.0, "none": 9.0}
    assert RunState.from_dict(state.to_dict()) == state
    text = {name: EvaluationResult(part.loss) for name, part in parts.items()}
    assert EvaluationResult.of_parts(text, {"web": 1.0, "code": 1.0, "none": 1.0}).accuracy is None


def test_text_has_no_accuracy_and_a_model_without_an_objective_no_loss():
    state, tracker = RunState(), Tracker()
    Evaluate(lambda: EvaluationResult(2.5), state, tracker, every=1).run(7)  # type: ignore[arg-type]
    assert set(tracker.records[0][0]) == {
        "evaluate/loss",
        "cumulative/tokens",
        "cumulative/flops",
        "cumulative/hardware_flops",
        "cumulative/seconds",
    }
    Evaluate(lambda: None, state, tracker, every=1).run(8)  # type: ignore[arg-type]
    assert len(tracker.records) == 1
    assert (state.record.final_loss, state.record.final_accuracy) == (2.5, None)


@pytest.mark.parametrize("kind", [TRAIN, LEARN])
def test_the_learning_rate_is_logged(kind: str):
    tracker = Tracker()
    log = LogMetrics(RunState(), tracker, 128, World(0, 1, torch.device("cpu")), every=1)  # type: ignore[arg-type]
    log(Step(1, phase(kind=kind), StepResult(2.0, 0.5), 0.1, 0.5))
    ((metrics, _),) = tracker.records
    assert metrics[f"{kind}/learning_rate"] == 0.1
    assert metrics[f"{kind}/tokens_per_second"] == 256
    assert log.peak_bytes == metrics["memory/peak_bytes"] > 0


def test_the_peak_is_no_less_than_what_is_held(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hooks, "memory_bytes", lambda device: 7000)
    for said, recorded in ((6000, 7000), (8000, 8000)):
        monkeypatch.setattr(hooks, "peak_memory_bytes", lambda device, said=said: said)
        tracker = Tracker()
        log = LogMetrics(RunState(), tracker, 128, World(0, 1, torch.device("cpu")), every=1)  # type: ignore[arg-type]
        log(Step(1, phase(kind=TRAIN), StepResult(2.0, 0.5), 0.1, 0.5))
        ((metrics, _),) = tracker.records
        assert (metrics["memory/held_bytes"], metrics["memory/peak_bytes"]) == (7000, recorded)


def test_the_part_of_the_peak_that_a_step_reached_is_logged_where_the_peak_is_known():
    names = []
    for at_peak in (None, 0.2):
        tracker = Tracker()
        world = World(0, 1, torch.device("cpu"))
        log = LogMetrics(RunState(), tracker, 128, world, 1, seconds_at_peak=at_peak)  # type: ignore[arg-type]
        log(Step(1, phase(kind=LEARN), StepResult(2.0, 0.5), 0.1, 0.5))
        ((metrics, _),) = tracker.records
        names.append(set(metrics))
    assert names[1] - names[0] == {"learn/mfu"}
    assert metrics["learn/mfu"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("device", "name", "precision", "seconds"),
    [
        ("cuda", "NVIDIA H200", "bf16", 3e15 / (3 * 989.4e12)),
        ("cuda", "NVIDIA H200", "fp32", 3e15 / (3 * 67e12)),
        ("cuda", "NVIDIA H200 NVL", "bf16", None),
        ("cpu", "NVIDIA H200", "bf16", None),
    ],
)
def test_the_peak_is_that_of_all_devices_in_the_runs_precision(
    device: str, name: str, precision: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    raw = {**parse_yaml(CONFIG), "precision": precision}
    raw["stages"][0]["train"]["batch_size"] = 3
    plan = Plan.of(config_from(raw), 512, 3)
    assert seconds_at_peak(plan, PhaseCost(steps=2, flops=6 * 10**15), torch.device(device)) == seconds


def test_the_load_of_the_nodes_is_a_record_of_its_own():
    tracker = Tracker()
    system = SystemMetrics([lambda: {"cpu_utilization_percentage": 50.0}], [Place("a", 0)], every_seconds=1e6)
    log = LogMetrics(RunState(), tracker, 128, World(0, 1, torch.device("cpu")), 1, system)  # type: ignore[arg-type]
    for number in (1, 2):
        log(Step(number, phase(), StepResult(2.0, 0.5), 0.1, 0.5))
    assert [step for _, step in tracker.records] == [101, 101, 102]
    first, load, second = (metrics for metrics, _ in tracker.records)
    assert load == {"system/a/cpu_utilization_percentage": 50.0}
    assert set(first) == set(second)


@dataclass
class Numbers:
    """Samples that are their own index."""

    labelled: bool = True
    tokens_per_sample: int = 1

    def __len__(self) -> int:
        return 10

    def weights(self, indices: Any) -> Any:
        return np.ones(len(indices), dtype=np.int64)

    def read(self, indices: Any, draws: Any) -> dict[str, Tensor]:
        return {"labels": torch.tensor(indices)}

    def finish(self, inputs: Any) -> Any:
        return inputs


class Measured(StandIn):
    """Counts its evaluations."""

    evaluations: int = 0

    def evaluate(self, batches: Any) -> EvaluationResult:
        assert sum(valid for _, valid in batches) == 3
        self.evaluations += 1
        return EvaluationResult(2.5, 0.75)


def run_without_steps(tmp_path: Path, kind: str, labelled: bool = True) -> tuple[Measured, RunState, str]:
    engine, log = Measured(), tmp_path / "run.log"
    config = config_from(parse_yaml(CONFIG))
    plan = Plan.of(config, 512, 1)
    corpus: Any = SimpleNamespace(train=Numbers(labelled), validation=Numbers(labelled), sources={})
    progress = Progress(Console(file=io.StringIO()), log)
    tracker: Any = Tracker()
    checkpoints = CheckpointWriter(tmp_path, {}, 1, "stop", engine.world, progress.message)
    runner = PhaseRunner(plan, corpus, engine.world, tracker, progress, checkpoints)
    runner.run(plan.last, phase(0, kind=kind), engine, 1.0, lambda: pytest.fail("nothing to save"))  # type: ignore[arg-type]
    assert engine.taken == []
    assert [step for _, step in tracker.records] == [100] * engine.evaluations
    return engine, runner.state, log.read_text()


def test_a_model_that_is_not_trained_is_evaluated_once(tmp_path: Path):
    engine, state, log = run_without_steps(tmp_path, TRAIN)
    assert (engine.evaluations, state.record.final_loss, state.record.final_accuracy) == (1, 2.5, 0.75)
    assert "small train  0/0 done  validation 2.500  accuracy 75.0 %" in log


def test_an_operator_that_is_not_learned_is_not_evaluated(tmp_path: Path):
    engine, state, _ = run_without_steps(tmp_path, LEARN)
    assert (engine.evaluations, state.record.final_loss) == (0, None)


def test_a_model_without_an_objective_is_not_evaluated(tmp_path: Path):
    engine, state, _ = run_without_steps(tmp_path, TRAIN, labelled=False)
    assert (engine.evaluations, state.record.final_loss) == (0, None)
