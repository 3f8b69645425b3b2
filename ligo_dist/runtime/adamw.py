"""AdamW's settings, as the schedule has them and the engine takes them; without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (Loshchilov & Hutter, 2019); matrices decay, vectors (norms and biases) do not."""

    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    gradient_clipping: float
