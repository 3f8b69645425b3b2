"""Hosts that answer to `ssh` as told, and a run to check on them."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from launcher.command import free_port
from launcher.doctor import DoctorReport, run_preflight
from launcher.fleet import Fleet
from launcher.hosts import Node
from launcher.preflight import plan_of
from ligo_dist.config import Config, load_config

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]

_CONFIG = """\
run_dir: runs/test
model: {family: gpt2, max_positions: 64}
stages:
  - name: small
    size: {layers: 2, width: 32, heads: 4}
    train: {steps: 10, batch_size: 12, micro_batch_size: 1}
data: {source: stdlib, sequence_length: 64}
tokenizer: {vocab_size: 512}
"""


@dataclass(frozen=True)
class Hosts:
    """Hosts behind a fake `ssh`; those that nothing is said of are this machine under another name.

    Attributes:
        directory: the working directory, with `my.yaml`.
        told: what they are told, and the arguments that `ssh` got.
        programs: the first directory of the PATH.
    """

    directory: Path
    told: Path
    programs: Path

    def program(self, name: str, script: str) -> None:
        """Put a shell script on the PATH."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def tell(self, host: str, **behaviour: Any) -> None:
        """What the host does; see `fake_host_ssh.py`."""
        (self.told / f"{host}.json").write_text(json.dumps(behaviour))

    def ssh_arguments(self, host: str) -> list[list[str]]:
        """Of each time that it was called for the host."""
        path = self.told / f"{host}.argv"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def config(self, *overrides: str) -> Config:
        return load_config(self.directory / "my.yaml", overrides)

    def check(
        self,
        *overrides: str,
        nodes: tuple[str, ...] = ("node1", "node2", "node3"),
        port: int = 0,
        kind: Literal["here", "hosts", "allocation"] = "hosts",
    ) -> DoctorReport:
        """The preflight of the configuration, two ranks on each node."""
        config = self.config("cluster.master_address=127.0.0.1", *overrides)  # these hosts have no addresses
        fleet = Fleet([Node(name, (0, 1)) for name in nodes], kind, config.cluster)
        return run_preflight(fleet, plan_of(config, fleet.world_size), port or free_port())

    def files(self) -> set[str]:
        """What is in the working directory."""
        return {str(path.relative_to(self.directory)) for path in self.directory.rglob("*")}


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    directory, told, programs = tmp_path / "work", tmp_path / "told", tmp_path / "bin"
    for path in (directory, told, programs):
        path.mkdir()
    (directory / "my.yaml").write_text(_CONFIG)
    hosts = Hosts(directory, told, programs)
    hosts.program("ssh", f'exec {sys.executable} -S {HERE / "fake_host_ssh.py"} "$@"')
    hosts.program("pdsh", "echo 'rcmd modules: ssh,rsh,exec (default: rsh)'")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("FAKE_SSH", str(told))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the code that is tested, whichever is installed
    monkeypatch.chdir(directory)
    return hosts


@pytest.fixture(scope="session")
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where a host cannot have a file system of its own."""
    import subprocess

    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path_factory.mktemp("mount"))]
    if shutil.which("unshare") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
