"""A host of the testbed: a network namespace with a cable to the bridge, and a host name."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from testbed.session import NETNS_FILES, TestbedError, command, pids_in


class Node:
    """One host, unplugged and without a process but for the one that keeps its name.

    Args:
        name: its host name.
        address: its IPv4 address with the length of the prefix, such as 10.213.0.1/24.
        namespace: its network namespace; also the name of the outer end of its cable.
        etc_hosts: its `/etc/hosts`.
    """

    def __init__(self, name: str, address: str, namespace: str, etc_hosts: str) -> None:
        self.name = name
        self.address = address.partition("/")[0]
        self._namespace = namespace
        self._closed_ports: set[int] = set()
        files = NETNS_FILES / namespace
        files.mkdir(parents=True)
        (files / "hosts").write_text(etc_hosts)
        command("ip", "netns", "add", namespace)
        command("ip", "link", "add", namespace, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._ip("address", "add", address, "dev", "eth0")
        self._ip("link", "set", "eth0", "up")
        self._ip("link", "set", "lo", "up")
        # A rule for a port has to come before the one that delivers locally, which is the first otherwise.
        self._ip("rule", "add", "preference", "10", "lookup", "local")
        self._ip("rule", "delete", "preference", "0")
        self._keeper = self._keep_host_name()

    def plug_into(self, bridge: str) -> None:
        command("ip", "link", "set", self._namespace, "master", bridge, "up")

    def words(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` on this host."""
        uts = f"--uts=/proc/{self._keeper.pid}/ns/uts"
        return ["ip", "netns", "exec", self._namespace, "nsenter", uts, "--", *argv]

    def cut(self) -> None:
        command("ip", "link", "set", self._namespace, "down")

    def mend(self) -> None:
        command("ip", "link", "set", self._namespace, "up")

    def close_port(self, port: int) -> None:
        self._ip("rule", "add", *_drop(port))
        self._closed_ports.add(port)

    def open_port(self, port: int) -> None:
        self._ip("rule", "delete", *_drop(port))
        self._closed_ports.remove(port)

    def open_ports(self) -> None:
        """All that were closed."""
        for port in set(self._closed_ports):
            self.open_port(port)

    def pids(self) -> set[int]:
        """All processes on this host, without the one that keeps its name."""
        return pids_in(self._namespace) - {self._keeper.pid}

    def forget_host_name(self) -> None:
        """End the process that keeps it; nothing runs on this host from then on."""
        self._keeper.kill()
        self._keeper.wait()

    def _ip(self, *words: str) -> None:
        command("ip", "-n", self._namespace, *words)

    def _keep_host_name(self) -> subprocess.Popen[str]:
        """A process that does nothing: a UTS namespace, which holds the host name, lasts as long as one is in it."""
        script = 'hostname "$0" && echo named && exec sleep infinity'
        words = ["ip", "netns", "exec", self._namespace, "unshare", "--uts", "sh", "-c", script, self.name]
        keeper = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        assert keeper.stdout is not None
        with keeper.stdout:
            said = keeper.stdout.readline()
        if said != "named\n":
            raise TestbedError(f"{self.name} gets no host name: {said.strip()}")
        return keeper


def _drop(port: int) -> list[str]:
    return ["preference", "5", "iif", "eth0", "ipproto", "tcp", "dport", str(port), "blackhole"]
