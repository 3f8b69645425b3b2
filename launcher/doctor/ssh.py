"""Commands on other machines over ssh, many at a time, and what its failures mean."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from launcher.doctor import probe
from launcher.fleet import Fleet
from ligo_dist.config import Cluster
from ligo_dist.runtime.errors import LigoError

_SSH_FAILED = 255
_NO_SUCH_COMMAND = (126, 127)


@dataclass(frozen=True)
class SshFailure:
    """Why nothing can be asked of a machine.

    Attributes:
        found: what is wrong.
        advice: what to do.
    """

    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.found}; {self.advice}"


def explain(code: int, errors: str, host: str, cluster: Cluster) -> SshFailure:
    """What it means that a command on a machine ended with this exit code and these lines of errors."""
    if code == _SSH_FAILED:
        for pattern, found, advice in _meanings(host, cluster):
            if re.search(pattern, errors):
                return SshFailure(found, advice)
    python = cluster.python or sys.executable
    lines = errors.strip().splitlines()
    said = lines[-1].strip() if lines else "nothing was said"
    if code == _SSH_FAILED:
        return SshFailure(f"ssh failed: {said}", f"try `{_by_hand(host, cluster)}`")
    if code in _NO_SUCH_COMMAND:
        return SshFailure(
            f"{python} cannot be started: {said}",
            "install the environment there, or name its python in cluster.python",
        )
    return SshFailure(
        f"{python} ended with exit code {code}: {said}",
        "name the environment's python, 3.11, in cluster.python",
    )


def no_answer(seconds: float, host: str, cluster: Cluster) -> SshFailure:
    """What is to be said of a machine that took longer than it may."""
    return SshFailure(
        f"no answer within {seconds:g} s (cluster.preflight_seconds)",
        f"see whether `{_by_hand(host, cluster)}` ends, and whether its disks answer",
    )


def _meanings(host: str, cluster: Cluster) -> list[tuple[str, str, str]]:
    """Patterns of ssh's messages, what is wrong then, and what to do; the first that is found counts."""
    port = f"port {cluster.ssh_port}" if cluster.ssh_port else "ssh's own port"
    known_as = shlex.quote(f"[{host}]:{cluster.ssh_port}" if cluster.ssh_port else host)
    scan = f"`ssh-keyscan {_option(cluster)}{host} >> ~/.ssh/known_hosts`"
    return [
        (
            r"HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for \S+ has changed",
            "its host key is not the one that is known",
            f"if it was set up anew, `ssh-keygen -R {known_as}`, then {scan} and compare the fingerprint; if not,"
            " another machine answers in its place",
        ),
        (
            r"Host key verification failed|host key is known for",
            "its host key is not known here",
            f"{scan}, and compare the fingerprint",
        ),
        (
            r"Could not resolve hostname",
            "its name does not resolve",
            "correct it in the host file, or add it to /etc/hosts",
        ),
        (
            r"Permission denied",
            "it accepts none of our keys",
            f"`ssh-copy-id {_option(cluster)}{host}`, or name the key in cluster.ssh_options",
        ),
        (
            r"Connection refused",
            f"it is up, but no sshd listens on {port}",
            "start sshd there, or correct cluster.ssh_port",
        ),
        (
            r"timed out|No route to host|Network is unreachable|Host is down",
            "it does not answer",
            f"see whether it is up, or leave it out: --exclude {host}",
        ),
        (
            r"[Cc]onnection (closed|reset)|kex_exchange_identification",
            "it closed the connection before anything was said",
            "its sshd may be overloaded (MaxStartups) or may not let this machine in; see its log",
        ),
    ]


def _by_hand(host: str, cluster: Cluster) -> str:
    return f"ssh {_option(cluster)}{host} true"


def _option(cluster: Cluster) -> str:
    return f"-p {cluster.ssh_port} " if cluster.ssh_port else ""


_BOOTSTRAP = "import json, sys; exec(json.loads(sys.stdin.readline()))"
_END_SECONDS = 5.0

_STARTING = threading.BoundedSemaphore(16)
"""So many commands are started at the same moment: a start takes some descriptors for a while, and keeps one at most.
Hundreds of machines are asked within the usual limit of 1024."""

T = TypeVar("T")


class Conversation:
    """The probe on one machine. Each answer may take `cluster.preflight_seconds`, the first with the login."""

    def __init__(self, host: str, fleet: Fleet, errors: Path) -> None:
        """
        Args:
            host: its name.
            fleet: how it is reached.
            errors: a file for what is said on standard error.

        Raises:
            LigoError: the program that reaches it is not there.
        """
        self._host, self._cluster, self._errors = host, fleet.cluster, errors
        self._received = b""
        self._channel, theirs = socket.socketpair()
        with theirs:
            command = fleet.command_on(host, [self._cluster.python or sys.executable, "-c", _BOOTSTRAP])
            self._process = _start(command, theirs.fileno(), errors)
        self._say(Path(probe.__file__).read_text(encoding="utf-8"))

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any] | SshFailure:
        """The answer to a request of `probe.Machine`, or why there is none."""
        seconds = self._cluster.preflight_seconds
        deadline = time.monotonic() + seconds
        self._say(request)
        try:
            answer = self._next_answer(deadline)
            if answer is not None:
                return answer
            code = self._process.wait(_left(deadline))
        except (TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            return no_answer(seconds, self._host, self._cluster)
        return explain(code, _content(self._errors), self._host, self._cluster)

    def end(self) -> None:
        """Let the probe tidy up and end; where it does not, end it."""
        self._channel.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._channel.close()

    def _say(self, content: object) -> None:
        self._channel.settimeout(self._cluster.preflight_seconds)
        with suppress(OSError):  # why it does not listen is asked where its answer is missed
            self._channel.sendall(json.dumps(content).encode() + b"\n")

    def _next_answer(self, deadline: float) -> dict[str, Any] | None:
        """None: the probe has ended without one.

        Raises:
            TimeoutError: it is late.
        """
        while True:
            line, is_whole, rest = self._received.partition(b"\n")
            if is_whole:
                self._received = rest
                _, is_answer, text = line.decode(errors="replace").partition(probe.ANSWER)
                if is_answer:
                    return json.loads(text)
                continue
            self._channel.settimeout(_left(deadline))
            try:
                chunk = self._channel.recv(1 << 16)
            except ConnectionResetError:  # it ended without reading what was said
                chunk = b""
            if not chunk:
                return None
            self._received += chunk


def reachable_nodes(fleet: Fleet) -> dict[str, str | None]:
    """Which machines of a fleet of hosts ssh gets into at this moment: None, or why not, by name. Nothing else is
    looked at.

    Raises:
        LigoError: there is no ssh.
    """
    names = [node.name for node in fleet.nodes]
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory, str(number)) for number in range(len(names))]
        failures = at_once(lambda name, file: _knock(name, fleet, file), names, files)
    return {
        name: None if failure is None else str(failure) for name, failure in zip(names, failures, strict=True)
    }


def at_once(ask: Callable[..., T], *of_machines: Sequence[Any]) -> list[T]:
    """What is answered for each machine, all asked at the same time; each sequence has an argument for each."""
    with ThreadPoolExecutor(max_workers=max(1, len(of_machines[0]))) as pool:
        return list(pool.map(ask, *of_machines))


def _knock(host: str, fleet: Fleet, errors: Path) -> SshFailure | None:
    seconds = fleet.cluster.preflight_seconds
    process = _start(fleet.command_on(host, ["true"]), subprocess.DEVNULL, errors)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return no_answer(seconds, host, fleet.cluster)
    return explain(code, _content(errors), host, fleet.cluster) if code else None


def _start(command: Sequence[str], channel: int, errors: Path) -> subprocess.Popen[bytes]:
    if shutil.which(command[0]) is None:
        raise LigoError(f"there is no `{command[0]}` on the PATH, by which the hosts are reached")
    # No pipe for the errors: where ssh shares connections, a process of it stays behind that would keep it open.
    with _STARTING, errors.open("wb") as file:
        return subprocess.Popen(command, stdin=channel, stdout=channel, stderr=file)


def _left(deadline: float) -> float:
    """Seconds until then; the least that still is a time to wait, where it has passed."""
    return max(0.001, deadline - time.monotonic())


def _content(errors: Path) -> str:
    return errors.read_text(encoding="utf-8", errors="replace")
