from __future__ import annotations

import io

import pytest

from launcher.doctor import Check, DoctorReport
from launcher.doctor.checks import NAMES, THIS_MACHINE
from ligo_dist.runtime.errors import MISTAKE, LigoError

WORDS = {
    "python": "3.11.9",
    "disk": "83.2 GB",
    "memory": "22.2 GB",
    "devices": "processors",
    "run_dir": "shared",
}
FAULT = Check("node2", "packages", "torch 2.12.0, the launcher has 2.13.0", "install the same there")
HERE = Check(THIS_MACHINE, "launcher", "there is no `pdsh`", "install it")


def well(node: str) -> list[Check]:
    return [Check(node, name, WORDS.get(name, "same")) for name in NAMES]


def printed(report: DoctorReport) -> list[str]:
    text = io.StringIO()
    report.print(text)
    return [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]


def report_of(num_nodes: int, *more: Check) -> DoctorReport:
    names = [f"node{number}" for number in range(1, num_nodes + 1)]
    return DoctorReport(names, [check for name in names for check in well(name)] + list(more))


def test_three_nodes_fit_into_a_hundred_columns():
    lines = printed(report_of(3))
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["node", *NAMES]
    assert [line.split()[0] for line in lines[2:]] == ["node1", "node2", "node3", "3"]
    assert lines[-1] == "3 nodes ready"


def test_what_fails_is_marked_and_has_a_line():
    lines = printed(report_of(3, FAULT))
    assert "FAILS" in lines[3]
    assert "FAILS" not in lines[2] + lines[4]
    assert lines[-2:] == [
        "node2: torch 2.12.0, the launcher has 2.13.0; install the same there",
        "1 of 3 nodes not ready",
    ]


def test_what_was_not_looked_at_is_left_open():
    report = DoctorReport(["node1"], [Check("node1", "answers", "it is silent", "wake it")])
    assert printed(report)[2].split() == ["node1", "FAILS", *["-"] * (len(NAMES) - 1)]


def test_of_many_nodes_only_those_that_fail_are_shown():
    lines = printed(report_of(200, FAULT))
    assert [line.split()[0] for line in lines[2:]] == ["node2", "node2:", "1"]
    assert lines[-1] == "1 of 200 nodes not ready"
    assert printed(report_of(200)) == ["200 nodes ready"]


@pytest.mark.parametrize(
    ("num_nodes", "faults", "rows", "verdict"),
    [
        (2, [], ["node1", "node2"], "2 nodes ready, but this machine cannot start the run"),
        (1, [], ["node1"], "1 node ready, but this machine cannot start the run"),
        (200, [FAULT], ["node2"], "1 of 200 nodes not ready, and this machine cannot start the run"),
    ],
)
def test_this_machine_is_no_node(num_nodes, faults, rows, verdict):
    lines = printed(report_of(num_nodes, HERE, *faults))
    assert [line.split()[0] for line in lines[2 : 2 + len(rows)]] == rows
    assert lines[2 + len(rows) :] == [*map(str, [HERE, *faults]), verdict]


def test_a_report_may_be_raised():
    report_of(1).raise_if_failed()
    with pytest.raises(LigoError) as caught:
        report_of(3, FAULT).raise_if_failed()
    assert str(caught.value) == (
        "1 of 3 nodes not ready\n  node2: torch 2.12.0, the launcher has 2.13.0; install the same there"
    )
    assert caught.value.exit_code == MISTAKE
