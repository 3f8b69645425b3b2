"""What a run's metrics say about its method: curves of loss against FLOPs, and what is saved.

No torch, no configuration: numbers in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from ligo_dist.report.compare import cost_to_reach, falling
from ligo_dist.tracking.record import Record, read_records

LOSS, FLOPS, SOURCE_LOSS = "evaluate/loss", "cumulative/flops", "grow/source_loss"


@dataclass(frozen=True)
class Point:
    """A validation loss that was measured.

    Attributes:
        flops: spent since the target was begun: learning and growing, not what trained the source.
        loss: mean per token.
        phase: `learn`, `grow` or `train`.
        step: of the phase.
    """

    flops: float
    loss: float
    phase: str
    step: int


@dataclass(frozen=True)
class Curve:
    """One run: how the target's validation loss fell.

    Attributes:
        points: in the order in which they were measured.
        own_source_flops: spent by the run itself before the target was begun.
        source_loss: of the model that it was grown from; None for a model that was not grown.
    """

    points: list[Point]
    own_source_flops: float = 0.0
    source_loss: float | None = None

    @property
    def grown_loss(self) -> float | None:
        """Right after growing; None for a model that was not grown."""
        return next((point.loss for point in self.points if point.phase == "grow"), None)

    @property
    def final(self) -> Point:
        return self.points[-1]

    def until(self, steps: int | None) -> Curve:
        """The grown model's points up to that training step (None: all): what learning only looked at is left out."""
        kept = [p for p in self.points if p.phase != "learn" and (steps is None or p.step <= steps)]
        return replace(self, points=kept)


def read_curve(path: Path, stage: str) -> Curve:
    """The curve of a stage from a run's metrics file.

    Raises:
        ValueError: if the file has no validation loss of that stage.
    """
    records = read_records(path)
    before = [record for record in records if record.get("stage") != stage and FLOPS in record]
    own = float(before[-1][FLOPS]) if before else 0.0
    measured = [record for record in records if record.get("stage") == stage and LOSS in record]
    if not measured:
        raise ValueError(f"{path}: no validation loss of stage {stage!r}")
    starts = _phase_starts(records, stage)
    points = [
        Point(
            float(record[FLOPS]) - own,
            float(record[LOSS]),
            record["phase"],
            record["step"] - starts[record["phase"]],
        )
        for record in measured
    ]
    source = next((float(record[SOURCE_LOSS]) for record in measured if SOURCE_LOSS in record), None)
    return Curve(points, own, source)


def _phase_starts(records: Sequence[Record], stage: str) -> dict[str, int]:
    """The run's optimizer steps when each phase of the stage began."""
    first = max((record["step"] for record in records if record.get("stage") != stage), default=0)
    grown = [r["step"] for r in records if r.get("stage") == stage and r.get("phase") == "grow"]
    train = grown[0] if grown else first
    return {"learn": first, "grow": train, "train": train}


def flops_to_reach(points: Sequence[Point], loss: float) -> float | None:
    """FLOPs at which the falling curve through the points meets a loss: see `cost_to_reach`."""
    return cost_to_reach([point.flops for point in points], [point.loss for point in points], loss)


def loss_at(points: Sequence[Point], flops: float) -> float | None:
    """The loss after so many FLOPs, linear between points; None before the first and after the last."""
    for before, after in pairwise(points):
        if before.flops <= flops <= after.flops:
            if after.flops == before.flops:
                return after.loss
            part = (flops - before.flops) / (after.flops - before.flops)
            return before.loss + part * (after.loss - before.loss)
    return None


@dataclass(frozen=True)
class Reference:
    """What scratch came to with one seed.

    Attributes:
        loss: that it reaches with its whole budget at the full learning rate: the end of its falling curve, so that
            one lucky evaluation does not set it.
        flops: that budget.
        final_loss: after the learning rate's final fall.
        final_flops: all it has spent.
    """

    loss: float
    flops: float
    final_loss: float
    final_flops: float


def make_reference(scratch: Curve, steps: int) -> Reference:
    """The reference from scratch's curve, of which so many steps are at the full learning rate."""
    points = scratch.until(steps).points
    loss = falling([point.loss for point in points])[-1]
    return Reference(loss, points[-1].flops, scratch.final.loss, scratch.final.flops)


@dataclass(frozen=True)
class Saving:
    """FLOPs saved on the way to scratch's loss, as a part of scratch's FLOPs.

    Attributes:
        excluded: the source's training not counted.
        included: everything counted.
        reached: False if the run ended before: the numbers are upper bounds.
    """

    excluded: float
    included: float
    reached: bool


def saving(points: Sequence[Point], source_flops: float, reference: Reference) -> Saving:
    """What a run saves whose source cost `source_flops`."""
    flops = flops_to_reach(points, reference.loss)
    spent = points[-1].flops if flops is None else flops
    excluded = 1 - spent / reference.flops
    return Saving(excluded, excluded - source_flops / reference.flops, reached=flops is not None)
