"""The schedule, stage by stage: learn how to grow, grow, train. Resumable after any step of any phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ligo_dist.checkpoints import Checkpoint, read_groups
from ligo_dist.engine import ADAM_MOMENTS, Engine, Shards
from ligo_dist.runtime.errors import MoreNodes
from ligo_dist.runtime.heartbeat import enter
from ligo_dist.schedule import LEARN, TRAIN, Plan, RunState, StagePlan
from ligo_dist.training.builder import Builder, snapshot_of
from ligo_dist.training.grower import SOURCE_MOMENTS, Grower, LearningEnd, Stopwatch, Trained, restore
from ligo_dist.training.phase import PhaseRunner

_GROUPS = ("model", "operator", "source", *ADAM_MOMENTS, *SOURCE_MOMENTS.values())

StageEnd = Callable[[StagePlan, Shards], None]
"""Called with a trained stage and its model's partitions."""


class Trainer:
    """Takes a run from where it stands to the end of its schedule.

    Args:
        plan: of the run.
        builder: builds models and engines.
        runner: runs the phases; it holds the run's state.
        on_stage_end: what is done with a trained stage.
        on_learning_end: what is done with a learned operator.
    """

    def __init__(
        self,
        plan: Plan,
        builder: Builder,
        runner: PhaseRunner,
        on_stage_end: StageEnd,
        on_learning_end: LearningEnd,
    ) -> None:
        self.plan, self.builder, self.runner, self.on_stage_end = plan, builder, runner, on_stage_end
        self.grower = Grower(builder, runner, on_learning_end)

    @property
    def state(self) -> RunState:
        return self.runner.state

    def run(self, checkpoint: Checkpoint | None, *, begins: bool = False) -> None:
        """Run all stages, from a checkpoint or from the beginning.

        Args:
            checkpoint: to go on from.
            begins: whether it is another run's. Where that one went on, a stage may end here, and has to be measured.

        Raises:
            Preempted: a signal asked for it.
            MoreNodes: a stage is done, and the next one asks for more nodes than there are.
        """
        groups: dict[str, Shards] = {}
        if checkpoint is not None:
            enter("resume")
            self.runner.state, self.runner.checkpoints.last = checkpoint.state, checkpoint.path
            groups = read_groups(checkpoint, self.runner.world, _GROUPS)
        before = self._source_of(groups)
        for stage in self.plan.stages[self.state.stage :]:
            self.runner.tracker.start_stage(stage.name, self._description(stage))
            was_done = "model" in groups and self.state.step == stage.train.steps and not begins
            if was_done:
                trained = self._as_saved(stage, groups)
            else:
                trained = self._train(stage, self._engine(stage, before, groups))
            groups = {}
            self.runner.settle()  # an export that fails, or is killed, costs none of the training
            self.on_stage_end(stage, trained.shards)
            self.runner.tracker.end_stage()
            # Whoever goes on from the checkpoint of this boundary takes the nodes that there are.
            if not was_done and (stage.train.steps or stage.grow is not None):
                self._check_nodes(stage)
            before = trained

    def _check_nodes(self, stage: StagePlan) -> None:
        """Stop if the stage after this one asks for more nodes than there are.

        Raises:
            MoreNodes: it does.
        """
        nodes = self.runner.world.nodes
        for other in self.plan.stages[stage.index + 1 : stage.index + 2]:
            asked = other.section.nodes
            if asked is not None and asked > nodes:
                raise MoreNodes(
                    f"stage {stage.name} is done, and {other.name} asks for {asked} nodes"
                    f" (stages[{other.index}].nodes); there {'is' if nodes == 1 else 'are'} {nodes}. The same command"
                    f" on {asked} nodes goes on; on fewer it goes on with what it is given"
                )

    def _engine(self, stage: StagePlan, before: Trained | None, groups: dict[str, Shards]) -> Engine:
        """The engine of a stage's model with its weights: resumed, grown, or given its first values."""
        enter(f"{stage.name} start")
        record = self.state.record
        if "model" in groups:
            engine = self.builder.model_engine(stage)
            restore(engine, "model", groups, record.adam_steps + self.state.step)
            return engine
        if self.state.stage != stage.index:
            source_loss = record.final_loss
            self.state.enter(stage.index, LEARN if stage.grow else TRAIN)
            self.state.record.source_loss = source_loss
        if stage.grow is not None:
            assert before is not None
            return self.grower.grow(stage, stage.grow, before, groups)
        watch = Stopwatch()
        engine = self.builder.model_engine(stage)
        engine.write_shards(self.builder.first_shards(stage, self.runner.progress.message).items())
        self.state.record.seconds += watch.seconds  # as growing counts the engine that it builds
        return engine

    def _train(self, stage: StagePlan, engine: Engine) -> Trained:
        """Train a stage's model, and release its engine."""
        self.runner.run(stage, stage.train, engine, stage.cost.train, lambda: snapshot_of(engine, "model"))
        watch = Stopwatch()
        moments = engine.read_moments() if self._moments_are_wanted(stage) else {}
        shards = engine.read_shards()
        engine.release()
        return Trained(stage, shards, moments, self._adam_steps(stage), watch.seconds)

    def _as_saved(self, stage: StagePlan, groups: dict[str, Shards]) -> Trained:
        """A stage's model as the checkpoint at its very end has it."""
        moments = {moment: groups[moment] for moment in ADAM_MOMENTS if moment in groups}
        wanted = moments if self._moments_are_wanted(stage) else {}
        return Trained(stage, groups["model"], wanted, self._adam_steps(stage))

    def _source_of(self, groups: dict[str, Shards]) -> Trained | None:
        """The source in a checkpoint that was made while an operator was learned."""
        if "source" not in groups:
            return None
        stage = self.plan.stages[self.state.stage - 1]
        moments = {moment: groups.pop(group) for moment, group in SOURCE_MOMENTS.items() if group in groups}
        steps = self.state.records[stage.index].adam_steps + stage.train.steps
        return Trained(stage, groups.pop("source"), moments, steps)

    def _moments_are_wanted(self, stage: StagePlan) -> bool:
        following = self.plan.stages[stage.index + 1 : stage.index + 2]
        return any(other.grow is not None and other.grow.optimizer_state != "fresh" for other in following)

    def _adam_steps(self, stage: StagePlan) -> int:
        return self.state.record.adam_steps + stage.train.steps

    def _description(self, stage: StagePlan) -> dict[str, Any]:
        """A stage's parameters for the tracker."""
        grow = stage.grow
        growth = None
        if grow is not None:
            plan, made = asdict(grow.method), grow.layout
            growth = {
                **plan,
                "tied": made.tied,
                "fixed_identity": made.fixed_identity,
                "share_depth": made.share_depth,
                "share_width": made.share_width,
                "optimizer_state": grow.optimizer_state,
            }
        return {
            "shape": asdict(stage.shape),
            "parameters": stage.parameters,
            "grow": growth,
            **{phase.kind: asdict(phase) for phase in stage.phases},
        }
