"""A directory in which runs are launched, with stand-ins for `deepspeed` and for the training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_TINY = """
run_dir: run
model: {family: gpt2, max_positions: 32}
defaults: {train: {batch_size: 8, micro_batch_size: 2, optimizer: {learning_rate: 1e-3}}}
stages: [{name: small, size: {layers: 1, width: 8, heads: 1}, train: {steps: 5}}]
data: {source: stdlib, sequence_length: 32}
tokenizer: {vocab_size: 420}
"""
_FAST = ("cluster.backoff_seconds=0.0", "cluster.preflight=false", "cluster.node_wait_seconds=1.0")


@dataclass
class Site:
    """A directory in which runs are launched."""

    directory: Path

    def behave(self, **words: list[str]) -> None:
        """What each rank does at each of its starts: `rank0=["die", "finish"]`."""
        behaviours = {rank.removeprefix("rank"): behaviour for rank, behaviour in words.items()}
        (self.directory / "behaviours.json").write_text(json.dumps(behaviours))

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """`ligo-dist run` with these arguments."""
        wrapper = json.dumps([sys.executable, str(HERE / "fake_worker.py")])
        python = self.directory / "bin" / "python"
        command = [sys.executable, "-m", "launcher", "run", "tiny.yaml"]
        command += [f"cluster.wrapper={wrapper}", f"cluster.python={python}", *_FAST]
        return subprocess.Popen(
            [*command, *arguments],
            env={
                **os.environ,
                "DS_ACCELERATOR": "cpu",
                "PYTHONPATH": str(ROOT),
                "PATH": f"{self.directory}:{os.environ['PATH']}",
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
        )

    def launch(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """The same to its end: exit code, standard output and error."""
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=90)
        self.assert_none_survives()
        return process.returncode, out, err

    def hostfile(self, *lines: str) -> str:
        """A host file, and an `ssh` that runs everything here."""
        (self.directory / "hosts").write_text("\n".join(lines))
        ssh = self.directory / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "fake_ssh.py"} "$@"\n')
        ssh.chmod(0o755)
        return "hosts"

    @property
    def starts(self) -> list[dict[str, Any]]:
        """Each start of a rank, in no particular order."""
        file = self.directory / "started"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for_starts(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.starts) < count:
            assert time.monotonic() < deadline, "the ranks did not start"
            time.sleep(0.05)
        time.sleep(0.3)

    def assert_none_survives(self) -> None:
        pids = [pid for start in self.starts for pid in start["pids"]]
        deadline = time.monotonic() + 20
        while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < deadline:
            time.sleep(0.1)  # what the kernel ends is not gone at once
        assert left == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.behave()
    (tmp_path / "tiny.yaml").write_text(_TINY)
    deepspeed = tmp_path / "bin" / "deepspeed"
    deepspeed.parent.mkdir()
    deepspeed.write_text(f"#!{sys.executable}\n" + (HERE / "fake_deepspeed.py").read_text())
    deepspeed.chmod(0o755)
    yield made
    for start in made.starts:
        for pid in start["pids"]:
            if _runs(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _questions_are_answered_here(answered_here: None) -> None:
    """Of all tests of the launcher."""
