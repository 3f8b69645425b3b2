from __future__ import annotations

import json

import pytest
import ssh_messages

from launcher import cli
from launcher.command import free_port
from launcher.commands import doctor


@pytest.fixture
def hostfile(hosts):
    (hosts.directory / "hosts").write_text("node1 slots=2\nnode2 slots=2\nnode3 slots=2\n")
    return "hosts"


@pytest.fixture(autouse=True)
def _no_fixed_port(monkeypatch):
    monkeypatch.setattr(doctor, "FIRST_PORT", free_port())


LOCAL = "cluster.master_address=127.0.0.1"  # the fake hosts have no addresses


def test_hosts_that_are_well(hosts, hostfile, capsys):
    assert cli.main(["doctor", "my.yaml", LOCAL, "--hostfile", hostfile]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "3 nodes ready"


def test_a_host_that_is_not(hosts, hostfile, capsys):
    hosts.tell("node3", say=ssh_messages.UNKNOWN_KEY, code=255)
    assert cli.main(["doctor", "my.yaml", LOCAL, "--hostfile", hostfile]) == 2
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "node3: its host key is not known here; `ssh-keyscan node3 >> ~/.ssh/known_hosts`, and compare the fingerprint",
        "1 of 3 nodes not ready",
    ]


@pytest.mark.parametrize("option", [["--exclude", "node3"], ["--include", "node1@node2:0,1"]])
def test_only_the_hosts_that_are_used_are_asked(hosts, hostfile, option, capsys):
    assert (
        cli.main(["doctor", "my.yaml", LOCAL, "--hostfile", hostfile, *option, "cluster.ssh_port=2222"]) == 0
    )
    assert capsys.readouterr().out.splitlines()[-1] == "2 nodes ready"
    assert hosts.ssh_arguments("node3") == []
    assert "2222" in hosts.ssh_arguments("node1")[0]


def test_the_cluster_may_have_a_file_of_its_own(hosts, hostfile, capsys):
    content = {"hostfile": hostfile, "master_address": "127.0.0.1", "exclude": "node1"}
    (hosts.directory / "cluster.yaml").write_text(json.dumps(content))
    assert cli.main(["doctor", "my.yaml", "--cluster", "cluster.yaml", "--exclude", "node2"]) == 0
    assert [bool(hosts.ssh_arguments(node)) for node in ("node1", "node2", "node3")] == [True, False, True]


def test_this_machine_alone(hosts, capsys):
    assert cli.main(["doctor", "my.yaml", "--nproc", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 node ready"


def test_mistakes_of_the_configuration_come_first(hosts, hostfile, capsys):
    assert cli.main(["doctor", "my.yaml", "--hostfile", hostfile, "stages[0].train.batch_size=5"]) == 2
    assert (
        "stages[0].train.batch_size: 5 is less than one sample for each of 6 ranks" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hostfile", "none"], "hostfile: 'none' cannot be read: No such file or directory"),
        (
            ["--hostfile", "hosts", "--exclude", "node9"],
            "exclude: 'node9': the host file has no host 'node9'",
        ),
        (
            ["--hostfile", "hosts", "--nproc", "2"],
            "--nproc: 2, but the slots in 'hosts' say how many ranks a host has",
        ),
        (["--include", "node1"], "include: 'node1' chooses among the hosts of a host file; add --hostfile"),
    ],
)
def test_wrong_arguments(hosts, hostfile, arguments, said, capsys):
    assert cli.main(["doctor", "my.yaml", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_machine_that_cannot_start_the_run(hosts, hostfile, capsys):
    hosts.program("pdsh", "echo 'rcmd modules: rsh,exec'")
    assert cli.main(["doctor", "my.yaml", LOCAL, "--hostfile", hostfile]) == 2
    fault, verdict = capsys.readouterr().out.splitlines()[-2:]
    assert fault.startswith("this machine: its pdsh cannot go through ssh: its rcmd modules are rsh, exec; ")
    assert verdict == "3 nodes ready, but this machine cannot start the run"
    assert cli.main(["run", "my.yaml", LOCAL, "--hostfile", hostfile, "--master-port", str(free_port())]) == 2
    assert capsys.readouterr().err == f"ligo-dist: {verdict}\n  {fault}\n"
    assert not (hosts.directory / "runs").exists()
