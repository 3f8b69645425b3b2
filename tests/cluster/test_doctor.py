"""`ligo-dist doctor` on real hosts: each thing that can be wrong with one is found, and said in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster_runs import ROOT
from testbed import Testbed

PORT = 29500
_CONFIG = """\
run_dir: runs/test
model: {family: gpt2, max_positions: 64}
stages:
  - name: small
    size: {layers: 2, width: 64, heads: 4}
    train: {steps: 10, batch_size: 12, micro_batch_size: 1}
data: {source: stdlib, sequence_length: 64}
tokenizer: {vocab_size: 4096}
"""


@dataclass(frozen=True)
class Doctor:
    """The command, in a directory with a configuration."""

    testbed: Testbed
    directory: Path

    def ssh(self, *options: str) -> str:
        """The override with which ssh finds the hosts, and has these options before."""
        return f"cluster.ssh_options={json.dumps([*options, *self.testbed.ssh_options])}"

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "launcher", "doctor", "my.yaml", self.ssh()]
        return subprocess.run(
            [*command, "--hostfile", str(self.testbed.hostfile()), *more],
            cwd=self.directory,
            env={**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def lines(self, *more: str, code: int = 2) -> list[str]:
        """What it says below its table."""
        done = self.run(*more)
        assert (done.returncode, done.stderr) == (code, ""), done.stdout
        return [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]


@pytest.fixture
def doctor(testbed: Testbed, tmp_path: Path) -> Doctor:
    (tmp_path / "my.yaml").write_text(_CONFIG)
    return Doctor(testbed, tmp_path)


def test_hosts_that_are_well(doctor: Doctor):
    assert doctor.lines(code=0) == ["3 nodes ready"]
    assert [path.name for path in doctor.directory.iterdir()] == ["my.yaml"]


def test_a_host_that_is_down(doctor: Doctor, testbed: Testbed):
    testbed.cut("node2")
    assert doctor.lines() == [
        "node2: it does not answer; see whether it is up, or leave it out: --exclude node2",
        "1 of 3 nodes not ready",
    ]


def test_a_host_without_sshd(doctor: Doctor, testbed: Testbed):
    testbed.stop_sshd("node3")
    assert doctor.lines() == [
        "node3: it is up, but no sshd listens on ssh's own port; start sshd there, or correct cluster.ssh_port",
        "1 of 3 nodes not ready",
    ]


def test_a_host_with_another_key(doctor: Doctor, testbed: Testbed):
    testbed.change_host_key("node1")
    assert doctor.lines() == [
        "node1: its host key is not the one that is known; if it was set up anew, `ssh-keygen -R node1`, then"
        " `ssh-keyscan node1 >> ~/.ssh/known_hosts` and compare the fingerprint; if not, another machine answers in"
        " its place",
        "1 of 3 nodes not ready",
    ]


def test_a_host_whose_key_is_not_known(doctor: Doctor):
    first, *_ = doctor.lines(doctor.ssh("-oUserKnownHostsFile=/dev/null"))
    assert first == (
        "node1: its host key is not known here; `ssh-keyscan node1 >> ~/.ssh/known_hosts`, and compare the fingerprint"
    )


def test_a_host_that_accepts_no_key(doctor: Doctor):
    first, *_ = doctor.lines(doctor.ssh("-oPubkeyAuthentication=no"))
    assert (
        first
        == "node1: it accepts none of our keys; `ssh-copy-id node1`, or name the key in cluster.ssh_options"
    )


def test_a_name_that_nobody_knows(doctor: Doctor, tmp_path: Path):
    (tmp_path / "hosts").write_text("node1 slots=1\nnode9.invalid slots=1\nnode3 slots=1\n")
    assert doctor.lines("--hostfile", "hosts") == [
        "node9.invalid: its name does not resolve; correct it in the host file, or add it to /etc/hosts",
        "1 of 3 nodes not ready",
    ]


def test_another_version_of_torch(doctor: Doctor, tmp_path: Path):
    metadata = tmp_path / "elsewhere" / "torch-2.12.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.12.0\n")
    python = _python_of_node2(
        tmp_path, f'export PYTHONPATH={metadata.parents[1]}; exec {sys.executable} "$@"'
    )
    assert doctor.lines(f"cluster.python={python}") == [
        f"node2: torch 2.12.0, the launcher has {version('torch')}; install the same there",
        "1 of 3 nodes not ready",
    ]


def test_a_missing_package(doctor: Doctor, tmp_path: Path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for path in Path(sys.prefix, "lib", "python3.11", "site-packages").iterdir():
        if not path.name.startswith(("mlflow-", "mlflow_skinny-", "mlflow_tracing-")):
            (hidden / path.name).symlink_to(path)
    command = f'export PYTHONPATH={hidden}; exec {sys.executable} -S "$@"'
    assert doctor.lines(f"cluster.python={_python_of_node2(tmp_path, command)}") == [
        f"node2: mlflow is missing from {sys.executable}; install mlflow {version('mlflow')} there",
        "1 of 3 nodes not ready",
    ]


def _python_of_node2(directory: Path, command: str) -> Path:
    """A python that is another one on node2, in an environment with a `deepspeed`."""
    (directory / "deepspeed").symlink_to(Path(sys.executable).with_name("deepspeed"))
    path = directory / "python"
    path.write_text(f'#!/bin/sh\ncase $(hostname) in node2) {command};; esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def test_a_python_that_is_not_there(doctor: Doctor):
    here, first, *_ = doctor.lines("cluster.python=/opt/none/bin/python")
    assert here.startswith("this machine: there is no /opt/none/bin/deepspeed, ")
    assert first.startswith("node1: /opt/none/bin/python cannot be started: ")


def test_a_run_directory_that_cannot_be_written(doctor: Doctor, tmp_path: Path):
    (tmp_path / "runs").mkdir()
    # As root may write anywhere, node2 sees the directory through a mount for reading alone.
    command = f'exec unshare --mount sh -c "mount --bind -o ro runs runs && exec {sys.executable} \\"\\$@\\"" sh "$@"'
    directory = f"cd {tmp_path}; {command}"
    assert doctor.lines(f"cluster.python={_python_of_node2(tmp_path, directory)}") == [
        f"node2: run_dir 'runs/test' in {tmp_path} cannot be written: Read-only file system; let this user write"
        " there, or choose another run_dir",
        "1 of 3 nodes not ready",
    ]


def test_a_port_that_is_closed(doctor: Doctor, testbed: Testbed):
    testbed.close_port("node1", PORT)
    advice = "open the port on the first host, or give cluster.master_address an address that all reach"
    assert doctor.lines() == [
        f"node2: does not reach node1 port {PORT}: timed out; {advice}",
        f"node3: does not reach node1 port {PORT}: timed out; {advice}",
        "2 of 3 nodes not ready",
    ]


def test_a_port_that_is_taken(doctor: Doctor, testbed: Testbed):
    code = f"import socket, time; s = socket.create_server(('', {PORT})); print(flush=True); time.sleep(60)"
    with testbed.start_on("node1", [sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as squatter:
        assert squatter.stdout is not None
        squatter.stdout.readline()
        try:
            assert doctor.lines() == [
                f"node1: cannot listen on port {PORT}: Address already in use; end what listens there, or choose"
                " another cluster.master_port",
                "1 of 3 nodes not ready",
            ]
            free = PORT + 1
            assert doctor.lines(f"cluster.master_port={free}", code=0) == ["3 nodes ready"]
        finally:
            squatter.kill()


def test_a_full_disk(doctor: Doctor, testbed: Testbed):
    disk = testbed.small_disk(2)
    *lines, verdict = doctor.lines(f"run_dir={disk}/run")
    assert verdict == "3 of 3 nodes not ready"
    said = (
        f"free for run_dir '{disk}/run', and 14.7 MB will be written; make room, or keep fewer checkpoints"
        " (checkpoints.keep)"
    )
    for node, line in zip(testbed.hosts, lines, strict=True):
        assert re.fullmatch(rf"{node}: 2\.\d\d MB {re.escape(said)}", line)


def test_a_disk_without_any_room(doctor: Doctor, testbed: Testbed):
    disk = testbed.small_disk(2)
    (disk / "run").mkdir()
    with (disk / "ballast").open("wb") as ballast, pytest.raises(OSError, match="No space left"):
        ballast.write(b"x" * (3 << 20))
    done = doctor.run(f"run_dir={disk}/run")
    assert (done.returncode, done.stdout) == (2, "")
    said = f"ligo-dist: run_dir: '{disk}/run' cannot be written here: No space left on device\n"
    assert done.stderr == said, "the launcher cannot write there either"
