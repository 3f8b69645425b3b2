"""The schedule as flat numbers: stages and phases, where a run stands in them, what they cost."""

from ligo_dist.schedule.batch_split import BatchSplit
from ligo_dist.schedule.continuation import (
    check_same_run,
    check_start,
    has_begun,
    read_start,
    start_checkpoint,
    taken_otherwise,
)
from ligo_dist.schedule.costs import PhaseCost, StageCost, growing_cost, learning_cost, training_cost
from ligo_dist.schedule.flops import (
    forward_flops,
    growing_flops,
    learning_step_flops,
    orthogonalizing_flops,
    parameter_count,
    training_step_flops,
)
from ligo_dist.schedule.learning_rate import LearningRate
from ligo_dist.schedule.mixing import Mixing, whole_weights
from ligo_dist.schedule.plan import GrowPlan, PhasePlan, Plan, StagePlan
from ligo_dist.schedule.state import LEARN, TRAIN, RunState, StageRecord

__all__ = [
    "LEARN",
    "TRAIN",
    "BatchSplit",
    "GrowPlan",
    "LearningRate",
    "Mixing",
    "PhaseCost",
    "PhasePlan",
    "Plan",
    "RunState",
    "StageCost",
    "StagePlan",
    "StageRecord",
    "check_same_run",
    "check_start",
    "forward_flops",
    "growing_cost",
    "growing_flops",
    "has_begun",
    "learning_cost",
    "learning_step_flops",
    "orthogonalizing_flops",
    "parameter_count",
    "read_start",
    "start_checkpoint",
    "taken_otherwise",
    "training_cost",
    "training_step_flops",
    "whole_weights",
]
