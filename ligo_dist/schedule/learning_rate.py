"""Learning rates as functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up, then one of four courses.

    Attributes:
        kind: `constant`; `cosine` (SGDR's half period, arXiv 1608.03983) and `linear` fall until the last step;
            `wsd` (warm-up, stable, decay; arXiv 2404.06395) stays, then falls linearly in the last `decay_steps`.
        peak: the highest rate.
        steps: optimizer steps of the phase.
        warmup_steps: the rate rises linearly from peak / warmup_steps to the peak in them.
        decay_steps: for `wsd`.
        final_ratio: rate of the last step as a part of the peak; unused by `constant`.
    """

    kind: Literal["constant", "cosine", "linear", "wsd"]
    peak: float
    steps: int
    warmup_steps: int
    decay_steps: int
    final_ratio: float

    def __call__(self, step: int) -> float:
        """The rate of step 0, 1, ..., steps - 1."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.peak
        length = self.decay_steps if self.kind == "wsd" else self.steps - self.warmup_steps
        done = step + 1 - (self.steps - length)
        fraction = min(max(done / length, 0.0), 1.0)
        fall = (1 - math.cos(math.pi * fraction)) / 2 if self.kind == "cosine" else fraction
        return self.peak * (1 - (1 - self.final_ratio) * fall)
