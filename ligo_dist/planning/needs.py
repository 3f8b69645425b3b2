"""What a configuration needs at its fullest, in three numbers: for checks of a machine before a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ligo_dist.architectures import ModelShape
from ligo_dist.config.schema import Config
from ligo_dist.planning.estimate import estimate_stages
from ligo_dist.planning.setting import Setting


@dataclass(frozen=True)
class Needs:
    """Bytes that a run needs.

    Attributes:
        memory: on one rank, at the fullest moment of all phases: on its accelerator, or where there is none in the
            machine's memory, beside what the process takes anyway.
        phase: that it is in, as `stage phase, moment`.
        checkpoints: on disk, while the largest checkpoint is written beside those that are kept.
        exports: on disk, of all models that are exported.
    """

    memory: int
    phase: str
    checkpoints: int
    exports: int


def needs(config: Config, shapes: Sequence[ModelShape], ranks: int, *, on_gpu: bool = True) -> Needs:
    """The needs of a checked configuration whose models have these shapes.

    Args:
        config: the configuration.
        shapes: of its stages' models (`config.shapes.stage_shapes`).
        ranks: how many work together.
        on_gpu: whether they compute on GPUs, where attention keeps no scores.
    """
    stages = estimate_stages(config, shapes, Setting.of(config, ranks, on_gpu=on_gpu))
    fullest = [(phase.fullest, stage.name, phase.kind) for stage in stages for phase in stage.phases]
    memory, name, kind = max(fullest, key=lambda entry: entry[0].total)
    largest = max(phase.checkpoint for stage in stages for phase in stage.phases)
    exported = stages if config.checkpoints.export_stages else stages[-1:]
    return Needs(
        memory.total,
        f"{name} {kind}, {memory.moment}",
        largest * (config.checkpoints.keep + 1),
        sum(stage.export for stage in exported),
    )
