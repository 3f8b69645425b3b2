"""Stopping after a step because something asks for it."""

from __future__ import annotations

import os
import signal

import pytest
from test_loop import Note, StandIn, phase, run

from ligo_dist.engine import World
from ligo_dist.runtime.errors import Preempted
from ligo_dist.runtime.signals import StopReason, StopSignals
from ligo_dist.training import SaveCheckpoint, Step, StopWhenAsked, stop_if_asked
from ranks import run_ranks


class Asking(StopSignals):
    """Asked to stop while the n-th step is taken."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def count(self, step: Step) -> None:
        self._left -= 1
        if self._left == 0:
            self.requested = StopReason.SIGTERM


class Counting:
    every = 1

    def __init__(self, signals: Asking) -> None:
        self._signals = signals

    def __call__(self, step: Step) -> None:
        self._signals.count(step)


def stopped(steps: int, ends_run: bool = False) -> tuple[str | None, list[int], list[int]]:
    """Five steps with a checkpoint after every second one, asked to stop in one of them: what is said, the steps that
    were taken, and those that were saved."""
    stand_in, signals, note, saved = StandIn(), Asking(steps), Note(1), []
    checkpoint = SaveCheckpoint(saved.append, every=2)
    stop = StopWhenAsked("small", signals, stand_in.world, checkpoint.save_once, ends_run)
    try:
        run(stand_in, phase(), 0, [Counting(signals), note, checkpoint, stop])
    except Preempted as error:
        return str(error), note.steps, saved
    return None, note.steps, saved


@pytest.mark.parametrize(
    ("steps", "saved"), [(1, [101]), (2, [102]), (3, [102, 103]), (4, [102, 104]), (5, [102, 104, 105])]
)
def test_it_stops_after_the_step_and_saves_each_step_once(steps: int, saved: list[int]):
    said, taken, written = stopped(steps)
    assert said == (
        f"SIGTERM after small train step {steps} (global step {100 + steps}); the same command goes on from the last"
        " checkpoint"
    )
    assert (taken, written) == (list(range(1, steps + 1)), saved)


def test_the_last_step_of_the_run_is_followed_by_the_export_all_the_same():
    assert stopped(5, ends_run=True) == (None, [1, 2, 3, 4, 5], [102, 104, 105])
    assert stopped(4, ends_run=True)[1:] == ([1, 2, 3, 4], [102, 104])


def test_nobody_asks():
    assert stopped(6)[0] is None


def stopped_by(world: World, reasons: list[StopReason | None]) -> str:
    """What each rank says where they are asked for these reasons."""
    signals = StopSignals()
    stop_if_asked(signals, world, "nothing", list)
    signals.requested = reasons[world.rank]
    with pytest.raises(Preempted) as caught:
        stop_if_asked(signals, world, "growing into medium", list)
    return str(caught.value)


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        ([None, StopReason.SIGUSR1], "SIGUSR1"),
        ([StopReason.REQUESTED, None], "a request to stop"),
        ([StopReason.SIGTERM, StopReason.PARENT_GONE], "losing the process that started it"),
    ],
)
def test_one_rank_that_is_asked_is_enough_and_all_name_the_same_reason(
    reasons: list[StopReason | None], words: str
):
    said = f"{words} after growing into medium; the same command goes on from the last checkpoint"
    assert run_ranks(stopped_by, 2, reasons) == [said] * 2


def stopped_by_signal(world: World) -> str:
    with StopSignals() as signals:
        signals.defer()
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Preempted) as caught:
            stop_if_asked(signals, world, "growing into medium", list)
    return str(caught.value)


def test_one_rank_that_is_signalled_is_enough():
    assert all(said.startswith("SIGUSR1 after growing") for said in run_ranks(stopped_by_signal, 2))
