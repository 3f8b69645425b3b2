"""Running one phase of a schedule: the loop with everything that hangs on it, and the checkpoints of the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ligo_dist.checkpoints import CheckpointWriter, Snapshot
from ligo_dist.corpus import Batches, Corpus, Samples, fixed_batches
from ligo_dist.engine import Engine, EvaluationResult, World, fed
from ligo_dist.runtime.errors import NonFiniteLossError
from ligo_dist.runtime.heartbeat import beating, enter, where
from ligo_dist.runtime.progress import PhaseProgress, Progress
from ligo_dist.runtime.quantities import loss
from ligo_dist.runtime.signals import StopSignals
from ligo_dist.schedule import TRAIN, PhaseCost, PhasePlan, Plan, RunState, StagePlan
from ligo_dist.tracking import SystemMetrics, Tracker
from ligo_dist.training.hooks import (
    Account,
    CompleteCheckpoint,
    Evaluate,
    LogMetrics,
    SaveAtSteps,
    SaveCheckpoint,
    Show,
    StopAtNonFinite,
    StopWhenAsked,
    last_good_checkpoint,
    seconds_at_peak,
    stop_if_asked,
)
from ligo_dist.training.loop import Hook, Step, run_phase
from ligo_dist.training.profiling import PROFILE_DIRECTORY, StepProfiler


@dataclass
class PhaseRunner:
    """Runs phases and keeps the run's state while it does.

    Attributes:
        plan: of the run.
        corpus: what is trained on.
        world: the ranks.
        tracker: where metrics go.
        progress: where a person looks.
        checkpoints: what writes them.
        state: where the run stands.
        signals: that may ask the run to stop.
        system: reads the load of the nodes; None: it is not recorded.
    """

    plan: Plan
    corpus: Corpus
    world: World
    tracker: Tracker
    progress: Progress
    checkpoints: CheckpointWriter
    state: RunState = field(default_factory=RunState)
    signals: StopSignals = field(default_factory=StopSignals)
    system: SystemMetrics | None = None

    def run(
        self,
        stage: StagePlan,
        phase: PhasePlan,
        engine: Engine,
        cost: PhaseCost,
        snapshot: Callable[[], Snapshot],
    ) -> None:
        """Take the steps of a phase that are not done yet; a model of which there is none to train is evaluated once.

        Args:
            stage: the stage it belongs to.
            phase: its steps.
            engine: whose weights are trained.
            cost: of the phase.
            snapshot: what a checkpoint should hold now.
        """
        self.signals.defer()
        self.tracker.start_phase(phase.kind)
        enter(f"{stage.name} {phase.kind}")
        seed = self.plan.config.seed
        batches = Batches(self.corpus.train, seed, phase.batch_size, phase.first_sample, phase.mixing)
        done = self.state.step
        with self.progress.phase(stage.name, phase.kind, phase.steps, done) as show:
            if phase.kind == TRAIN and done == phase.steps:
                self._evaluation(stage, engine).run(phase.first_step + done)
                record = self.state.record
                show.update(done, validation_loss=record.final_loss, accuracy=record.final_accuracy)
            profiler = self._profiler(stage)
            hooks: list[Hook] = [profiler, *self._hooks(stage, phase, engine, cost, snapshot, show)]
            with profiler.around(phase, done):
                run_phase(engine, batches, phase, done, seed, hooks)

    def validation_loss(self, engine: Engine) -> float | None:
        """Mean loss per prediction on the fixed validation set; None for a model that predicts nothing."""
        measured = self.evaluate(engine)
        return None if measured is None else measured.loss

    def evaluate(self, engine: Engine, beat: str = "evaluating") -> EvaluationResult | None:
        """Loss and accuracy on the fixed validation set, of a mixture on that of each source and their mean; None for a
        model that predicts nothing. `beat`: what the heartbeat says meanwhile.

        Raises:
            NonFiniteLossError: on every rank, if the loss is no finite number.
        """
        if not self.corpus.validation.labelled:
            return None
        if not self.corpus.sources:
            return self._measured(engine, self.corpus.validation, beat)
        parts = {
            name: self._measured(engine, source.validation, beat)
            for name, source in self.corpus.sources.items()
        }
        mixture = self.plan.config.data.mixture
        return EvaluationResult.of_parts(parts, {name: source.weight for name, source in mixture.items()})

    def _measured(self, engine: Engine, samples: Samples, beat: str) -> EvaluationResult:
        evaluation, world = self.plan.config.evaluation, self.world
        batches = fixed_batches(
            samples, evaluation.sequences, world.rank, world.size, evaluation.micro_batch_size
        )
        measured = engine.evaluate(beating(fed(batches, world.device, samples.finish), beat))
        if not math.isfinite(measured.loss):
            raise NonFiniteLossError(
                f"{where()}: the validation loss is {measured.loss}; {last_good_checkpoint(self.settle())}"
            )
        return measured

    def _epochs(self, phase: PhasePlan, steps: int) -> dict[str, float]:
        """How often the run has gone through each source of a mixture after so many steps of a phase."""
        if phase.mixing is None:
            return {}
        taken = phase.mixing.taken(steps * phase.batch_size)
        sources = zip(self.corpus.sources.items(), taken, strict=True)
        return {f"data/epochs/{name}": samples / len(source.train) for (name, source), samples in sources}

    def save(self, global_step: int, snapshot: Snapshot) -> None:
        """Begin a checkpoint of the run as it stands; it is written while the run goes on."""
        self.state.recorded = self.tracker.recorded
        self.checkpoints.save(self.state, global_step, snapshot)

    def settle(self) -> Path | None:
        """Wait until a checkpoint that is being written is complete; returns the newest one."""
        return self.checkpoints.settle()

    def stop_if_asked(self, where: str) -> None:
        """Stop here, once what is being saved is complete, if a signal has asked any rank to. Collective.

        Raises:
            Preempted: on every rank.
        """
        stop_if_asked(self.signals, self.world, where, self.settle)

    def _evaluation(self, stage: StagePlan, engine: Engine) -> Evaluate:
        def measure() -> EvaluationResult | None:
            measured = self.evaluate(engine, f"evaluating after step {self.state.step}")
            if measured is not None and measured.parts:
                losses = ", ".join(f"{name} {loss(part.loss)}" for name, part in measured.parts.items())
                self.progress.message(f"{stage.name} validation: {losses}")
            return measured

        return Evaluate(measure, self.state, self.tracker, self.plan.config.evaluation.every_steps)

    def _profiler(self, stage: StagePlan) -> StepProfiler:
        config = self.plan.config
        directory = Path(config.run_dir).absolute() / PROFILE_DIRECTORY / stage.name
        return StepProfiler(config.profile, directory, self.world, self.tracker, self.progress.message)

    def _hooks(
        self,
        stage: StagePlan,
        phase: PhasePlan,
        engine: Engine,
        cost: PhaseCost,
        snapshot: Callable[[], Snapshot],
        show: PhaseProgress,
    ) -> list[Hook]:
        config, state = self.plan.config, self.state
        tokens = phase.batch_size * self.corpus.train.tokens_per_sample
        evaluate = self._evaluation(stage, engine)
        every = config.tracking.log_every_steps
        at_peak = seconds_at_peak(self.plan, cost, self.world.device)
        epochs = partial(self._epochs, phase)
        metrics = LogMetrics(state, self.tracker, tokens, self.world, every, self.system, at_peak, epochs)
        planned_flops = self.plan.cost.hardware_flops

        def remaining_fraction() -> float:
            return max(0.0, 1 - state.hardware_flops / planned_flops)

        def save(step: int) -> None:
            self.settle()  # first, so that there is one copy of the partitions at a time
            self.save(step, snapshot())

        checkpoint = SaveCheckpoint(save, config.checkpoints.every_steps)

        def save_and_wait(step: Step) -> None:
            checkpoint.save_once(step)
            self.settle()

        ends_run = stage.index == self.plan.last.index and phase.kind == TRAIN
        return [
            StopAtNonFinite(stage.name, self.settle),
            Account(state, tokens, cost),
            metrics,
            evaluate,
            Show(show, tokens, evaluate, metrics, remaining_fraction),
            CompleteCheckpoint(self.checkpoints.advance),
            checkpoint,
            SaveAtSteps(checkpoint, config.checkpoints.keep_steps),
            StopWhenAsked(stage.name, self.signals, self.world, save_and_wait, ends_run),
        ]
