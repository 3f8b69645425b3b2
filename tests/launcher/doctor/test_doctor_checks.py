from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.doctor.checks import ALLOWED_CLOCK_SECONDS, Check, Expected, RankMemory, judge, judge_names
from launcher.doctor.inspection import Look, Questions, Visit
from launcher.doctor.ssh import SshFailure
from launcher.hosts import Node

GB = 10**9
LOOK = Look(
    python="3.11.9",
    executable="/env/bin/python",
    machine="a boot",
    packages={"torch": "2.13.0", "mlflow": "3.17.0"},
    code="c0de",
    accelerators=[80 * GB, 80 * GB],
    capabilities=[9.0, 9.0],
    processor_flags=[],
    memory=500 * GB,
    disk=900 * GB,
    unwritable=None,
    sees_mark=True,
    cannot_listen=None,
)
VISIT = Visit(LOOK, trace_seen=True, was_sent=True, cannot_reach=None, clock=0.0)
EXPECTED = Expected(
    python="3.11.9",
    packages={"torch": "2.13.0", "mlflow": "3.17.0"},
    code="c0de",
    disk=900 * GB,
    memory=RankMemory(host=0, device=80 * GB),
    on_processors=False,
    questions=Questions("/shared", "runs/my", python_path=[], master_address="node1", master_port=29500),
)
NODE = Node("node2", (0, 1))


def checked(
    look: dict[str, object] | None = None,
    visit: dict[str, object] | None = None,
    node: Node = NODE,
    **expected: object,
) -> list[Check]:
    return judge(
        node, replace(VISIT, look=replace(LOOK, **look or {}), **visit or {}), replace(EXPECTED, **expected)
    )


def wrong(*changes: dict[str, object], **expected: object) -> list[str]:
    return [str(check) for check in checked(*changes, **expected) if not check.ok]


def test_all_is_well_at_the_very_bounds():
    checks = checked()
    assert all(check.ok and not check.advice for check in checks)
    assert {check.name: check.found for check in checks} == {
        "answers": "yes",
        "python": "3.11.9",
        "packages": "same",
        "devices": "2",
        "run_dir": "shared",
        "disk": "900 GB",
        "memory": "80.0 GB",
        "port": "open",
        "clock": "same",
    }


def test_a_host_that_does_not_answer_is_judged_no_further():
    (check,) = judge(NODE, SshFailure("it is silent", "wake it"), EXPECTED)
    assert (check.name, str(check)) == ("answers", "node2: it is silent; wake it")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"python": "3.12.1"},
            "python 3.12.1 at /env/bin/python, the launcher has 3.11.9; name the environment's python in"
            " cluster.python",
        ),
        (
            {"packages": {"torch": "2.12.0", "mlflow": "3.17.0"}},
            "torch 2.12.0, the launcher has 2.13.0; install the same there",
        ),
        (
            {"packages": {"torch": None, "mlflow": "3.17.0"}},
            "torch is missing from /env/bin/python; install torch 2.13.0 there",
        ),
        ({"code": None}, "ligo_dist is missing from /env/bin/python; install this project there"),
        ({"code": "other"}, "ligo_dist's code is not the launcher's; install the same commit there"),
        (
            {"accelerators": [80 * GB]},
            "1 accelerator, and the host file has 2 slots; correct its slots, or see what `nvidia-smi` says there",
        ),
        (
            {"accelerators": [80 * GB, 80 * GB - 1]},
            "80.0 GB free on an accelerator, and a rank holds at least 80.0 GB; use more nodes, or end what takes"
            " it there",
        ),
        (
            {"disk": 3 * GB},
            "3.00 GB free for run_dir 'runs/my', and 900 GB will be written; make room, or keep fewer checkpoints"
            " (checkpoints.keep)",
        ),
        (
            {"unwritable": "No space left on device"},
            "run_dir 'runs/my' in /shared cannot be written: No space left on device; let this user write there, or"
            " choose another run_dir",
        ),
        (
            {"sees_mark": False},
            "run_dir 'runs/my' in /shared is not the launcher's; put it on a file system that all hosts mount at the"
            " same path",
        ),
        (
            {"cannot_listen": "Address already in use"},
            "cannot listen on port 29500: Address already in use; end what listens there, or choose another"
            " cluster.master_port",
        ),
    ],
)
def test_each_thing_that_is_wrong_has_one_line(change, said):
    assert wrong(change) == [f"node2: {said}"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"trace_seen": False},
            "run_dir 'runs/my' in /shared is not the launcher's; put it on a file system that all hosts mount at the"
            " same path",
        ),
        (
            {"cannot_reach": "timed out"},
            "does not reach node1 port 29500: timed out; open the port on the first host, or give"
            " cluster.master_address an address that all reach",
        ),
        (
            {"clock": 75.0},
            "its clock is 1m 15s ahead of the launcher's; have it set by NTP (chrony, systemd-timesyncd)",
        ),
        (
            {"clock": -6.0},
            "its clock is 6s behind the launcher's; have it set by NTP (chrony, systemd-timesyncd)",
        ),
    ],
)
def test_so_has_what_shows_between_hosts(change, said):
    assert wrong(None, change) == [f"node2: {said}"]


@pytest.mark.parametrize("sign", [1, -1])
def test_clocks_may_differ_a_little(sign):
    assert wrong(None, {"clock": sign * ALLOWED_CLOCK_SECONDS}) == []
    assert len(wrong(None, {"clock": sign * (ALLOWED_CLOCK_SECONDS + 0.01)})) == 1


def test_accelerators_are_counted_up_to_the_last_one_used():
    assert wrong({"accelerators": [GB] * 7}, node=Node("node2", (7,)), memory=RankMemory(0, 0)) == [
        "node2: 7 accelerators, and the host file has 8 slots; correct its slots, or see what `nvidia-smi` says there"
    ]
    assert wrong({"accelerators": [0, 80 * GB]}, node=Node("node2", (1,))) == []


def test_ranks_on_processors_share_the_memory():
    on_processors = {"on_processors": True, "memory": RankMemory(host=200 * GB, device=0)}
    assert wrong({"accelerators": [], "memory": 400 * GB}, **on_processors) == []
    assert wrong({"accelerators": [], "memory": 399 * GB}, **on_processors) == [
        "node2: 399 GB of memory free, and 2 ranks hold at least 400 GB; use more nodes, or end what takes it there"
    ]


def test_a_package_that_the_launcher_has_not_itself():
    missing = {"torch": None, "mlflow": "3.17.0"}
    assert wrong({"packages": missing}, packages=missing) == [
        "node2: torch is missing from /env/bin/python; install torch there"
    ]


def test_what_a_system_does_not_say_is_not_judged():
    unknown = {"accelerators": [None, None], "memory": None, "disk": None}
    checks = checked(unknown, {"was_sent": False})
    assert all(check.ok for check in checks)
    assert {"disk", "memory", "port"}.isdisjoint(check.name for check in checks)


def test_a_machine_under_two_names_is_noticed():
    nodes = [Node(name, (0,)) for name in ("node1", "node1.cluster", "node2", "10.0.0.1", "away", "unknown")]
    machines = ("a", "a", "b", "a", None, None)
    answers = [replace(VISIT, look=replace(LOOK, machine=machine)) for machine in machines]
    answers[4] = SshFailure("it is silent", "wake it")
    assert [str(check) for check in judge_names(nodes, answers, on_processors=False)] == [
        "node1.cluster: is node1 under another name; name it once in the host file, with all its slots",
        "10.0.0.1: is node1 under another name; name it once in the host file, with all its slots",
    ]
    assert all(check.ok for check in judge_names(nodes, answers, on_processors=True))
