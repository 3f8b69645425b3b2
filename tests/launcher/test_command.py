from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path

import pytest

from launcher import command as command_module
from launcher.accelerators import count_accelerators
from launcher.command import available_cores, compose_command, deepspeed_executable, free_port
from ligo_dist.errors import LigoError


def compose(**given):
    arguments = {"num_ranks": 2, "master_port": 1234, "num_accelerators": 0, "environ": {}, **given}
    return compose_command("my config.yaml", ["seed=1", "stages[0].name=a b"], **arguments)


def test_the_command_starts_the_worker_on_this_machine():
    argv = compose().argv
    assert argv == [
        str(Path(sys.executable).parent / "deepspeed"),
        *("--num_nodes", "1", "--num_gpus", "2", "--master_port", "1234", "--no_local_rank", "--quiet"),
        *("--module", "ligo_dist", "my config.yaml", "seed=1", "stages[0].name=a b"),
    ]


def test_the_command_may_be_typed_by_hand():
    command = compose()
    words = shlex.split(str(command))
    assert words[: len(command.environment)] == [
        f"{name}={value}" for name, value in command.environment.items()
    ]
    assert words[len(command.environment) :] == command.argv


def test_the_environment_says_cpu_where_there_is_no_accelerator():
    threads = str(max(1, available_cores() // 2))
    assert compose().environment == {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": threads}
    assert compose(num_accelerators=2).environment == {"OMP_NUM_THREADS": threads}


def test_the_environment_of_the_user_wins():
    assert compose(environ={"DS_ACCELERATOR": "cuda", "OMP_NUM_THREADS": "3"}).environment == {}


def test_more_ranks_than_cores_get_a_thread_each():
    assert compose(num_ranks=available_cores() + 1).environment["OMP_NUM_THREADS"] == "1"


def test_visible_devices_are_named_to_the_runner():
    argv = compose(num_accelerators=3, environ={"CUDA_VISIBLE_DEVICES": "5,6, 7"}).argv
    assert argv[1:3] == ["--include", "localhost:5,6"]
    assert "--num_gpus" not in argv


def test_no_deepspeed_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(command_module.shutil, "which", lambda name: None)
    with pytest.raises(LigoError, match="there is no `deepspeed` beside"):
        deepspeed_executable()


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
