"""Run directories made by the trackers themselves, with losses and costs that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ligo_dist.tracking import Status, build_tracker

SECONDS_PER_FLOP = 3.0


@dataclass(frozen=True)
class Leg:
    """One stage: what it costs until each of its evaluations, counted from its beginning, and the losses there.

    Attributes:
        name: of the stage.
        points: FLOPs and losses; of a grown stage the first is right after growing. None: the run ends before.
        learning: the same while the operator is learned.
        source_loss: of a stage that is grown; None for one that is not.
    """

    name: str
    points: Sequence[tuple[float, float]]
    learning: Sequence[tuple[float, float]] = ()
    source_loss: float | None = None


@dataclass
class Recorder:
    """Records a run; `directory` is its run directory."""

    directory: Path
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: Status = "FINISHED"
    train: dict[str, Any] | None = None
    has_seconds: bool = True
    has_hardware_flops: bool = True
    recomputing: float = 1.0
    flops: float = 0.0
    step: int = 0

    def record(self, *legs: Leg, begun_from: Path | None = None, planned: Sequence[str] = ()) -> str:
        """Record the stages; `planned` are those that the run has not come to. Returns the run directory."""
        section = SimpleNamespace(
            mlflow=False, uri=None, experiment=self.directory.parent.name, run_name=None
        )
        config: Any = SimpleNamespace(tracking=section)
        tracker = self.tracker = build_tracker(config, self.directory, 0, None)
        names = [*(leg.name for leg in legs), *planned]
        stages = [{"name": name, "from": None, "train": self.train} for name in names]
        stages[0]["from"] = begun_from
        parameters = {"seed": self.seed, "run_dir": str(self.directory), "stages": stages, **self.parameters}
        tags = {"corpus.fingerprint": "c0", "world_size": "1", "hosts": "a", **self.tags}
        tracker.start_run(self.directory.name, parameters, tags)
        for leg in legs:
            self._record_leg(leg)
        tracker.close(self.status)
        return str(self.directory)

    def _record_leg(self, leg: Leg) -> None:
        grow = None if leg.source_loss is None else {"name": "ligo", "tied": True}
        self.tracker.start_stage(leg.name, {"parameters": 1000 * len(leg.name), "grow": grow})
        begins = self.flops
        if leg.source_loss is not None:
            self.tracker.start_phase("learn")
            for flops, loss in leg.learning:
                self._log(begins + flops, loss, {"learn/loss": loss})
            if not leg.points:
                return
            self.tracker.start_phase("grow")
            flops, loss = leg.points[0]
            growth = {"grow/source_loss": leg.source_loss, "grow/grown_loss": loss, "grow/seconds": 0.5}
            self._log(begins + flops, loss, growth, steps=0)
        self.tracker.start_phase("train")
        for flops, loss in leg.points[leg.source_loss is not None :]:
            self._log(begins + flops, loss, {"train/loss": loss})
        self.tracker.end_stage()

    def _log(self, flops: float, loss: float, more: dict[str, float], steps: int = 10) -> None:
        """An evaluation, and for training before it a record of the step."""
        self.flops, self.step = flops, self.step + steps
        cost = {"cumulative/flops": flops, "cumulative/tokens": 2 * flops}
        if self.has_hardware_flops:
            cost["cumulative/hardware_flops"] = self.recomputing * flops
        if self.has_seconds:
            cost["cumulative/seconds"] = SECONDS_PER_FLOP * flops
        if steps:
            self.tracker.log({**more, **cost}, self.step)
            self.tracker.log({"evaluate/loss": loss, **cost}, self.step)
        else:
            self.tracker.log({**more, "evaluate/loss": loss, **cost}, self.step)


SCRATCH = Leg("large", [(20, 5.6), (40, 5.2), (60, 4.8), (80, 4.4), (100, 4.0)])
"""Falls by 0.02 per FLOP, to 4.0 with 100 FLOPs."""

SMALL = Leg("small", [(4, 6.0), (10, 5.0)])
"""Costs 10 FLOPs."""

GROWN = Leg(
    "large", [(6, 5.0), (14, 4.6), (22, 4.2), (30, 3.8)], learning=[(3, 5.5), (5, 5.1)], source_loss=5.0
)
"""Learning costs 5 FLOPs, applying the operator 1. Then it falls by 0.05 per FLOP: it is at 4.0 with 26 FLOPs."""


def shifted(leg: Leg, loss: float) -> Leg:
    """A stage with all its losses higher by so much."""
    return Leg(
        leg.name,
        [(flops, value + loss) for flops, value in leg.points],
        [(flops, value + loss) for flops, value in leg.learning],
        None if leg.source_loss is None else leg.source_loss + loss,
    )
