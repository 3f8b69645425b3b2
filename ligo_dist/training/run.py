"""What each rank does, from the configuration to the exported model: everything is built here, then run."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ligo_dist.checkpoints import Checkpoint, CheckpointWriter
from ligo_dist.config import Config, dump_yaml
from ligo_dist.corpus import Corpus, epochs, parts_of
from ligo_dist.engine import Shards, World, first_rank_only, gather_objects, has_native_bf16, raise_together
from ligo_dist.huggingface import export_model, has_weights, keep_source, rehearse_export, source_fingerprint
from ligo_dist.report import RunPictures
from ligo_dist.runtime import watchdog
from ligo_dist.runtime.console import open_console
from ligo_dist.runtime.environment import rank_environment
from ligo_dist.runtime.errors import CheckpointError, LigoError, Stopped
from ligo_dist.runtime.files import CHECKPOINTS_DIRECTORY, EXPORTS_DIRECTORY, RUN_LOG
from ligo_dist.runtime.heartbeat import enter, keep_place
from ligo_dist.runtime.launch import STOP_FILE, LaunchDirectory, forget_request
from ligo_dist.runtime.progress import Progress
from ligo_dist.runtime.signals import StopSignals
from ligo_dist.runtime.watch import Watch
from ligo_dist.schedule import Plan, RunState, StagePlan, StageRecord
from ligo_dist.tracking import (
    METRICS_FILE,
    Place,
    Status,
    Tracker,
    build_system_metrics,
    build_tracker,
    environment_tags,
    inherit_records,
    missing_library,
    source_tags,
    tracking_address,
)
from ligo_dist.training.builder import Builder
from ligo_dist.training.model_card import model_card
from ligo_dist.training.phase import PhaseRunner
from ligo_dist.training.resume import (
    agree_on_precision,
    find_checkpoint,
    find_start,
    recorded_config,
    run_lock,
)
from ligo_dist.training.summary import Locations, SourceSummary, StageSummary, show_summary, write_summary
from ligo_dist.training.tasks import TASKS_DIRECTORY, ExportTasks
from ligo_dist.training.trainer import Trainer


@dataclass(frozen=True)
class RunPaths:
    """Where a run keeps its things."""

    run_dir: Path

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / CHECKPOINTS_DIRECTORY

    @property
    def metrics(self) -> Path:
        return self.run_dir / METRICS_FILE

    @property
    def log(self) -> Path:
        return self.run_dir / RUN_LOG

    @property
    def tasks(self) -> Path:
        return self.run_dir / TASKS_DIRECTORY

    def export(self, stage: str) -> Path:
        return self.run_dir / EXPORTS_DIRECTORY / stage


def run_schedule(
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
        forget_request(run_dir)
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
    config, precision = agree_on_precision(config, has_native_bf16(world.device), paths.run_dir, world)
    of_source = first_rank_only(lambda: source_fingerprint(source) if source else None, world)
    recorded = recorded_config(config.resolved(), corpus.fingerprint, of_source)
    checkpoint, notes = find_checkpoint(paths.checkpoints, recorded, world)
    begins = checkpoint is None
    if checkpoint is None and config.start_from is not None:
        checkpoint, more = find_start(config.start_from, recorded, world)
        notes += more
    first_rank_only(lambda: _keep(config, source, of_source, checkpoint, paths.run_dir), world)
    plan = Plan.of(config, corpus.vocab_size, world.size, corpus.attended)
    if checkpoint is not None and begins:
        _inherit(checkpoint, plan, paths, world)
    progress, tracker = _open_records(plan, paths, world, checkpoint)

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
        tracker.artifact(dump_yaml(config.resolved()), "config.yaml")
        trainer = _build_trainer(
            plan, corpus, world, source, paths, recorded, tracker, progress, signals, places
        )
        _announce(progress, precision, notes, None if begins else checkpoint, corpus, plan, world)
        trainer.run(checkpoint, begins=begins)
        tracker.set_tags({"export.path": str(paths.export(plan.last.name))})
        first_rank_only(lambda: _conclude(plan, corpus, paths, trainer.state), world)
        status = "FINISHED"
    except Exception as error:
        keep_place()  # what closes the records shows that it gets on, too
        signals.wait_if_ending()
        status = "KILLED" if isinstance(error, Stopped) else "FAILED"
        progress.message(f"stopped: {error}")
        raise
    finally:
        tracker.close(status)
        progress.close()


def _keep(
    config: Config, source: Path | None, fingerprint: str | None, checkpoint: Checkpoint | None, run_dir: Path
) -> None:
    """Keep what describes the source.

    Raises:
        CheckpointError: the source has gone, and there is no checkpoint that has its weights.
    """
    name = config.stages[0].from_
    if source is None or fingerprint is None or name is None:
        return
    if checkpoint is None and not has_weights(source):
        raise CheckpointError(
            f"stages[0].from: {name!r} is not there any more, and the run has no checkpoint to go on from"
        )
    keep_source(run_dir, name, source, fingerprint)


def _inherit(checkpoint: Checkpoint, plan: Plan, paths: RunPaths, world: World) -> None:
    """Let a run that begins from another one's checkpoint have what that one recorded until then."""
    state = checkpoint.state
    stages = [stage.name for stage in plan.stages[: state.stage + 1]]
    other, step = checkpoint.path.parents[1], _global_step(state, plan)
    state.recorded = first_rank_only(
        lambda: inherit_records(other, paths.run_dir, stages, state.phase, step), world
    )


def _open_records(
    plan: Plan, paths: RunPaths, world: World, checkpoint: Checkpoint | None
) -> tuple[Progress, Tracker]:
    """Open what the first rank shows and records; if it cannot, all ranks raise its error."""
    every = plan.config.tracking.log_every_steps
    step, recorded = None, 0
    if checkpoint is not None:
        step, recorded = _global_step(checkpoint.state, plan), checkpoint.state.recorded
    failure: LigoError | None = None
    try:
        progress = Progress(open_console(), paths.log, enabled=world.is_first, every_steps=every)
        tracker = build_tracker(plan.config, paths.run_dir, world.rank, step, progress.message, recorded)
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
        config.checkpoints.keep_steps,
    )
    system = build_system_metrics(
        config.tracking.system_metrics_every_seconds, places, world.rank, world.device, paths.run_dir
    )
    lacking = missing_library(config.tracking.system_metrics_every_seconds, world.device)
    if lacking is not None:
        progress.message(lacking)
    runner = PhaseRunner(plan, corpus, world, tracker, progress, checkpoints, signals=signals, system=system)
    drawn = config.tracking.pictures
    pictures = RunPictures(paths.run_dir, world, tracker, progress.message, drawn)

    builder = Builder(plan, world, corpus.library_keys(), corpus.exported_keys(), source)
    exports = {
        stage.name: builder.exported(stage)
        for stage in plan.stages
        if stage is plan.last or config.checkpoints.export_stages
    }
    for name, (model_config, generation) in exports.items():
        rehearse_export(paths.export(name), model_config, corpus.write_processor, world, generation)

    evaluation = config.evaluation
    tasks = ExportTasks(
        evaluation.harness,
        evaluation.micro_batch_size,
        paths.tasks,
        world,
        signals,
        tracker,
        progress.message,
    )

    def on_stage_end(stage: StagePlan, shards: Shards) -> None:
        pictures.add_losses(stage.name)
        if stage.name not in exports:
            return
        enter(f"{stage.name} export")
        directory = paths.export(stage.name)
        specs = plan.architecture.parameters(stage.shape)
        model_config, generation = exports[stage.name]
        with _going_on(checkpoints):
            card = model_card(plan, stage, runner.state.records, corpus)
            export_model(
                directory, specs, shards, model_config, corpus.write_processor, world, generation, card
            )
        tracker.set_tags({"export.path": str(directory)})
        progress.message(f"exported {stage.name} to {directory}")
        if stage is plan.last and config.tracking.register_model is not None:
            tracker.register_model(config.tracking.register_model, directory)
        tasks.run(stage.name, directory, stage.train.first_step + stage.train.steps)

    return Trainer(plan, builder, runner, on_stage_end, pictures.add_operator)


@contextmanager
def _going_on(checkpoints: CheckpointWriter) -> Iterator[None]:
    """What a disk, or what lies there already, does to an export is nothing that starting again would change.

    Raises:
        CheckpointError: says, beside that, from where the same command goes on.
    """
    try:
        yield
    except CheckpointError as error:
        goes_on = "" if checkpoints.last is None else f"; the same command goes on from {checkpoints.last}"
        failure = CheckpointError(f"{error}{goes_on}")
        failure.told_by = error.told_by
        raise failure from error


def _announce(
    progress: Progress,
    precision: str | None,
    notes: list[str],
    checkpoint: Checkpoint | None,
    corpus: Corpus,
    plan: Plan,
    world: World,
) -> None:
    ranks = "1 rank" if world.size == 1 else f"{world.size} ranks"
    taken = plan.samples_by_source
    told = [
        f"{read_from}: {part.description}; {epochs(taken[name], len(part.train))}"
        for name, read_from, part in parts_of(plan.config, corpus)
    ]
    if corpus.sources:
        told.insert(0, f"data.mixture of {len(told)}: {', '.join(corpus.sources)}")
    progress.message(f"{ranks}; {told[0]}")
    for line in told[1:]:
        progress.message(line)
    for line in ([] if precision is None else [precision]) + notes:
        progress.message(line)
    if checkpoint is not None:
        progress.message(f"resumed from {checkpoint.path}")


def _conclude(plan: Plan, corpus: Corpus, paths: RunPaths, state: RunState) -> None:
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
    losses, taken = state.records[-1].final_losses, plan.samples_by_source
    sources = [
        SourceSummary(name, taken[name], taken[name] / len(source.train), losses.get(name))
        for name, source in corpus.sources.items()
    ]
    try:
        write_summary(paths.run_dir, summaries, locations, sources)
    except OSError as error:
        raise LigoError(
            f"{paths.run_dir}: the model is exported, and the summary cannot be written: {error.strerror or error}"
        ) from error
    with suppress(SystemExit):  # rich's answer to a closed pipe: nobody looks any more
        show_summary(open_console(), summaries, locations, sources)


def _shown(record: StageRecord) -> dict[str, Any]:
    """What a summary shows of a stage's record."""
    shown = {field.name for field in fields(StageSummary)}
    return {name: value for name, value in asdict(record).items() if name in shown}


def _global_step(state: RunState, plan: Plan) -> int:
    """Optimizer steps of the whole run that are done."""
    phase = next(phase for phase in plan.stages[state.stage].phases if phase.kind == state.phase)
    return phase.first_step + state.step
