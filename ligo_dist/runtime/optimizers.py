"""The optimizers' settings, as the schedule has them and the engine takes them; without torch."""

from __future__ import annotations

from dataclasses import dataclass

MATRICES = "block matrices"
"""Kind of the parameters that Muon trains, where it does: the matrices of the blocks."""

NEWTON_SCHULZ_STEPS = 5
"""Iterations by which Muon orthogonalizes a matrix, as Jordan et al. have them."""


@dataclass(frozen=True)
class MuonSettings:
    """Muon (Jordan et al., 2024) for the matrices of the blocks.

    Attributes:
        learning_rate: the highest of the schedule; an update of a matrix has the size that AdamW's would have with it.
        momentum: decay of the running mean of the gradient.
    """

    learning_rate: float
    momentum: float


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (Loshchilov & Hutter, 2019); matrices decay, vectors (norms and biases) do not. `muon`: what trains the
    matrices of the blocks in its place, None: nothing does."""

    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    gradient_clipping: float
    muon: MuonSettings | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return "AdamW" if self.muon is None else "Muon and AdamW"
