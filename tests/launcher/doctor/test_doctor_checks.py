from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.doctor.checks import ALLOWED_CLOCK_SECONDS, Check, Expected, RankMemory, judge, judge_names
from launcher.doctor.inspection import Questions, Visit
from launcher.doctor.ssh import SshFailure
from launcher.hosts import Node

GB = 10**9
VISIT = Visit(
    python="3.11.9",
    executable="/env/bin/python",
    machine="a boot",
    packages={"torch": "2.13.0", "mlflow": "3.17.0"},
    code="c0de",
    accelerators=[80 * GB, 80 * GB],
    capabilities=[9.0, 9.0],
    processor_flags=[],
    torch={"count": 2, "why": "", "nccl": True},
    memory=500 * GB,
    disk=900 * GB,
    unwritable=None,
    sees_mark=True,
    cannot_listen=None,
    trace_seen=True,
    was_sent=True,
    cannot_reach=None,
    clock=0.0,
)
EXPECTED = Expected(
    python="3.11.9",
    packages={"torch": "2.13.0", "mlflow": "3.17.0"},
    code="c0de",
    disk=900 * GB,
    memory=RankMemory(host=0, device=80 * GB),
    on_processors=False,
    is_alone=False,
    questions=Questions(
        "/shared", "runs/my", python_path=[], master_address="node1", master_port=29500, torch_seconds=15
    ),
)
NODE = Node("node2", (0, 1))


def checked(change: dict[str, object] | None = None, node: Node = NODE, **expected: object) -> list[Check]:
    return judge(node, replace(VISIT, **change or {}), replace(EXPECTED, **expected))


def wrong(change: dict[str, object], **expected: object) -> list[str]:
    return [str(check) for check in checked(change, **expected) if not check.ok]


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
    ("change", "found", "advice"),
    [
        ({"python": "3.12.1"}, "python 3.12.1 at /env/bin/python, the launcher has 3.11.9", "cluster.python"),
        (
            {"packages": {"torch": "2.12.0", "mlflow": "3.17.0"}},
            "torch 2.12.0, the launcher has 2.13.0",
            "install",
        ),
        (
            {"packages": {"torch": None, "mlflow": "3.17.0"}},
            "torch is missing from /env/bin/python",
            "torch 2.13.0",
        ),
        ({"code": None}, "ligo_dist is missing from /env/bin/python", "install this project"),
        ({"code": "other"}, "ligo_dist's code is not the launcher's", "install the same commit"),
        ({"accelerators": [80 * GB]}, "1 accelerator, and the host file has 2 slots", "`nvidia-smi`"),
        (
            {"torch": {"count": 0, "why": "no CUDA", "nccl": True}},
            "torch sees 0 of 2 accelerators: no CUDA",
            "driver",
        ),
        ({"torch": {"count": 1, "why": "", "nccl": True}}, "torch sees 1 of 2 accelerators;", "driver"),
        ({"torch": {"count": 2, "why": "", "nccl": False}}, "torch has no NCCL", "built with it"),
        (
            {"accelerators": [80 * GB, 80 * GB - 1]},
            "80.0 GB free on an accelerator, and a rank holds at least 80.0 GB",
            "use more nodes",
        ),
        (
            {"disk": 3 * GB},
            "3.00 GB free for run_dir 'runs/my', and 900 GB will be written",
            "checkpoints.keep",
        ),
        (
            {"unwritable": "No space left on device"},
            "run_dir 'runs/my' in /shared cannot be written: No space left on device",
            "another run_dir",
        ),
        ({"sees_mark": False}, "run_dir 'runs/my' in /shared is not the launcher's", "at the same path"),
        ({"trace_seen": False}, "run_dir 'runs/my' in /shared is not the launcher's", "at the same path"),
        (
            {"cannot_listen": "Address already in use"},
            "cannot listen on port 29500: Address already in use",
            "cluster.master_port",
        ),
        (
            {"cannot_reach": "timed out"},
            "does not reach node1 port 29500: timed out",
            "cluster.master_address",
        ),
        ({"clock": 75.0}, "its clock is 1m 15s ahead of the launcher's", "NTP"),
        ({"clock": -6.0}, "its clock is 6s behind the launcher's", "NTP"),
    ],
)
def test_each_thing_that_is_wrong_has_one_line(change, found, advice):
    (line,) = wrong(change)
    assert line.startswith(f"node2: {found}")
    assert advice in line.partition("; ")[2]


@pytest.mark.parametrize("sign", [1, -1])
def test_clocks_may_differ_a_little(sign):
    assert wrong({"clock": sign * ALLOWED_CLOCK_SECONDS}) == []
    assert len(wrong({"clock": sign * (ALLOWED_CLOCK_SECONDS + 0.01)})) == 1


def test_accelerators_are_counted_up_to_the_last_one_used():
    assert wrong({"accelerators": [GB] * 7}, node=Node("node2", (7,)), memory=RankMemory(0, 0)) == [
        "node2: 7 accelerators, and the host file has 8 slots; correct its slots, or see what `nvidia-smi` says there"
    ]
    assert wrong({"accelerators": [0, 80 * GB]}, node=Node("node2", (1,))) == []


def test_one_machine_shares_nothing_and_processors_are_named():
    found = {check.name: check.found for check in checked(is_alone=True, on_processors=True)}
    assert (found["devices"], found["run_dir"]) == ("processors", "writable")


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
    unknown = {"accelerators": [None, None], "torch": None, "memory": None, "disk": None, "was_sent": False}
    checks = checked(unknown)
    assert all(check.ok for check in checks)
    assert {"disk", "memory", "port"}.isdisjoint(check.name for check in checks)


def test_a_machine_under_two_names_is_noticed():
    nodes = [Node(name, (0,)) for name in ("node1", "node1.cluster", "node2", "10.0.0.1", "away", "unknown")]
    machines = ("a", "a", "b", "a", None, None)
    answers = [replace(VISIT, machine=machine) for machine in machines]
    answers[4] = SshFailure("it is silent", "wake it")
    assert [str(check) for check in judge_names(nodes, answers, on_processors=False)] == [
        "node1.cluster: is node1 under another name; name it once in the host file, with all its slots",
        "10.0.0.1: is node1 under another name; name it once in the host file, with all its slots",
    ]
    assert all(check.ok for check in judge_names(nodes, answers, on_processors=True))
