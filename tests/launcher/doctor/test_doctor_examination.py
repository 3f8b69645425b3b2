"""The preflight of hosts behind a stand-in for ssh. What each fault is called is tested in test_doctor_checks.py."""

from __future__ import annotations

import io
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import ssh_messages

from launcher.doctor import reachable_nodes
from launcher.doctor.checks import NAMES, THIS_MACHINE
from launcher.fleet import Fleet
from launcher.hosts import Node
from ligo_dist.runtime.errors import LigoError

ROOT = Path(__file__).parents[3]
NODES = ("node1", "node2", "node3")


def failures(report) -> list[str]:
    """Of the machines that were asked; those of this one have tests of their own."""
    return [str(check) for check in report.failures if check.node != THIS_MACHINE]


def test_hosts_that_are_well_and_nothing_is_left_behind(hosts):
    hosts.tell("node2", noise="Welcome to node2!\nload 0.1 > ")
    report = hosts.check()
    assert failures(report) == []
    for node in NODES:
        names = [check.name for check in report.checks if check.node == node]
        assert dict.fromkeys(names) == dict.fromkeys(NAMES)
    report.raise_if_failed()
    assert hosts.files() == {"my.yaml"}


def test_a_run_directory_that_is_there_stays_as_it_is(hosts):
    (hosts.directory / "runs/test").mkdir(parents=True)
    (hosts.directory / "runs/test/run.log").write_text("precious")
    before = hosts.files()
    assert failures(hosts.check(nodes=("node1",))) == []
    assert hosts.files() == before


def test_this_machine_alone_needs_no_ssh(hosts):
    hosts.tell("localhost", say="ssh was called", code=1)
    assert failures(hosts.check(nodes=("localhost",), kind="here")) == []


def test_without_the_first_host_no_port_is_tried(hosts):
    hosts.tell("node1", say=ssh_messages.NO_ROUTE, code=255)
    report = hosts.check()
    assert failures(report) == [
        "node1: it does not answer; see whether it is up, or leave it out: --exclude node1"
    ]
    assert [check.name for check in report.checks if check.node == "node1"] == ["answers"]
    assert [check for check in report.checks if check.name == "port"] == []


def test_hosts_that_take_too_long(hosts):
    hosts.program("dots", "while printf .; do sleep 0.1; done")
    hosts.tell("node2", sleep=60)
    hosts.tell("node3", instead="dots")  # a line that never ends
    for line, node in zip(
        failures(hosts.check("cluster.preflight_seconds=5")), ("node2", "node3"), strict=True
    ):
        assert line.startswith(f"{node}: no answer within 5 s (cluster.preflight_seconds); ")


def test_a_connection_that_breaks_between_the_questions(hosts):
    program_and_look = 2
    hosts.tell("node2", lines=program_and_look)
    (said,) = failures(hosts.check())
    assert said.startswith(f"node2: {sys.executable} ended with exit code 0: nothing was said")
    assert hosts.files() == {"my.yaml"}


def test_what_a_lost_host_leaves_behind_is_removed_by_the_launcher(hosts):
    (hosts.directory / "runs/test").mkdir(parents=True)
    untidy = hosts.directory / "python"
    untidy.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import os; os.remove = print; $2"\n')
    untidy.chmod(0o755)
    before = hosts.files()
    assert failures(hosts.check(f"cluster.python={untidy}", nodes=("node1",))) == []
    assert hosts.files() == before


def test_missing_packages(hosts):
    without_site_packages = "-S"
    hosts.tell("node3", python_options=without_site_packages)
    names = ("torch", "deepspeed", "transformers", "datasets", "sentencepiece", "mlflow")
    assert failures(hosts.check()) == [
        f"node3: {name} is missing from {sys.executable}; install {name} {version(name)} there"
        for name in names
    ]


def test_another_state_of_the_code(hosts, tmp_path):
    for package in ("ligo_dist", "launcher"):
        (tmp_path / "other" / package).mkdir(parents=True)
        (tmp_path / "other" / package / "__init__.py").write_text("# another day's\n")
    report = hosts.check(f"cluster.environment.PYTHONPATH={tmp_path / 'other'}")
    assert failures(report) == [
        f"{node}: ligo_dist's code is not the launcher's; install the same commit there" for node in NODES
    ]


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("/opt/none/bin/python", "node1: /opt/none/bin/python cannot be started: "),
        ("/bin/false", "node1: /bin/false ended with exit code 1: nothing was said"),
    ],
)
def test_what_is_no_python(hosts, python, said):
    first, *_ = failures(hosts.check(f"cluster.python={python}"))
    assert first.startswith(said)


def test_directories_that_a_host_has_otherwise(hosts, tmp_path, can_mount):
    runs = hosts.directory / "runs"
    runs.mkdir()
    hosts.tell("node2", mount=[str(tmp_path), "size=1m"])
    hosts.tell("node3", mount=[str(runs), "size=1g"])
    named = f"run_dir 'runs/test' in {hosts.directory}"
    assert [line.partition(";")[0] for line in failures(hosts.check())] == [
        f"node2: its working directory '{hosts.directory}' cannot be entered: No such file or directory",
        f"node3: {named} is not the launcher's",
    ]


def test_a_run_directory_that_a_host_sees_and_cannot_write(hosts, can_mount):
    (hosts.directory / "runs").mkdir()
    script = f'mount --bind -o ro runs runs && exec {sys.executable} "$@"'
    hosts.program("python", f"exec unshare --mount sh -c '{script}' sh \"$@\"")
    (said,) = failures(hosts.check(f"cluster.python={hosts.programs / 'python'}", nodes=("node1",)))
    named = f"run_dir 'runs/test' in {hosts.directory}"
    assert said.startswith(f"node1: {named} cannot be written: Read-only file system; ")


def test_a_run_directory_that_the_launcher_cannot_write(hosts):
    Path("file").write_text("precious")
    with pytest.raises(LigoError, match=r"run_dir: '.*/file/run' cannot be written here: Not a directory"):
        hosts.check("run_dir=file/run")
    assert hosts.ssh_arguments("node1") == []


def test_a_working_directory_elsewhere(hosts, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "runs").write_text("precious")
    with pytest.raises(LigoError, match=r"run_dir: '.*/elsewhere/runs/test' cannot be written here"):
        hosts.check(f"cluster.directory={elsewhere}")
    (elsewhere / "runs").unlink()
    assert failures(hosts.check(f"cluster.directory={elsewhere}", nodes=("node1",))) == []


def test_a_disk_and_a_memory_that_are_too_small(hosts):
    huge = "stages[0].size={layers: 1000, width: 65536, heads: 64}"
    disk, memory = failures(hosts.check(huge, "precision=bf16", nodes=("node1",)))
    assert "free for run_dir 'runs/test', and 2.06 PB will be written; make room" in disk
    assert "2 ranks hold at least 1.31 PB; use more nodes, or end what takes it there" in memory


def test_a_torch_that_sees_no_accelerators(hosts, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no libcudart')")
    hosts.program("nvidia-smi", "echo 81000; echo 81000")
    environment = f"cluster.environment={{DS_ACCELERATOR: cuda, PYTHONPATH: '{tmp_path}:{ROOT}'}}"
    (said,) = failures(hosts.check(environment, nodes=("node1",)))
    assert said.startswith("node1: torch sees 0 of 2 accelerators: ImportError: no libcudart; ")


def test_a_port_that_is_taken(hosts):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        report = hosts.check(port=port, nodes=("node1", "node2"))
    (said,) = failures(report)
    assert said.startswith(f"node1: cannot listen on port {port}: Address already in use; ")
    assert [check.node for check in report.checks if check.name == "port"] == ["node1"]


def test_no_secret_is_typed_or_shown(hosts, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hunter1")
    hosts.tell("node2", say=ssh_messages.DENIED, code=255)
    report, shown = hosts.check("cluster.environment={MLFLOW_TRACKING_PASSWORD: hunter2}"), io.StringIO()
    report.print(shown)
    typed = [word for node in NODES for words in hosts.ssh_arguments(node) for word in words]
    assert len(typed) > 3 * len(NODES)
    assert "hunter" not in shown.getvalue() + "".join(typed)


def test_no_ssh_at_all(hosts, monkeypatch):
    monkeypatch.setenv("PATH", str(hosts.told))
    with pytest.raises(LigoError, match="there is no `ssh` on the PATH"):
        hosts.check()
    assert hosts.files() == {"my.yaml"}
    with pytest.raises(LigoError, match="there is no `ssh` on the PATH"):
        reachable_nodes(Fleet([Node("node1", (0,))], "hosts", hosts.config().cluster))


def test_the_nodes_of_an_allocation_are_asked_through_srun(hosts):
    hosts.tell("node1", say="ssh was called", code=1)
    hosts.program("srun", 'echo "$@" | head -n 1 > called\nshift 5\nexec "$@"')
    assert failures(hosts.check(nodes=("node1",), kind="allocation")) == []
    words = "--overlap --nodes=1 --ntasks=1 --nodelist=node1 --unbuffered"
    assert Path("called").read_text().startswith(f"{words} {sys.executable} -c ")


def test_who_is_reachable(hosts):
    hosts.tell("node2", say=ssh_messages.NO_ROUTE, code=255)
    hosts.tell("node3", sleep=60)
    cluster = hosts.config("cluster.preflight_seconds=2").cluster
    answers = reachable_nodes(Fleet([Node(name, (0,)) for name in NODES], "hosts", cluster))
    assert {name: why and why.partition(";")[0] for name, why in answers.items()} == {
        "node1": None,
        "node2": "it does not answer",
        "node3": "no answer within 2 s (cluster.preflight_seconds)",
    }
    assert [words[-1] for words in hosts.ssh_arguments("node1")] == ["true"]
