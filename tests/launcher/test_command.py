from __future__ import annotations

import shlex
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.command import free_port, shown, start_command
from launcher.fleet import Fleet, choose_fleet, with_own_hostfile
from launcher.hosts import Node
from ligo_dist.config import Cluster
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.machine import count_accelerators

HERE = Fleet([Node("localhost", (0, 1))], "here", Cluster())
HOSTS = Fleet(
    [Node("alpha", (0, 1)), Node("beta", (0,)), Node("gamma", (0,))], "hosts", Cluster(hostfile="/hosts")
)


def command(fleet: Fleet = HERE, **keys: object) -> list[str]:
    """The whole command, without the path of its program."""
    fleet = replace(fleet, cluster=fleet.cluster.model_copy(update=keys))
    words = start_command(fleet, ("alpha", 1234), ["my config.yaml"])
    assert shown(words) == shlex.join([Path(words[0]).name, *words[1:]])
    return [Path(words[0]).name, *words[1:]]


def test_on_this_machine():
    assert command() == [
        *(
            "deepspeed",
            "--num_nodes",
            "1",
            "--num_gpus",
            "2",
            "--master_port",
            "1234",
            "--no_local_rank",
            "--quiet",
        ),
        *("--module", "ligo_dist", "my config.yaml"),
    ]


def test_on_several_hosts():
    assert command(HOSTS, launcher_args=["-N", "a b"]) == [
        *("deepspeed", "--hostfile", "/hosts", "--launcher", "pdsh", "--master_addr", "alpha"),
        *(
            "--launcher_args=-N 'a b'",
            "--no_ssh_check",
            "--master_port",
            "1234",
            "--no_local_rank",
            "--quiet",
        ),
        *("--module", "ligo_dist", "my config.yaml"),
    ]


def test_the_dry_run_shows_the_choice_of_hosts_as_it_was_typed():
    assert command(HOSTS, include="alpha:0@beta")[1:5] == [
        "--hostfile",
        "/hosts",
        "--include",
        "alpha:0@beta",
    ]


@pytest.mark.parametrize(
    ("nodes", "launcher", "lines", "exclude"),
    [
        ([Node("alpha", (0, 1)), Node("beta", (0,))], "pdsh", "alpha slots=2\nbeta slots=1\n", None),
        (
            [Node("alpha", (1, 3)), Node("beta", (0, 2))],
            "pdsh",
            "alpha slots=4\nbeta slots=3\n",
            "alpha:0,2@beta:1",
        ),
        (
            [Node("alice@alpha", (0,)), Node("fd00::1", (0,))],
            "pdsh",
            "alice@alpha slots=1\nssh:fd00::1 slots=1\n",
            None,
        ),
        ([Node("fd00::1", (0, 1))], "openmpi", "fd00::1 slots=2\n", None),
    ],
)
def test_deepspeed_is_given_the_hosts_that_are_there(
    tmp_path: Path, nodes: list[Node], launcher: str, lines: str, exclude: str | None
):
    from deepspeed.launcher.runner import fetch_hostfile, parse_inclusion_exclusion

    asked = Cluster(hostfile="/hosts", launcher=launcher, include="alpha:0")
    cluster = with_own_hostfile(Fleet(nodes, "hosts", asked), tmp_path / "hosts").cluster
    assert (Path(cluster.hostfile).read_text(), cluster.include, cluster.exclude) == (lines, None, exclude)
    theirs = parse_inclusion_exclusion(fetch_hostfile(cluster.hostfile), "", cluster.exclude or "")
    assert [tuple(slots) for slots in theirs.values()] == [node.devices for node in nodes]


@pytest.mark.parametrize("name", ["alice@alpha", "fd00::1"])
def test_slots_of_a_host_that_deepspeed_cannot_name(tmp_path: Path, name: str):
    (tmp_path / "hosts").write_text(f"{name} slots=2\n")
    cluster = Cluster(hostfile=str(tmp_path / "hosts"), include=f"{name}:1")
    with pytest.raises(LigoError, match=f"include, exclude: slots of {name}: DeepSpeed cuts its filters"):
        choose_fleet(cluster, slurm=False, nproc=None, accelerators=0, environ={})


def test_ranks_meet_at_an_address_without_a_user():
    assert Fleet([Node("alice@alpha", (0,))], "hosts", Cluster()).meeting_address == "alpha"


def test_a_single_host_is_not_taken_for_this_machine():
    assert "--force_multi" in command(replace(HOSTS, nodes=HOSTS.nodes[1:2]))
    assert "--force_multi" not in command(HOSTS)


def test_a_wrapper_stands_before_each_rank():
    words = command(wrapper=["numactl", "-m 0"], python="/env/python")
    assert words[-7:] == ["numactl", "-m 0", "/env/python", "-u", "-m", "ligo_dist", "my config.yaml"]
    assert words[-8] == "--no_python"


def test_deepspeed_is_that_of_the_environment():
    fleet = replace(HERE, cluster=Cluster(python="/env with space/bin/python"))
    assert start_command(fleet, ("a", 1), [])[0] == "/env with space/bin/deepspeed"


def test_visible_devices_are_named_to_the_runner(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("launcher.command.count_accelerators", lambda environ: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6, 7")
    assert command()[1:3] == ["--include", "localhost:5,6"]


def test_cores_of_a_task_are_handed_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    fleet = Fleet([Node("node1", (0, 1))], "allocation", Cluster())
    assert command(fleet)[1:6] == [
        "--nodes=1",
        "--ntasks=2",
        "--ntasks-per-node=2",
        "--cpus-per-task=8",
        "--nodelist=node1",
    ]


def test_within_an_allocation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    fleet = Fleet([Node("node1", (0, 1)), Node("node2", (0, 1))], "allocation", Cluster())
    assert command(fleet, wrapper=["nice"], python="/env/python") == [
        *(
            "srun",
            "--nodes=2",
            "--ntasks=4",
            "--ntasks-per-node=2",
            "--nodelist=node1,node2",
            "--kill-on-bad-exit=1",
        ),
        *("--unbuffered", "--export=ALL", "nice", "/env/python", "-u", "-m", "ligo_dist", "my config.yaml"),
    ]


@pytest.mark.parametrize(
    "environ", [{"LOCAL_RANK": "0"}, {"PET_NNODES": "4"}, {"WORLD_SIZE": "2", "RANK": "1"}]
)
def test_ranks_that_others_start_are_theirs(environ: dict[str, str]):
    with pytest.raises(LigoError, match=f"^{next(iter(environ))}: is .*somebody else starts the ranks"):
        choose_fleet(Cluster(), slurm=False, nproc=2, accelerators=0, environ=environ)


def test_a_free_port_can_be_bound():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 3),
        ({"DS_ACCELERATOR": "cpu"}, 0),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "0,7,1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5ac3"}, 1),
    ],
)
def test_accelerators_are_device_files_that_may_be_seen(tmp_path, environ, count):
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert count_accelerators(environ, tmp_path) == count


def test_no_device_files_are_no_accelerators(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_accelerators({}, tmp_path) == 0


def test_nvidia_smi_is_asked_where_there_are_no_device_files(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho 'GPU 1: A (UUID: GPU-2)'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_accelerators({}, tmp_path / "none") == 2
