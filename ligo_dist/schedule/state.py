"""Where a run stands in its schedule, and what is known of its stages so far."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

LEARN, TRAIN = "learn", "train"
"""The phases of a stage."""


@dataclass
class StageRecord:
    """What is known of a stage so far; see `summary.StageSummary` for those that are shown.

    Attributes:
        adam_steps: steps that the optimizer's state had seen before the stage's first one.
        final_losses: of which `final_loss` is the mean, by the sources of a mixture.
    """

    tokens: int = 0
    flops: float = 0.0
    hardware_flops: float = 0.0
    seconds: float = 0.0
    source_loss: float | None = None
    grown_loss: float | None = None
    random_loss: float | None = None
    final_loss: float | None = None
    final_accuracy: float | None = None
    adam_steps: int = 0
    final_losses: dict[str, float] = field(default_factory=dict)


@dataclass
class RunState:
    """Where a run stands; with the weights and the optimizer's moments, all that resuming needs.

    Attributes:
        stage: index of the stage.
        phase: `learn` or `train`.
        step: optimizer steps of the phase that are done.
        tokens: trained on, over the whole run.
        flops: spent on training, learning and growing, over the whole run: model FLOPs.
        hardware_flops: the same with what was recomputed.
        records: one for each stage begun.
        recorded: records of metrics by now; see `Tracker`. The first rank's counts.
    """

    stage: int = 0
    phase: str = TRAIN
    step: int = 0
    tokens: int = 0
    flops: float = 0.0
    hardware_flops: float = 0.0
    records: list[StageRecord] = field(default_factory=lambda: [StageRecord()])
    recorded: int = 0

    @property
    def record(self) -> StageRecord:
        return self.records[self.stage]

    @property
    def seconds(self) -> float:
        """Time spent on steps, their evaluations and growing, over the whole run; what a resumed run takes again counts
        once."""
        return sum(record.seconds for record in self.records)

    def enter(self, stage: int, phase: str) -> None:
        """Go to the beginning of a phase."""
        self.stage, self.phase, self.step = stage, phase, 0
        if len(self.records) == stage:
            self.records.append(StageRecord())

    def add(self, tokens: int, flops: float, hardware_flops: float, seconds: float) -> None:
        self.record.seconds += seconds
        for account in (self, self.record):
            account.tokens += tokens
            account.flops += flops
            account.hardware_flops += hardware_flops

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        """The state that was written; one of a version that knew hardware FLOPs alone called them `flops`."""

        def completed(account: dict[str, Any]) -> dict[str, Any]:
            return {"hardware_flops": account["flops"], **account}

        records = [StageRecord(**completed(record)) for record in values["records"]]
        return cls(**{**completed(values), "records": records})
