"""The cluster as tests see it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed import processes
from testbed.node import Node
from testbed.session import Session, TestbedError, command
from testbed.sshd import SSHD, Sshd, client_config, make_key

NODES = ("node1", "node2", "node3")
_PROGRAMS = ("ip", "nsenter", "unshare", "mount", "ssh", "ssh-keygen", SSHD, "pdsh")


class Testbed:
    """Three hosts, node1 to node3, on which root can log in from this machine with `ssh -F CONFIG`.

    The hosts know one another and this machine by name, through `/etc/hosts`. This machine knows their names through
    ssh's configuration alone; `hosts` has the addresses.

    On entry, what testbeds of dead processes left on this machine is removed; on exit, all that this one made.

    Raises:
        TestbedError: the machine does not allow it; what is missing, or what the system said.
    """

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    hosts: dict[str, str]
    """Name -> IPv4 address."""
    launcher_address: str
    """Address of this machine as the hosts reach it."""

    def __enter__(self) -> Self:
        _check_machine()
        self._numbers = itertools.count()
        self._nodes: dict[str, Node] = {}
        self._sshds: dict[str, Sshd] = {}
        self._disks: list[Path] = []
        self._session = Session()
        try:
            self._build()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def restore(self) -> None:
        """All hosts as they were at first: reachable, known to ssh, without processes; no small disk is mounted."""
        for name, node in self._nodes.items():
            node.mend()
            node.open_ports()
            self._sshds[name].start()
            while pids := self.all_processes_on(name):
                processes.kill(pids)
        self._known_hosts.write_text("".join(sshd.known_host() for sshd in self._sshds.values()))
        for disk in self._disks:
            command("umount", "--lazy", disk)
        self._disks.clear()

    @property
    def ssh_options(self) -> list[str]:
        """Words with which `ssh` reaches the hosts."""
        return ["-F", str(self._ssh_config)]

    def hostfile(self, slots: int = 1, nodes: Iterable[str] = NODES) -> Path:
        """A new file of lines `HOST slots=N`."""
        path = self._new_path("hostfile")
        path.write_text("".join(f"{name} slots={slots}\n" for name in nodes))
        return path

    def small_disk(self, megabytes: int) -> Path:
        """A new directory on a disk of its own, of this size, that this machine and all hosts see."""
        path = self._new_path("disk")
        path.mkdir()
        command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path)
        self._disks.append(path)
        return path

    def run_on(self, node: str, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, without ssh; its outputs are captured. `options` are those of `subprocess.run`."""
        words = self._nodes[node].words(argv)
        return subprocess.run(words, **{"capture_output": True, "text": True, "check": False, **options})

    def start_on(self, node: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host, without ssh. `options` are those of `subprocess.Popen`."""
        return subprocess.Popen(self._nodes[node].words(argv), **{"text": True, **options})

    def cut(self, node: str) -> None:
        """Pull the cable: packets from and to the host vanish, no connection is reset. Once its neighbours have
        forgotten where it was, after some ten seconds, new connections fail with `No route to host`."""
        self._nodes[node].cut()

    def mend(self, node: str) -> None:
        self._nodes[node].mend()

    def close_port(self, node: str, port: int) -> None:
        """Drop what comes to this TCP port from elsewhere, as a firewall does; the host itself still reaches it."""
        self._nodes[node].close_port(port)

    def open_port(self, node: str, port: int) -> None:
        self._nodes[node].open_port(port)

    def stop_sshd(self, node: str) -> None:
        """Connections are refused; logins that are there go on."""
        self._sshds[node].stop()

    def start_sshd(self, node: str) -> None:
        self._sshds[node].start()

    def change_host_key(self, node: str) -> None:
        """The host is not the one any longer that ssh knows."""
        self._sshds[node].change_host_key()

    def processes(self, marker: str) -> set[int]:
        """Ids of all processes, on this machine and the hosts, that were started with `marker`, a `NAME=value`, in
        their environment; no zombies."""
        return processes.marked(marker)

    def processes_on(self, node: str, marker: str) -> set[int]:
        """Those of `processes` that are on this host."""
        return processes.marked(marker) & self._nodes[node].pids()

    def all_processes_on(self, node: str) -> set[int]:
        """Ids of all processes on this host but the sshd that lets others in."""
        return self._nodes[node].pids() - {self._sshds[node].pid}

    def kill_processes(self, node: str, marker: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to those of `processes_on`."""
        processes.signal_all(self.processes_on(node, marker), signum)

    def _build(self) -> None:
        directory = self._session.directory
        # Mounts that come later are seen on the hosts, which have mount namespaces of their own.
        command("mount", "--bind", directory, directory)
        command("mount", "--make-shared", directory)
        self._build_network()
        identity = directory / "key"
        make_key(identity)
        authorized_keys = identity.with_suffix(".pub")
        for name, node in self._nodes.items():
            self._sshds[name] = Sshd(node, directory / name, authorized_keys)
        self._known_hosts = directory / "known_hosts"
        self._ssh_config = directory / "ssh_config"
        self._ssh_config.write_text(client_config(self._nodes.values(), identity, self._known_hosts))
        self.restore()
        self._log_in()

    def _build_network(self) -> None:
        network = self._session.addresses()
        launcher, *addresses = itertools.islice(network.hosts(), 1 + len(NODES))
        self.launcher_address = str(launcher)
        self.hosts = dict(zip(NODES, map(str, addresses), strict=True))
        names = {socket.gethostname(): self.launcher_address, **self.hosts}
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        etc_hosts = "\n".join(lines) + "\n"
        bridge = self._session.name("bridge")
        command("ip", "link", "add", bridge, "type", "bridge")
        command("ip", "address", "add", f"{launcher}/{network.prefixlen}", "dev", bridge)
        command("ip", "link", "set", bridge, "up")
        for name, address in self.hosts.items():
            node = Node(name, f"{address}/{network.prefixlen}", self._session.name(name), etc_hosts)
            node.plug_into(bridge)
            self._nodes[name] = node

    def _close(self) -> None:
        for sshd in self._sshds.values():
            sshd.stop()
        for node in self._nodes.values():
            node.forget_host_name()
        self._session.close()

    def _log_in(self) -> None:
        for name, sshd in self._sshds.items():
            words = ["ssh", *self.ssh_options, "-oBatchMode=yes", "-oConnectTimeout=10", name, "true"]
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise TestbedError(f"ssh cannot log in on {name}: {done.stderr}{sshd.log.read_text()}")

    def _new_path(self, kind: str) -> Path:
        return self._session.directory / f"{kind}-{next(self._numbers)}"


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise TestbedError("the testbed needs root, since it makes network namespaces")
    if missing := [program for program in _PROGRAMS if not shutil.which(program)]:
        raise TestbedError(f"not installed: {', '.join(missing)}; `make test-cluster` installs them")
