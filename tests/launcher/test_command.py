from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest

from launcher.accelerators import count_accelerators
from launcher.command import command_by_hand, free_port
from launcher.fleet import Fleet, choose_fleet
from launcher.supervisor import Launch
from launcher.transports import pdsh_command
from ligo_dist.config import load_config
from ligo_dist.config.cluster import Cluster

CONFIG = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")


def by_hand(environ: dict[str, str], hostfile: str | None = None, **cluster: str) -> str:
    config = load_config(CONFIG, [])
    fleet: Fleet = choose_fleet(config, slurm=False, nproc=2, accelerators=0, environ={})
    launch = Launch(
        config="my config.yaml",
        overrides=("seed=1", "stages[0].name=a b"),
        cluster=Cluster(**cluster),
        directory=Path("/"),
        run_dir=Path("run"),
        nodes=tuple(fleet.nodes),
        environment={},
        master_address="alpha",
        master_port=1234,
        port_is_given=False,
    )
    return command_by_hand(launch, fleet, hostfile, environ)


def test_the_command_may_be_typed_by_hand():
    assert shlex.split(by_hand({})) == [
        *("DS_ACCELERATOR=cpu", "deepspeed", "--num_nodes", "1", "--num_gpus", "2", "--master_port", "1234"),
        *(
            "--no_local_rank",
            "--quiet",
            "--module",
            "ligo_dist",
            "my config.yaml",
            "seed=1",
            "stages[0].name=a b",
        ),
    ]
    assert not by_hand({"DS_ACCELERATOR": "cpu"}).startswith("DS_ACCELERATOR")


def test_on_several_hosts():
    assert shlex.split(by_hand({}, "hosts", include="alpha:0"))[:7] == [
        *("deepspeed", "--hostfile", "hosts", "--include", "alpha:0", "--master_addr", "alpha"),
    ]


def test_visible_devices_are_named_to_the_runner(monkeypatch):
    monkeypatch.setattr("launcher.command.count_accelerators", lambda environ: 3)
    assert "--include localhost:5,6 " in by_hand({"CUDA_VISIBLE_DEVICES": "5,6, 7"})


def test_the_whole_command_line_of_pdsh():
    cluster = Cluster(
        python="/env/python",
        directory="/shared",
        ssh_port=2222,
        ssh_options=["-F", "my config"],
        lost_seconds=30.0,
    )
    words = pdsh_command(cluster, ["alpha", "beta"], Path("/shared/run/.launch-1/messages"))
    assert words[0] == "env"
    name, _, value = words[1].partition("=")
    assert name == "PDSH_SSH_ARGS_APPEND"
    assert shlex.split(value)[:5] == ["-F", "my config", "-p", "2222", "-T"]
    assert words[2:-1] == ["pdsh", "-S", "-N", "-R", "ssh", "-f", "32", "-w", "alpha,beta"]
    assert words[-1] == (
        "sh -c 'cd /shared && exec /env/python -u -m launcher.agent %h"
        " --messages /shared/run/.launch-1/messages'"
    )


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
