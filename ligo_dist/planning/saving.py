"""What growing saves against training the same model from scratch: what is known, and what is assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ligo_dist.architectures import Objective
from ligo_dist.planning.estimate import StageEstimate

PUBLISHED: dict[Objective, tuple[str, float]] = {
    "causal_lm": ("GPT2-Medium", 0.225),
    "masked_lm": ("BERT-Base", 0.447),
    "image_classification": ("DeiT-B", 0.554),
}
"""FLOPs that LiGO saved until it had the loss, or the accuracy, of training from scratch; learning the operator
included, training the source not (Wang et al., ICLR 2023, arXiv 2303.00980, section 4)."""


@dataclass(frozen=True)
class Saving:
    """One grown stage against training its model from scratch.

    Attributes:
        stage: its name.
        own: FLOPs of the stage: learning, growing and training.
        so_far: the same with all stages before it.
        scratch_steps: steps from scratch that cost as much as everything so far: growing pays if more are needed.
        train_steps: steps that the stage itself trains.
        scratch: FLOPs of training from scratch to the same loss, under the assumption.
    """

    stage: str
    own: int
    so_far: int
    scratch_steps: float
    train_steps: int
    scratch: float

    @property
    def with_sources(self) -> float:
        """Part of the FLOPs from scratch that the whole schedule so far saves; negative where it costs more."""
        return 1 - self.so_far / self.scratch


def savings(stages: Sequence[StageEstimate], assumed: float) -> list[Saving]:
    """What each grown stage saves, if its own FLOPs are `1 - assumed` of those that its model needs from scratch."""
    found = []
    so_far = 0
    for stage in stages:
        own = stage.cost.total.flops
        so_far += own
        train = stage.cost.train
        if stage.cost.grow is not None and train.flops_per_step:
            scratch_steps = so_far / train.flops_per_step
            saving = Saving(stage.name, own, so_far, scratch_steps, train.steps, own / (1 - assumed))
            found.append(saving)
    return found
