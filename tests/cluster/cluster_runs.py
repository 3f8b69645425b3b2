"""Whole runs on the testbed: a schedule with a growth, started over ssh on three hosts, disturbed, and compared."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runs import RunFiles, environment
from testbed import Testbed

ROOT = Path(__file__).parents[2]
STAGES = [
    {"name": "small", "size": {"layers": 2, "width": 24, "heads": 3}, "train": {"steps": 8}},
    {
        "name": "medium",
        "size": {"layers": 3, "width": 40, "heads": 5},
        "grow": {"method": "ligo", "optimizer_state": "grown", "learn": {"steps": 6}},
        "train": {"steps": 8},
    },
]
MODEL = {"model": {"family": "gpt2", "max_positions": 32}, "stages": STAGES}
LAST_STEP = 22
"""Optimizer steps of the whole schedule."""

_QUICK = (
    "defaults.train.batch_size=12",
    "defaults.train.micro_batch_size=2",
    "evaluation={every_steps: 4, sequences: 6, micro_batch_size: 1, compare_random: false}",
    "cluster.gloo_interface=eth0",
    "cluster.backoff_seconds=0.5",
    "cluster.lost_seconds=8.0",
    "cluster.hang_seconds=25.0",
)


def overrides(*more: str) -> list[str]:
    """What all runs here have in common, whatever machines they are on; and more of it."""
    return [*_QUICK, *more]


@dataclass
class ClusterRun:
    """`ligo-dist run` on the testbed's hosts, from this machine as a login node.

    Attributes:
        testbed: the hosts.
        files: the configuration, and what the run leaves.
        more: further words of the command.
        nodes: which hosts.
    """

    testbed: Testbed
    files: RunFiles
    more: Sequence[str] = ()
    nodes: Sequence[str] = ("node1", "node2", "node3")
    mark: str = field(default_factory=lambda: f"LIGO_DIST_TEST={uuid.uuid4().hex}")
    _forgotten: int = 0

    def __enter__(self) -> ClusterRun:
        name, _, value = self.mark.partition("=")
        options = ",".join(f"'{word}'" for word in self.testbed.ssh_options)
        command = [sys.executable, "-m", "launcher", "run", str(self.files.config), *overrides(*self.more)]
        command += [
            "--hostfile",
            str(self.testbed.hostfile(nodes=self.nodes)),
            f"cluster.ssh_options=[{options}]",
        ]
        command += [f"cluster.master_address={self.testbed.hosts[self.nodes[0]]}"]
        self.output = self.files.config.with_suffix(".out").open("w+")
        environ = {**environment(), name: value}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=self.output, stderr=subprocess.STDOUT
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return Path(self.output.name).read_text()

    def wait_for(self, what: str | Callable[[], object], seconds: float = 240.0) -> None:
        """Wait until it has printed something (a regular expression), or something is so."""
        deadline = time.monotonic() + seconds
        while not (re.search(what, self.said[self._forgotten :]) if isinstance(what, str) else what()):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.005)

    def forget(self) -> None:
        """Wait from here on for what it prints from here on."""
        self._forgotten = len(self.said)

    def end(self, seconds: float = 300.0) -> int:
        """Its exit code, once it has ended; none of its processes is left then."""
        code = self.process.wait(seconds)
        self.assert_none_survives()
        return code

    def rank(self, number: int) -> int:
        """The process of a rank."""
        node = self.nodes[number]
        pids = self.testbed.processes_on(node, f"RANK={number}") & self.testbed.processes(self.mark)
        (pid,) = (pid for pid in pids if b"ligo_dist" in words_of(pid))
        return pid

    def assert_none_survives(self, seconds: float = 30.0) -> None:
        """No rank, nothing that started or watches one: a host that was cut off has time to notice it."""
        assert_none_survives(self.testbed, self.mark, seconds)


def assert_none_survives(testbed: Testbed, mark: str = "", seconds: float = 30.0) -> None:
    """No process of ours is left on the hosts, nor one with this `NAME=value` in its environment anywhere."""
    deadline = time.monotonic() + seconds
    while left := (testbed.processes(mark) if mark else set()) | ours(testbed):
        assert time.monotonic() < deadline, [words_of(pid) for pid in left]
        time.sleep(0.1)


def ours(testbed: Testbed) -> set[int]:
    """What runs on the hosts of DeepSpeed's launcher and of ranks."""
    pids = set().union(*(testbed.all_processes_on(node) for node in testbed.hosts))
    return {
        pid
        for pid in pids
        if any(word.startswith((b"deepspeed.launcher", b"ligo_dist")) for word in words_of(pid))
    }


def command_lines() -> set[str]:
    """What `ps` would show."""
    return {
        b" ".join(words_of(int(path.name))).decode(errors="replace") for path in Path("/proc").glob("[0-9]*")
    }


def words_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def assert_same(files: RunFiles, undisturbed: RunFiles, tolerance: float = 0.0) -> None:
    """Every number that was measured, at every step, is the undisturbed run's; with a tolerance, every loss: what
    learning costs depends on the number of ranks."""
    only = "loss" if tolerance else ""
    ours, theirs = files.numbers(only), undisturbed.numbers(only)
    assert ours.keys() == theirs.keys()
    for place, value in ours.items():
        assert value == pytest.approx(theirs[place], rel=tolerance, abs=tolerance), place
    assert max(step for _, _, step, _ in ours) == LAST_STEP


def hand_typed(testbed: Testbed, files: RunFiles, *more: str) -> tuple[list[str], dict[str, str]]:
    """A `deepspeed` command as one types it for the hosts, and its environment."""
    variables = {"GLOO_SOCKET_IFNAME": "eth0", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    exports = files.config.with_name("deepspeed_env")
    exports.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    environ = {**environment(), **variables, "DS_ENV_FILE": str(exports)}
    environ["PDSH_SSH_ARGS_APPEND"] = " ".join(testbed.ssh_options)
    command = [str(Path(sys.executable).with_name("deepspeed")), "--hostfile", str(testbed.hostfile())]
    command += ["--no_ssh_check", "--master_addr", testbed.hosts["node1"], "--no_local_rank", "--quiet"]
    return [*command, "--module", "ligo_dist", str(files.config), *overrides(*more)], environ
