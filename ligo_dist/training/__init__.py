"""What the ranks do: build models and engines, run phases step by step, grow from stage to stage."""

from ligo_dist.training.builder import Builder, snapshot_of
from ligo_dist.training.grower import Grower, Stopwatch, Trained
from ligo_dist.training.hooks import (
    Account,
    Evaluate,
    LogMetrics,
    SaveCheckpoint,
    StopAtNonFinite,
    StopWhenAsked,
    seconds_at_peak,
    stop_if_asked,
)
from ligo_dist.training.loop import Step, run_phase, training_steps
from ligo_dist.training.phase import PhaseRunner
from ligo_dist.training.preservation import check_preserved
from ligo_dist.training.profiling import StepProfiler
from ligo_dist.training.resume import (
    agree_on_precision,
    find_checkpoint,
    find_start,
    recorded_config,
    run_lock,
)
from ligo_dist.training.run import run_schedule
from ligo_dist.training.summary import Locations, StageSummary, show_summary, write_summary

__all__ = [
    "Account",
    "Builder",
    "Evaluate",
    "Grower",
    "Locations",
    "LogMetrics",
    "PhaseRunner",
    "SaveCheckpoint",
    "StageSummary",
    "Step",
    "StepProfiler",
    "StopAtNonFinite",
    "StopWhenAsked",
    "Stopwatch",
    "Trained",
    "agree_on_precision",
    "check_preserved",
    "find_checkpoint",
    "find_start",
    "recorded_config",
    "run_lock",
    "run_phase",
    "run_schedule",
    "seconds_at_peak",
    "show_summary",
    "snapshot_of",
    "stop_if_asked",
    "training_steps",
    "write_summary",
]
