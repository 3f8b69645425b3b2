"""From a trained stage to the next one's model: learn the operator, apply it shard by shard, check and measure it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ligo_dist.checkpoints import Snapshot
from ligo_dist.engine import ADAM_MOMENTS, Engine, EvaluationResult, Shards
from ligo_dist.growth import (
    Growth,
    OperatorValues,
    SourceShards,
    gathered_operator,
    grown_moments,
    grown_shards,
    initial_operator,
    initial_operator_shards,
)
from ligo_dist.runtime.heartbeat import beating, enter
from ligo_dist.schedule import LEARN, TRAIN, GrowPlan, StagePlan
from ligo_dist.training.builder import Builder, snapshot_of
from ligo_dist.training.hooks import cumulative, evaluated, keep_last
from ligo_dist.training.phase import PhaseRunner
from ligo_dist.training.preservation import check_preserved

SOURCE_MOMENTS = {moment: f"source_{moment}" for moment in ADAM_MOMENTS}
"""Group of a checkpoint that holds each of the source's moments while the operator is learned."""


@dataclass(frozen=True)
class Trained:
    """A stage's model when its training is over.

    Attributes:
        stage: which stage.
        shards: this rank's partitions.
        moments: of the optimizer, by moment; empty where no one asks for them, or it was not trained.
        adam_steps: optimizer steps that the moments have seen.
        seconds: that reading them out of the engine took.
    """

    stage: StagePlan
    shards: Shards
    moments: dict[str, Shards]
    adam_steps: int
    seconds: float = 0.0


class Stopwatch:
    """Wall time since it was made, and `before` that; without what is done while it is paused."""

    def __init__(self, before: float = 0.0) -> None:
        self._began = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began


LearningEnd = Callable[[str, Growth, OperatorValues, OperatorValues], None]
"""Called with a stage's name, its growth, and the operator: its start, and what was learned. Collective."""


@dataclass(frozen=True)
class Grower:
    """Makes the model of a stage out of the one before.

    Attributes:
        builder: builds models and engines.
        runner: runs the learning; it holds the run's state.
        on_learning_end: what is done with a learned operator.
    """

    builder: Builder
    runner: PhaseRunner
    on_learning_end: LearningEnd

    def grow(self, stage: StagePlan, grow: GrowPlan, before: Trained, groups: dict[str, Shards]) -> Engine:
        """The engine of the grown model. Collective.

        All that passes meanwhile is time of growing: engines that are built, the operator, moments, checks, the
        evaluation. As in training, checkpoints and pictures are left out; the steps that learn count their own.

        Args:
            stage: to make the model of.
            grow: how.
            before: the source; its shards are used up.
            groups: of a checkpoint made while the operator was learned; empty at the beginning.

        Raises:
            PreservationError: the method keeps the function for this pair of models, and the result does not.
        """
        enter(f"{stage.name} grow")
        # The configuration's own checks refuse moments of a stage that is not trained.
        assert grow.optimizer_state == "fresh" or before.moments, before.stage.name
        watch = Stopwatch(before.seconds)
        source = self._source(stage, grow, before)
        learns = grow.learn.steps > 0
        if learns:
            operator = self._learned(stage, grow, source, before, groups, watch)
            with watch.paused():
                self.on_learning_end(stage.name, grow.growth, self._initial(stage, grow), operator)
        else:
            operator = self._initial(stage, grow)
        engine, grown = self._applied(stage, grow, source, operator)
        self._set_moments(grow, before, operator, engine)
        with watch.paused():
            self.runner.settle()  # its copy of the operator goes before another is made of the model
            snapshot = snapshot_of(engine, "model")
        if not learns:
            self._check(stage, grow, source, before, operator, snapshot.groups["model"])
        self._report(stage, watch.seconds, grown)
        self.runner.state.phase, self.runner.state.step = TRAIN, 0
        self.runner.save(stage.train.first_step, snapshot)
        if stage.train.steps or stage.index != self.builder.plan.last.index:
            self.runner.stop_if_asked(f"growing into {stage.name}")
        return engine

    def _source(self, stage: StagePlan, grow: GrowPlan, before: Trained) -> SourceShards:
        fresh = self.builder.fresh_layers(stage, grow.layout)
        return SourceShards.build(grow.growth, before.shards, self.builder.world, fresh)

    def _initial(self, stage: StagePlan, grow: GrowPlan) -> OperatorValues:
        """The operator's start. It keeps matrices whole, so none is held while the operator is learned."""
        stream = self.builder.stream(stage)
        return initial_operator(grow.growth, grow.method, stream, self.builder.world)

    def _learned(
        self,
        stage: StagePlan,
        grow: GrowPlan,
        source: SourceShards,
        before: Trained,
        groups: dict[str, Shards],
        watch: Stopwatch,
    ) -> OperatorValues:
        """Learn the operator, from its start or from where a checkpoint left it."""
        runner, layout = self.runner, grow.layout
        runner.tracker.start_phase(LEARN)
        if "operator" not in groups:
            self._check(stage, grow, source, before, self._initial(stage, grow), None)
        engine = self.builder.learning_engine(stage, grow, source)
        assert stage.cost.learn is not None
        if "operator" in groups:
            restore(engine, "operator", groups, runner.state.step)
        else:
            self._start(stage, grow, engine)
        specs = {spec.name: spec for spec in layout.architecture.parameters(layout.source)}
        kept = {SOURCE_MOMENTS[moment]: shards for moment, shards in before.moments.items()}

        def snapshot() -> Snapshot:
            learned = snapshot_of(engine, "operator")
            groups = {"source": source.unstacked(), **kept}
            numels = {group: {name: specs[name].numel for name in shards} for group, shards in groups.items()}
            return Snapshot({**groups, **learned.groups}, {**numels, **learned.numels})

        with watch.paused():
            runner.run(stage, grow.learn, engine, stage.cost.learn, snapshot)
        operator = engine.read_shards()
        engine.release()
        return gathered_operator(grow.growth, operator, runner.world)

    def _start(self, stage: StagePlan, grow: GrowPlan, engine: Engine) -> None:
        """Give an operator's engine the method's first values."""
        stream = self.builder.stream(stage)
        shards = initial_operator_shards(grow.growth, grow.method, stream, self.builder.world)
        engine.write_shards(beating(shards, "setting the operator"))

    def _applied(
        self, stage: StagePlan, grow: GrowPlan, source: SourceShards, operator: OperatorValues
    ) -> tuple[Engine, EvaluationResult | None]:
        """The target's engine, the grown model written into its partitions; and how good that is."""
        runner, record, builder = self.runner, self.runner.state.record, self.builder
        runner.tracker.start_phase("grow")
        enter(f"{stage.name} grow")
        engine = builder.model_engine(stage)
        if builder.plan.config.evaluation.compare_random:
            engine.write_shards(builder.random_shards(stage).items())
            record.random_loss = runner.validation_loss(engine)
        grown_model = grown_shards(grow.growth, source, operator, runner.world)
        engine.write_shards(beating(grown_model, "applying the operator"))
        assert stage.cost.grow is not None
        runner.state.add(0, stage.cost.grow.flops, stage.cost.grow.hardware_flops, 0.0)
        grown = runner.evaluate(engine)
        if grown is not None:
            record.grown_loss = grown.loss
            keep_last(record, grown)
        return engine, grown

    def _set_moments(self, grow: GrowPlan, before: Trained, operator: OperatorValues, engine: Engine) -> None:
        """Give the optimizer of the grown model the source's moments, grown."""
        if grow.optimizer_state == "fresh":
            return
        world = self.builder.world
        moments: dict[str, Shards] = {}
        _, *selections = grow.states
        for moment, squared, selection in zip(ADAM_MOMENTS, (False, True), selections, strict=True):
            shards = before.moments.pop(moment)
            source = SourceShards.build(grow.growth, shards, world, zero_extras=True, selection=selection)
            grown = grown_moments(
                grow.growth,
                source,
                operator,
                world,
                depth=grow.method.depth,
                squared=squared,
                asymmetric=grow.optimizer_state == "asymmetric",
            )
            moments[moment] = dict(beating(grown, f"growing {moment}"))
        engine.write_moments(moments, before.adam_steps)
        self.runner.state.record.adam_steps = before.adam_steps

    def _check(
        self,
        stage: StagePlan,
        grow: GrowPlan,
        source: SourceShards,
        before: Trained,
        start: OperatorValues,
        grown: Shards | None,
    ) -> None:
        """Hold the target (`grown`, or what the operator's start makes) against the source, if it is to be equal."""
        error = check_preserved(
            stage, grow, before.stage, source, grown, self.builder, start, self.runner.corpus
        )
        if error is None:
            return
        runner = self.runner
        when, step = "grown", stage.train.first_step
        if grown is None:
            when, step = "the operator's start", grow.learn.first_step
        runner.tracker.log({"grow/preservation_error": error, **cumulative(runner.state)}, step)
        runner.progress.message(
            f"{stage.name}, {when}: computes what {before.stage.name} computes, to {error:.1e} of the largest output"
        )

    def _report(self, stage: StagePlan, seconds: float, grown: EvaluationResult | None) -> None:
        record = self.runner.state.record
        record.seconds += seconds
        losses = {
            "grow/source_loss": record.source_loss,
            "grow/grown_loss": record.grown_loss,
            "grow/random_loss": record.random_loss,
        }
        known = {name: loss for name, loss in losses.items() if loss is not None}
        known |= {} if grown is None else evaluated(grown)
        metrics = {**known, "grow/seconds": seconds, **cumulative(self.runner.state)}
        self.runner.tracker.log(metrics, stage.train.first_step)
        text = f"grown into {stage.name} in {seconds:.1f} s"
        if record.source_loss is not None and record.grown_loss is not None:
            text += f": validation loss {record.source_loss:.3f} -> {record.grown_loss:.3f}"
        if record.random_loss is not None:
            text += f" (random initialisation: {record.random_loss:.3f})"
        self.runner.progress.message(text)


def restore(engine: Engine, group: str, groups: dict[str, Shards], adam_steps: int) -> None:
    """Give an engine the weights and the moments of a checkpoint; they are taken out of `groups`."""
    engine.write_shards(groups.pop(group).items())
    moments = {moment: groups.pop(moment) for moment in ADAM_MOMENTS if moment in groups}
    if moments:
        engine.write_moments(moments, adam_steps)
