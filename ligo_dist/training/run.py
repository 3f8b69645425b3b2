"""What each rank does, from the configuration to the exported model: everything is built here, then run."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import PretrainedConfig

from ligo_dist.checkpoints import Checkpoint, CheckpointWriter
from ligo_dist.config import Config
from ligo_dist.corpus import Corpus
from ligo_dist.engine.shards import Shards
from ligo_dist.engine.world import World, first_rank_only, gather_objects, raise_together
from ligo_dist.huggingface.hub import source_fingerprint
from ligo_dist.huggingface.writer import export_model
from ligo_dist.pictures import Album
from ligo_dist.runtime import watchdog
from ligo_dist.runtime.console import open_console
from ligo_dist.runtime.environment import rank_environment
from ligo_dist.runtime.errors import LigoError, Stopped
from ligo_dist.runtime.files import EXPORTS_DIRECTORY
from ligo_dist.runtime.heartbeat import enter
from ligo_dist.runtime.launch import STOP_FILE, LaunchDirectory
from ligo_dist.runtime.progress import Progress
from ligo_dist.runtime.signals import StopSignals
from ligo_dist.runtime.watch import Watch
from ligo_dist.schedule.plan import Plan, StagePlan
from ligo_dist.schedule.state import RunState, StageRecord
from ligo_dist.tracking import (
    METRICS_FILE,
    Status,
    Tracker,
    build_tracker,
    environment_tags,
    source_tags,
    tracking_address,
)
from ligo_dist.tracking.system import Place, build_system_metrics
from ligo_dist.training.builder import Builder
from ligo_dist.training.phase import PhaseRunner
from ligo_dist.training.resume import find_checkpoint, recorded_config, run_lock
from ligo_dist.training.summary import Locations, StageSummary, show_summary, write_summary
from ligo_dist.training.trainer import Trainer


@dataclass(frozen=True)
class RunPaths:
    """Where a run keeps its things."""

    run_dir: Path

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.run_dir / METRICS_FILE

    @property
    def log(self) -> Path:
        return self.run_dir / "run.log"

    def export(self, stage: str) -> Path:
        return self.run_dir / EXPORTS_DIRECTORY / stage


def run(
    config: Config,
    corpus: Corpus,
    world: World,
    command: list[str],
    signals: StopSignals,
    watch: Watch,
    source: Path | None = None,
) -> None:
    """Take a configured run to its end, or from its last checkpoint to its end. Collective.

    Args:
        config: with what the source says filled in.
        corpus: what is trained on.
        world: the ranks.
        command: how this process was started, for the record.
        signals: that may ask the run to stop.
        watch: what asks for it beside them.
        source: directory of the first stage's model; None: it begins with random values.

    Raises:
        LigoError: the run directory is in use, the checkpoint does not fit, ...
        RunError: the run cannot go on, or was stopped.
    """
    enter("start")
    paths = RunPaths(Path(config.run_dir).absolute())
    with run_lock(paths.run_dir, world):
        _heed_requests(paths.run_dir, watch, world)
        _run(config, corpus, world, command, signals, source, paths)


def _heed_requests(run_dir: Path, watch: Watch, world: World) -> None:
    """From here on whoever makes the file `stop` in the run directory stops the run. Where nobody supervises, one from
    before is removed, and the ranks get a directory for their ends."""

    def begin() -> LaunchDirectory | None:
        if LaunchDirectory.given() is not None:
            return None
        (run_dir / STOP_FILE).unlink(missing_ok=True)
        return LaunchDirectory.make(run_dir) if watchdog.is_there() else None

    made = first_rank_only(begin, world)
    if made is not None:
        watchdog.tell(directory=str(made.path))
    watch.heed(run_dir / STOP_FILE)


def _run(
    config: Config,
    corpus: Corpus,
    world: World,
    command: list[str],
    signals: StopSignals,
    source: Path | None,
    paths: RunPaths,
) -> None:
    of_source = first_rank_only(lambda: source_fingerprint(source) if source else None, world)
    recorded = recorded_config(config.resolved(), corpus.fingerprint, of_source)
    checkpoint, damaged = find_checkpoint(paths.checkpoints, recorded, world)
    plan = Plan.of(config, corpus.vocab_size, world.size)
    resume_step = None if checkpoint is None else _global_step(checkpoint.state, plan)
    progress, tracker = _open_records(config, paths, world, resume_step)

    def close_killed(reason: str) -> None:
        progress.message(reason)
        tracker.close("KILLED")
        progress.close()

    signals.before_end(close_killed)
    here = Place(socket.gethostname(), rank_environment().local_rank)
    places = gather_objects(here, world)
    status: Status = "FAILED"
    try:
        tracker.start_run(
            config.tracking.run_name or paths.run_dir.name,
            config.resolved(),
            {
                **environment_tags(command, world.size, [place.node for place in places]),
                **source_tags(config.stages[0].from_),
                "checkpoints.path": str(paths.checkpoints),
                "corpus.fingerprint": corpus.fingerprint,
                **({"tokenizer.fingerprint": corpus.tokenizer.fingerprint} if corpus.tokenizer else {}),
            },
        )
        tracker.artifact(yaml.safe_dump(config.resolved(), sort_keys=False), "config.yaml")
        trainer = _build_trainer(
            plan, corpus, world, source, paths, recorded, tracker, progress, signals, places
        )
        _announce(progress, damaged, checkpoint, corpus, world)
        trainer.run(checkpoint)
        tracker.set_tags({"export.path": str(paths.export(plan.last.name))})
        if world.is_first:
            _conclude(plan, paths, trainer.state)
        status = "FINISHED"
    except Exception as error:
        signals.wait_if_ending()
        status = "KILLED" if isinstance(error, Stopped) else "FAILED"
        progress.message(f"stopped: {error}")
        raise
    finally:
        tracker.close(status)
        progress.close()


def _open_records(
    config: Config, paths: RunPaths, world: World, resume_step: int | None
) -> tuple[Progress, Tracker]:
    """Open what the first rank shows and records; if it cannot, all ranks raise its error."""
    every = config.tracking.log_every_steps
    failure: LigoError | None = None
    try:
        progress = Progress(open_console(), paths.log, enabled=world.is_first, every_steps=every)
        tracker = build_tracker(config, paths.run_dir, world.rank, resume_step, progress.message)
    except LigoError as error:
        failure = error
    raise_together(failure, world)
    return progress, tracker


def _build_trainer(
    plan: Plan,
    corpus: Corpus,
    world: World,
    source: Path | None,
    paths: RunPaths,
    recorded: dict[str, Any],
    tracker: Tracker,
    progress: Progress,
    signals: StopSignals,
    places: list[Place],
) -> Trainer:
    config = plan.config
    checkpoints = CheckpointWriter(
        paths.checkpoints,
        recorded,
        config.checkpoints.keep,
        config.checkpoints.on_failure,
        world,
        progress.message,
    )
    system = build_system_metrics(
        config.tracking.system_metrics_every_seconds, places, world.rank, world.device, paths.run_dir
    )
    runner = PhaseRunner(plan, corpus, world, tracker, progress, checkpoints, signals=signals, system=system)
    drawn = config.tracking.pictures
    album = Album(paths.run_dir, paths.metrics, config.seed, world, tracker, progress.message, drawn)

    def on_stage_end(stage: StagePlan, model_config: PretrainedConfig, shards: Shards) -> None:
        album.add_curves(stage.name)
        if stage is not plan.last and not config.checkpoints.export_stages:
            return
        enter(f"{stage.name} export")
        directory = paths.export(stage.name)
        specs = plan.architecture.parameters(stage.shape)
        export_model(directory, specs, shards, model_config, corpus.write_processor, world)
        tracker.set_tags({"export.path": str(directory)})
        progress.message(f"exported {stage.name} to {directory}")
        if stage is plan.last and config.tracking.register_model is not None:
            tracker.register_model(config.tracking.register_model, directory)

    builder = Builder(plan, world, corpus.library_keys(), source)
    return Trainer(plan, builder, runner, on_stage_end, album.add_operator)


def _announce(
    progress: Progress, damaged: list[str], checkpoint: Checkpoint | None, corpus: Corpus, world: World
) -> None:
    ranks = "1 rank" if world.size == 1 else f"{world.size} ranks"
    progress.message(f"{ranks}; {corpus.description}")
    for line in damaged:
        progress.message(line)
    if checkpoint is not None:
        progress.message(f"resumed from {checkpoint.path}")


def _conclude(plan: Plan, paths: RunPaths, state: RunState) -> None:
    """Show what the run came to, and leave its summary."""
    tracking = plan.config.tracking
    locations = Locations(
        export=paths.export(plan.last.name),
        checkpoints=paths.checkpoints,
        metrics=paths.metrics,
        log=paths.log,
        tracking_address=tracking_address(tracking.uri, paths.run_dir) if tracking.mlflow else None,
    )
    summaries = [
        StageSummary(stage.name, stage.parameters, **_shown(record))
        for stage, record in zip(plan.stages, state.records, strict=True)
    ]
    write_summary(paths.run_dir, summaries, locations)
    show_summary(open_console(), summaries, locations)


def _shown(record: StageRecord) -> dict[str, Any]:
    """What a summary shows of a stage's record."""
    shown = {field.name for field in fields(StageSummary)}
    return {name: value for name, value in asdict(record).items() if name in shown}


def _global_step(state: RunState, plan: Plan) -> int:
    """Optimizer steps of the whole run that are done."""
    phase = next(phase for phase in plan.stages[state.stage].phases if phase.kind == state.phase)
    return phase.first_step + state.step
