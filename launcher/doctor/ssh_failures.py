"""What ssh says when it comes to nothing, and what that means."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass

from ligo_dist.config.cluster import Cluster

_SSH_FAILED = 255
_NO_SUCH_COMMAND = (126, 127)


@dataclass(frozen=True)
class Failure:
    """Why nothing can be asked of a machine.

    Attributes:
        found: what is wrong.
        advice: what to do.
    """

    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.found}; {self.advice}"


def explain(code: int, errors: str, host: str, cluster: Cluster) -> Failure:
    """What it means that a command on a machine ended with this exit code and these lines of errors."""
    if code == _SSH_FAILED:
        for pattern, failure in _meanings(host, cluster):
            if re.search(pattern, errors):
                return failure
    python = cluster.python or sys.executable
    lines = errors.strip().splitlines()
    said = lines[-1].strip() if lines else "nothing was said"
    if code == _SSH_FAILED:
        return Failure(f"ssh failed: {said}", f"try `{_by_hand(host, cluster)}`")
    if code in _NO_SUCH_COMMAND:
        return Failure(
            f"{python} cannot be started: {said}",
            "install the environment there, or name its python in cluster.python",
        )
    return Failure(
        f"{python} ended with exit code {code}: {said}",
        "name the environment's python, 3.11, in cluster.python",
    )


def no_answer(seconds: float, host: str, cluster: Cluster) -> Failure:
    """What is to be said of a machine that took longer than it may."""
    return Failure(
        f"no answer within {seconds:g} s (cluster.preflight_seconds)",
        f"see whether `{_by_hand(host, cluster)}` ends, and whether its disks answer",
    )


def _meanings(host: str, cluster: Cluster) -> list[tuple[str, Failure]]:
    """Patterns of ssh's messages; the first that is found counts."""
    port = f"port {cluster.ssh_port}" if cluster.ssh_port else "ssh's own port"
    known_as = shlex.quote(f"[{host}]:{cluster.ssh_port}" if cluster.ssh_port else host)
    scan = f"`ssh-keyscan {_option(cluster)}{host} >> ~/.ssh/known_hosts`"
    return [
        (
            r"HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for \S+ has changed",
            Failure(
                "its host key is not the one that is known",
                f"if it was set up anew, `ssh-keygen -R {known_as}`, then {scan} and compare the fingerprint;"
                " if not, another machine answers in its place",
            ),
        ),
        (
            r"Host key verification failed|host key is known for",
            Failure("its host key is not known here", f"{scan}, and compare the fingerprint"),
        ),
        (
            r"Could not resolve hostname",
            Failure("its name does not resolve", "correct it in the host file, or add it to /etc/hosts"),
        ),
        (
            r"Permission denied",
            Failure(
                "it accepts none of our keys",
                f"`ssh-copy-id {_option(cluster)}{host}`, or name the key in cluster.ssh_options",
            ),
        ),
        (
            r"Connection refused",
            Failure(
                f"it is up, but no sshd listens on {port}", "start sshd there, or correct cluster.ssh_port"
            ),
        ),
        (
            r"timed out|No route to host|Network is unreachable|Host is down",
            Failure("it does not answer", f"see whether it is up, or leave it out: --exclude {host}"),
        ),
        (
            r"[Cc]onnection (closed|reset)|kex_exchange_identification",
            Failure(
                "it closed the connection before anything was said",
                "its sshd may be overloaded (MaxStartups) or may not let this machine in; see its log",
            ),
        ),
    ]


def _by_hand(host: str, cluster: Cluster) -> str:
    return f"ssh {_option(cluster)}{host} true"


def _option(cluster: Cluster) -> str:
    return f"-p {cluster.ssh_port} " if cluster.ssh_port else ""
