"""What lets several testbeds stand on one machine, and what finds the leftovers of one that was killed.

A session has a number that no other living one has. All it makes on the machine is named after that number: network
namespaces and links `ligo3-...`, the directory `/run/ligo-testbed/3`. The number is held by a socket in the kernel's
abstract name space, which ends with the process however that ends.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

from testbed.processes import kill

NETNS_FILES = Path("/etc/netns")
"""`ip netns exec` puts the files in `/etc/netns/NAMESPACE` in the place of those in `/etc`."""
_SESSIONS = Path("/run/ligo-testbed")
_RANGES = ("10.213.{}.0/24", "172.29.{}.0/24", "192.168.{}.0/24")
_MOST = 256


class TestbedError(Exception):
    """The machine does not let a testbed stand, or something of it does not come up."""

    __test__ = False  # no class of tests, whatever pytest thinks of its name


def command(*words: str | Path) -> str:
    """What a command of the system prints.

    Raises:
        TestbedError: it failed; with what it said.
    """
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        line = " ".join(str(word) for word in words)
        raise TestbedError(f"`{line}` ended with exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Session:
    """One of the testbeds of this machine. To open it removes what dead ones left.

    Raises:
        TestbedError: there are too many, or no range of addresses is free.
    """

    def __init__(self) -> None:
        for directory in _SESSIONS.glob("*"):
            if lock := _hold(int(directory.name)):
                with lock:
                    _remove(int(directory.name))
        self.number, self._lock = _first_free()
        self.directory = _SESSIONS / str(self.number)
        self.directory.mkdir(parents=True, mode=0o700)

    def name(self, what: str) -> str:
        """Name of a namespace or link."""
        return _prefix(self.number) + what

    def addresses(self) -> IPv4Network:
        """A private range that nothing on this machine has a route to."""
        routes = json.loads(command("ip", "-4", "-json", "route", "show", "table", "all"))
        taken = [IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
        for template in _RANGES:
            network = IPv4Network(template.format(self.number))
            if not any(network.overlaps(other) for other in taken):
                return network
        ranges = ", ".join(template.format(self.number) for template in _RANGES)
        raise TestbedError(f"this machine has routes to each of {ranges}")

    def close(self) -> None:
        """Undo all that was made on the machine in this session."""
        _remove(self.number)
        self._lock.close()


def pids_in(namespace: str) -> set[int]:
    return {int(pid) for pid in command("ip", "netns", "pids", namespace).split()}


def _first_free() -> tuple[int, socket.socket]:
    for number in range(_MOST):
        if lock := _hold(number):
            return number, lock
    raise TestbedError(f"{_MOST} testbeds stand on this machine already")


def _hold(number: int) -> socket.socket | None:
    """What holds the number until it is closed, or `None` where a living session has it."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0ligo-testbed-{number}")
    except OSError:
        lock.close()
        return None
    return lock


def _prefix(number: int) -> str:
    return f"ligo{number}-"


def _remove(number: int) -> None:
    """Processes in the namespaces, the namespaces themselves, links, mounts, files."""
    for namespace in _names(number, "netns", "list"):
        while pids := pids_in(namespace):
            kill(pids)
        command("ip", "netns", "delete", namespace)
        shutil.rmtree(NETNS_FILES / namespace, ignore_errors=True)
    for link in _names(number, "link", "show"):
        # The end of a cable goes with the namespace at its other end, maybe just now.
        with contextlib.suppress(TestbedError):
            command("ip", "link", "delete", link)
    directory = _SESSIONS / str(number)
    for mount in reversed(_mounts_below(directory)):
        command("umount", "--lazy", mount)
    shutil.rmtree(directory, ignore_errors=True)
    for parent in (_SESSIONS, NETNS_FILES):
        with contextlib.suppress(OSError):
            parent.rmdir()  # where it is empty


def _names(number: int, *words: str) -> list[str]:
    things = json.loads(command("ip", "-json", *words) or "[]")
    names = [thing.get("name") or thing["ifname"] for thing in things]
    return [name for name in names if name.startswith(_prefix(number))]


def _mounts_below(directory: Path) -> list[str]:
    """Mount points at and below it, in the order in which they were mounted."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if Path(point).is_relative_to(directory)]
