"""What all trackers of a run get: the same records, each once and with a time of its own."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ligo_dist.tracking import composite
from ligo_dist.tracking.composite import CompositeTracker
from ligo_dist.tracking.jsonl import Record
from ligo_dist.tracking.protocol import NullTracker


class Recorder(NullTracker):
    """Notes step, names and time of each record."""

    def __init__(self) -> None:
        self.records: list[tuple[int, tuple[str, ...], float | None]] = []

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        self.records.append((step, tuple(metrics), time))


def grow(tracker: CompositeTracker) -> None:
    """Evaluate at the end of a stage, and right after growing out of it."""
    tracker.start_stage("small", {})
    tracker.start_phase("train")
    tracker.log({"evaluate/loss": 0.5}, 10)
    tracker.end_stage()
    tracker.start_stage("large", {})
    tracker.start_phase("grow")
    tracker.log({"evaluate/loss": 0.6}, 10)


def recorded(stage: str, phase: str, step: int) -> Record:
    return {"time": "?", "stage": stage, "phase": phase, "step": step, "evaluate/loss": 0.1}


@pytest.mark.parametrize(
    ("history", "steps"),
    [
        ([], [10, 10, 11]),
        ([recorded("small", "train", 10)], [10, 11]),
        ([recorded("small", "train", 10), recorded("large", "grow", 10)], [11]),
        ([recorded("small", "learn", 10)], [10, 10, 11]),
        ([{**recorded("small", "train", 10), "evaluate/accuracy": 1.0}], [10, 10, 11]),
    ],
)
def test_a_record_that_a_resumed_run_makes_again_is_passed_to_none(
    history: list[Record], steps: list[int]
) -> None:
    first, second = Recorder(), Recorder()
    tracker = CompositeTracker([first, second], history)
    grow(tracker)
    tracker.log({"evaluate/loss": 0.4}, 11)
    assert [step for step, *_ in first.records] == steps
    assert first.records == second.records


def test_no_two_records_have_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([100.0004, 100.0004, 99.0, 100.5])  # twice the same, then a clock that is set back
    monkeypatch.setattr(composite.clock, "time", lambda: next(moments))
    recorder = Recorder()
    tracker = CompositeTracker([recorder])
    for step in range(4):
        tracker.log({}, step)
    assert [time for *_, time in recorder.records] == [100.0, 100.001, 100.002, 100.5]


def test_a_given_time_is_kept() -> None:
    recorder = Recorder()
    CompositeTracker([recorder]).log({}, 1, time=0.125)
    assert recorder.records == [(1, (), 0.125)]
