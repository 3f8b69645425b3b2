"""`ligo-dist doctor` as it is typed; what it finds has tests of its own."""

from __future__ import annotations

import json

import pytest
import ssh_messages

from launcher import cli
from launcher.command import free_port


@pytest.fixture
def doctor(hosts):
    """The command for three hosts, and a file for them; they have no addresses."""
    (hosts.directory / "hosts").write_text("node1 slots=2\nnode2 slots=2\nnode3 slots=2\n")
    cluster = {"hostfile": "hosts", "master_address": "127.0.0.1", "master_port": free_port()}
    (hosts.directory / "cluster.yaml").write_text(json.dumps(cluster))
    return ["doctor", "my.yaml", "--cluster", "cluster.yaml"]


def test_a_host_that_is_not_well(hosts, doctor, capsys):
    hosts.tell("node3", say=ssh_messages.UNKNOWN_KEY, code=255)
    assert cli.main(doctor) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[-2:] == [
        "node3: its host key is not known here; `ssh-keyscan node3 >> ~/.ssh/known_hosts`, and compare the fingerprint",
        "1 of 3 nodes not ready",
    ]
    assert err == ""


@pytest.mark.parametrize("option", [["--exclude", "node3"], ["--include", "node1@node2:0,1"]])
def test_only_the_hosts_that_are_used_are_asked(hosts, doctor, option, capsys):
    assert cli.main([*doctor, *option, "cluster.ssh_port=2222"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 nodes ready"
    assert hosts.ssh_arguments("node3") == []
    assert "2222" in hosts.ssh_arguments("node1")[0]


def test_this_machine_alone(hosts, capsys):
    assert cli.main(["doctor", "my.yaml", "--nproc", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 node ready"


def test_mistakes_come_first(hosts, doctor, capsys):
    assert cli.main([*doctor, "stages[0].train.batch_size=5"]) == 2
    wrong = "stages[0].train.batch_size: 5 is less than one sample for each of 6 ranks"
    assert wrong in capsys.readouterr().err
    assert hosts.ssh_arguments("node1") == []


def test_a_machine_that_cannot_start_the_run(hosts, doctor, capsys):
    hosts.program("pdsh", "echo 'rcmd modules: rsh,exec'")
    assert cli.main(doctor) == 2
    fault, verdict = capsys.readouterr().out.splitlines()[-2:]
    assert fault.startswith("this machine: its pdsh cannot go through ssh: its rcmd modules are rsh, exec; ")
    assert verdict == "3 nodes ready, but this machine cannot start the run"
    assert cli.main(["run", *doctor[1:], "--master-port", str(free_port())]) == 2
    assert capsys.readouterr().err == f"ligo-dist: {verdict}\n  {fault}\n"
    assert not (hosts.directory / "runs").exists()
