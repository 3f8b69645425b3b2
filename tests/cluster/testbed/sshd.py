"""The sshd of a host, and what a client needs to log in."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from testbed.node import Node
from testbed.session import TestbedError, command

SSHD = "/usr/sbin/sshd"
_PRIVILEGE_SEPARATION = Path("/run/sshd")  # compiled in; Debian's service makes it when it starts

_SERVER = """
ListenAddress {address}
Port 22
HostKey {host_key}
PidFile {pid_file}
AuthorizedKeysFile {authorized_keys}
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PermitUserEnvironment no
PrintMotd no
UsePAM no
"""

_CLIENT = """
Host {name}
    HostName {address}
    Port 22
    User root
    IdentityFile {identity}
    IdentitiesOnly yes
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""


class Sshd:
    """The server of a node; not started yet.

    Args:
        directory: where its files are; made here.
        authorized_keys: who may log in as root.
    """

    def __init__(self, node: Node, directory: Path, authorized_keys: Path) -> None:
        self._node = node
        self._host_key = directory / "host_key"
        self._config = directory / "sshd_config"
        self._pid_file = directory / "sshd.pid"
        self.log = directory / "sshd.log"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        make_key(self._host_key)
        self._config.write_text(
            _SERVER.format(
                address=node.address,
                host_key=self._host_key,
                pid_file=self._pid_file,
                authorized_keys=authorized_keys,
            )
        )

    @property
    def pid(self) -> int | None:
        """Id of the process that waits for connections; each login has one of its own."""
        return self._process.pid if self._process else None

    def start(self, seconds: float = 10.0) -> None:
        """Returns when it takes connections, as it may do already.

        Raises:
            TestbedError: it does not within `seconds`; with what it says.
        """
        if self._process and self._process.poll() is None:
            return
        self._pid_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            words = self._node.words([SSHD, "-D", "-e", "-f", str(self._config)])
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + seconds
        while not self._pid_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise TestbedError(f"sshd of {self._node.name} does not start: {self.log.read_text()}")
            time.sleep(0.01)
        self._process = process

    def stop(self) -> None:
        """Take no connection any longer; those that are there go on."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def change_host_key(self) -> None:
        self.stop()
        make_key(self._host_key)
        self.start()

    def known_host(self) -> str:
        """The line of a `known_hosts` file for its present key."""
        key = self._host_key.with_suffix(".pub").read_text()
        return f"{self._node.name},{self._node.address} {key}"


def make_key(path: Path) -> None:
    """A pair of keys without a passphrase, `path` and `path`.pub, in the place of one that is there."""
    for old in (path, path.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)


def client_config(nodes: Iterable[Node], identity: Path, known_hosts: Path) -> str:
    """A configuration for `ssh -F`, which knows these hosts by their names alone."""
    return "".join(
        _CLIENT.format(name=node.name, address=node.address, identity=identity, known_hosts=known_hosts)
        for node in nodes
    )
