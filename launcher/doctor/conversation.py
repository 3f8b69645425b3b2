"""Asking machines: the probe is sent to each, and answers line by line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from launcher.doctor import probe
from launcher.doctor.ssh_failures import Failure, explain, no_answer
from launcher.hosts import Node
from launcher.remote import RemoteCommand, ssh_command
from ligo_dist.config.cluster import Cluster
from ligo_dist.errors import LigoError

_BOOTSTRAP = "import json, sys; exec(json.loads(sys.stdin.readline()))"
_END_SECONDS = 5.0

T = TypeVar("T")


class NoAnswer(Exception):
    """A machine that cannot be asked, or has stopped answering."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Conversation:
    """The probe on one machine. Each answer may take `cluster.preflight_seconds`, the first with the login."""

    def __init__(self, host: str, cluster: Cluster, remote: RemoteCommand | None) -> None:
        """`remote`: how a command is typed for the machine; None: it is this one."""
        self._host, self._cluster = host, cluster
        self._timed_out = False
        python = [cluster.python or sys.executable, "-c", _BOOTSTRAP]
        # Through a shell in both cases, so that both say the same of a python that is not there.
        here = ["sh", "-c", f"exec {shlex.join(python)}"]
        command = here if remote is None else _typed(remote, cluster, host, python)
        # No pipe: where ssh shares connections, a process of it stays behind that would keep it open.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            errors="replace",
        )
        self._say(Path(probe.__file__).read_text(encoding="utf-8"))

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request of `probe.Machine`.

        Raises:
            NoAnswer: there is none.
        """
        timer = threading.Timer(self._cluster.preflight_seconds, self._give_up)
        timer.start()
        try:
            self._say(request)
            answer = self._next_answer()
        finally:
            timer.cancel()
        if answer is None:
            raise NoAnswer(self._failure())
        return answer

    def end(self) -> None:
        """Let the probe tidy up and end; where it does not, end it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _say(self, content: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # why it has ended is asked where its answer is missed
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()

    def _next_answer(self) -> dict[str, Any] | None:
        """None: the probe has ended without one."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            _, is_answer, text = line.partition(probe.ANSWER)
            if is_answer:
                return json.loads(text)
        return None

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _failure(self) -> Failure:
        code = self._process.wait()
        if self._timed_out:
            return no_answer(self._cluster.preflight_seconds, self._host, self._cluster)
        return explain(code, _content(self._errors), self._host, self._cluster)


def reachable_nodes(nodes: Sequence[Node], cluster: Cluster) -> dict[str, str | None]:
    """Which machines let us in at this moment: None, or why not, by name. Nothing else is looked at."""
    if is_this_machine(nodes):
        return {nodes[0].name: None}
    failures = at_once(lambda node: _knock(node.name, cluster), nodes)
    return {
        node.name: None if failure is None else str(failure)
        for node, failure in zip(nodes, failures, strict=True)
    }


def is_this_machine(nodes: Sequence[Node]) -> bool:
    """Whether a run is on this machine alone, so that no ssh is needed."""
    return [node.name for node in nodes] == ["localhost"]


def at_once(ask: Callable[[Node], T], nodes: Sequence[Node]) -> list[T]:
    """What is answered for each machine, all asked at the same time."""
    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        return list(pool.map(ask, nodes))


def working_directory(cluster: Cluster) -> str:
    """Where the machines work."""
    return cluster.directory or os.getcwd()


def _typed(remote: RemoteCommand, cluster: Cluster, host: str, argv: Sequence[str]) -> list[str]:
    command = remote(cluster, host, argv)
    if shutil.which(command[0]) is None:
        raise LigoError(f"there is no `{command[0]}` on the PATH, by which the hosts are reached")
    return command


def _knock(host: str, cluster: Cluster) -> Failure | None:
    with tempfile.TemporaryFile() as errors:
        try:
            code = subprocess.run(
                _typed(ssh_command, cluster, host, ["true"]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=cluster.preflight_seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return no_answer(cluster.preflight_seconds, host, cluster)
        return explain(code, _content(errors), host, cluster) if code else None


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
