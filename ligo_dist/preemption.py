"""Stopping a run because a signal asks for it: after a step, with its checkpoint written, all ranks together."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from ligo_dist.distributed import World, max_over_ranks
from ligo_dist.errors import Preempted
from ligo_dist.loop import Step
from ligo_dist.stop_signals import StopSignals


def stop_if_asked(signals: StopSignals, world: World, where: str, save: Callable[[], object]) -> None:
    """Stop here if a signal has asked any rank to. Collective.

    Args:
        signals: of this rank.
        world: the ranks.
        where: for the message: `medium learn step 17`.
        save: writes what is not in a complete checkpoint yet; done before stopping.

    Raises:
        Preempted: on every rank.
    """
    signum = int(max_over_ranks(float(signals.requested or 0), world))
    if signum:
        save()
        raise Preempted(
            f"{signal.Signals(signum).name} after {where}; the same command goes on from the last checkpoint"
        )


@dataclass
class StopWhenAsked:
    """The hook of each step; it comes last.

    Attributes:
        stage: name of the stage.
        signals: of this rank.
        world: the ranks.
        save: has a step in a complete checkpoint.
        ends_run: whether nothing follows the phase but the export: then its last step stops nothing.
    """

    stage: str
    signals: StopSignals
    world: World
    save: Callable[[Step], None]
    ends_run: bool
    every: int = 1

    def __call__(self, step: Step) -> None:
        if step.is_last and self.ends_run:
            return
        where = f"{self.stage} {step.phase.kind} step {step.number} (global step {step.global_number})"
        stop_if_asked(self.signals, self.world, where, lambda: self.save(step))
