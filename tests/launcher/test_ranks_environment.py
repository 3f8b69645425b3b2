from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from launcher.environment import launcher_environment, ranks_environment
from ligo_dist.config import Cluster
from ligo_dist.runtime.launch import LaunchDirectory

ENVIRON = {
    "MLFLOW_TRACKING_TOKEN": "secret",
    "MLFLOW_RUN_TAGS": "plain",
    "OTHER_PASSWORD": "secret",
    "NCCL_DEBUG": "INFO",
    "CUDA_VISIBLE_DEVICES": "5",
    "HOME": "/home/someone",
    "MY_FLAG": "1",
    "OTHER": "2",
}


def test_what_goes_to_other_machines():
    cluster = Cluster(
        environment={"A": "1, 2 3"}, forward=["MY_FLAG"], nccl_interface="ib0", gloo_interface="eth0"
    )
    assert ranks_environment(cluster, ENVIRON, inherits=False) == {
        "MLFLOW_TRACKING_TOKEN": "secret",
        "MLFLOW_RUN_TAGS": "plain",
        "NCCL_DEBUG": "INFO",
        "MY_FLAG": "1",
        "NCCL_SOCKET_IFNAME": "ib0",
        "GLOO_SOCKET_IFNAME": "eth0",
        "A": "1, 2 3",
        "LIGO_DIST_HANG_SECONDS": "600.0",
    }


def test_on_this_machine_the_ranks_inherit_all_but_what_is_kept_back():
    assert ranks_environment(Cluster(environment={"A": "1"}), ENVIRON, inherits=True) == {
        "MLFLOW_TRACKING_TOKEN": "secret",
        "MLFLOW_RUN_TAGS": "plain",
        "OTHER_PASSWORD": "secret",
        "A": "1",
        "LIGO_DIST_HANG_SECONDS": "600.0",
    }


def test_the_configuration_wins():
    cluster = Cluster(environment={"NCCL_DEBUG": "WARN"})
    assert ranks_environment(cluster, ENVIRON, inherits=False)["NCCL_DEBUG"] == "WARN"


def test_deepspeeds_launcher_gets_nothing_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".deepspeed_env").write_text("NCCL_DEBUG=WARN\n\n# a comment\n")
    launch = LaunchDirectory.make(tmp_path / "run")
    cluster = Cluster(ssh_options=["-F", "my config"], ssh_port=2222)
    environ = launcher_environment(cluster, ENVIRON, launch, on_processors=True)
    own = {"LIGO_DIST_LAUNCH": str(launch.path), "DS_ACCELERATOR": "cpu"}
    file, ssh = environ.pop("DS_ENV_FILE"), shlex.split(environ.pop("PDSH_SSH_ARGS_APPEND"))
    secret = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_RUN_TAGS", "OTHER_PASSWORD")
    assert environ == {name: value for name, value in ENVIRON.items() if name not in secret} | own
    # DeepSpeed reads a `NAME=value` in each line, and nothing else.
    lines = Path(file).read_text().splitlines()
    assert lines == ["NCCL_DEBUG=WARN", *(f"{name}={value}" for name, value in own.items())]
    assert Path(file).stat().st_mode & 0o777 == 0o600
    assert ssh[:5] == ["-F", "my config", "-p", "2222", "-T"]
