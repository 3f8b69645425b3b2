"""Whose failure it was, when all fail."""

from __future__ import annotations

import pytest

from launcher.attempt import Outcome
from launcher.messages import Failure, Job, NodeJob, event_line, order_line, read_event, read_order

PEER = Failure(
    0, 0, 1, "ended with exit code 1", tail=["RuntimeError: [gloo] Connection closed by peer [10.0.0.2]"]
)
BUG = Failure(1, 2, 1, "ended with exit code 1", tail=["KeyError: 'labels'"])
KILLED = Failure(2, 4, 137, "was killed by SIGKILL")
SILENT = Failure(0, 1, 137, "has not got on for 600 s")
LOST = Failure(1, None, 1, "has not been heard of for 30 s")


@pytest.mark.parametrize(
    ("failures", "cause"),
    [
        ([PEER, KILLED], KILLED),
        ([PEER, BUG], BUG),
        ([PEER, LOST], LOST),
        ([SILENT, LOST], LOST),
        ([SILENT], SILENT),
        ([BUG, SILENT], BUG),
        ([], None),
    ],
)
def test_the_cause_among_failures(failures, cause):
    assert Outcome(failures=failures).cause is cause


def test_messages_survive_the_way():
    job = Job(
        nodes=(NodeJob("alpha", 0, (0, 2)), NodeJob("beta", 2, (1,))),
        master_address="alpha",
        master_port=1,
        directory="/shared",
        config="my config.yaml",
        overrides=("a=b c",),
        wrapper=(),
        environment={"TOKEN": "a, b\nc"},
        logs="logs",
        hang_seconds=1.0,
        lost_seconds=2.0,
        grace_seconds=3.0,
    )
    line = job.to_line()
    assert line.count("\n") == 1
    assert Job.from_line(line) == job
    assert job.world_size == 3
    assert "a, b" not in repr(job), "what may be secret is not shown"
    assert read_order(order_line("preempt")) == "preempt"
    assert read_event(event_line("beat", 3)) == {"event": "beat", "node": 3}


@pytest.mark.parametrize(
    "line", ["Welcome to node1!", "{}", '{"event": "beat"}', "[1]", '{"event": "x", "node": "1"}']
)
def test_a_banner_is_no_event(line):
    assert read_event(line) is None
