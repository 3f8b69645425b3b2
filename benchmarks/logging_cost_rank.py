"""The rank of `benchmarks.logging_cost`: trains in rounds, each with one of the ways to record."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.logging_cost import WAYS
from benchmarks.small_training import ADAM, LENGTH, SEQUENCES, SmallTraining
from ligo_dist.config.schema import Tracking
from ligo_dist.distributed import World
from ligo_dist.engine import start_world, stop_world
from ligo_dist.hooks import LogMetrics
from ligo_dist.loop import Step
from ligo_dist.schedules import LearningRate
from ligo_dist.stages import TRAIN, PhasePlan, RunState
from ligo_dist.system_metrics import Place, build_system_metrics
from ligo_dist.tracking import Tracker, build_tracker

WARM_UP = 10
DELIVERY_SECONDS = 2.0
"""Between two rounds, so that none delivers what the one before has recorded."""

_PHASE = PhasePlan(
    kind=TRAIN,
    steps=10**9,
    batch_size=SEQUENCES,
    micro_batch_size=SEQUENCES,
    optimizer=ADAM,
    learning_rate=LearningRate("constant", 1e-4, 10**9, 0, 0, 1.0),
    activation_checkpointing=False,
)


def main() -> None:
    arguments, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    world = start_world(600)
    directory, every = Path(arguments["directory"]), arguments["log_every"]
    training = SmallTraining(world, arguments["width"], arguments["layers"])
    uris = {
        "JSON lines": None,
        "MLflow, SQLite": f"sqlite:///{directory / 'mlflow.db'}",
        "MLflow, server": arguments["server"],
    }
    trackers = {way: _tracker(uri, directory / way) for way, uri in uris.items()}
    hooks = {way: _hook(tracker, world, every, directory) for way, tracker in trackers.items()}
    for _ in range(WARM_UP):
        training.take_step()
    time.sleep(10 * DELIVERY_SECONDS)  # the stores make their tables, the runs and the parameters
    steps: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    records: dict[str, list[float]] = {way: [] for way in uris}
    beside: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(arguments["rounds"]):
        turn = number % len(WAYS)  # no way is always the first
        for way in (*WAYS[turn:], *WAYS[:turn]):
            others = _other_threads()
            took, recording = _run_round(training, hooks.get(way), arguments["steps"])
            steps[way].append(took)
            if way in records:
                records[way] += recording
            time.sleep(DELIVERY_SECONDS)
            beside[way].append(_other_threads() - others)
    for tracker in trackers.values():
        tracker.close()
    parameters = sum(training.engine.numels.values())
    measured = {"steps": steps, "records": records, "beside": beside, "parameters": parameters}
    result.write_text(json.dumps(measured))
    stop_world()


def _run_round(
    training: SmallTraining, hook: LogMetrics | None, count: int
) -> tuple[list[float], list[float]]:
    """Seconds of each step, with what was recorded after it; and seconds of each recording."""
    steps, records = [], []
    for number in range(1, count + 1):
        began = time.perf_counter()
        taken = training.take_step()
        if hook is not None and number % hook.every == 0:
            before = time.perf_counter()
            hook(Step(training.taken, _PHASE, taken, {"model": 1e-4}, before - began))
            records.append(time.perf_counter() - before)
        steps.append(time.perf_counter() - began)
    return steps, records


def _other_threads() -> float:
    """Seconds of processor time that all threads but this one have taken."""
    return time.process_time() - time.thread_time()


def _tracker(uri: str | None, run_dir: Path) -> Tracker:
    section = Tracking(mlflow=uri is not None, uri=uri)
    config: Any = SimpleNamespace(tracking=section)
    tracker = build_tracker(config, run_dir, 0, None)
    tracker.start_run(run_dir.name, {}, {})
    tracker.start_stage("only", {})
    tracker.start_phase(TRAIN)
    return tracker


def _hook(tracker: Tracker, world: World, every: int, directory: Path) -> LogMetrics:
    seconds = Tracking().system_metrics_every_seconds
    system = build_system_metrics(seconds, [Place(socket.gethostname(), 0)], 0, world.device, directory)
    return LogMetrics(RunState(), tracker, SEQUENCES * LENGTH, world, every, system)


if __name__ == "__main__":
    main()
