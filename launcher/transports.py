"""How the agents are started and talked to: on this machine, by ssh, by pdsh, by srun."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from launcher.hosts import Node
from launcher.line_io import LineReader, LineWriter
from launcher.remote import ssh_command, ssh_words
from ligo_dist.config.cluster import Cluster

_END_SECONDS = 10.0
"""How long a connection may take to end by itself when all has been said."""

_STALE = 10
"""Times `lost_seconds`: a launcher that has written nothing for so long is no more."""

_AGENT = ("-u", "-m", "launcher.agent")


class Channel:
    """A process that runs the agents of one or more nodes, and the way to talk to them.

    Attributes:
        nodes: numbers of the nodes behind it.
        process: the process; its standard output has the agents' events.
        events, noise: the lines of its standard output and error.
    """

    def __init__(self, argv: Sequence[str], nodes: Sequence[int], console: int | None = None) -> None:
        self.nodes = tuple(nodes)
        # A process group of its own: Ctrl-C on the terminal is for the launcher, which then tells the agents.
        self.process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            pass_fds=() if console is None else (console,),
        )
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.events, self.noise = LineReader(self.process.stdout), LineReader(self.process.stderr)
        self._orders = LineWriter(self.process.stdin)

    def send(self, line: str) -> None:
        """Say a line to all nodes behind it; it is kept while it cannot be written."""
        self._orders.write(line)

    def flush(self) -> None:
        self._orders.flush()

    def kill(self) -> None:
        """End the connection, and with it the agents where it ends at all."""
        with suppress(ProcessLookupError):
            self.process.kill()

    def close(self) -> None:
        """Wait for the process, and let go of its pipes."""
        self._orders.close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class FileChannel(Channel):
    """A channel whose agents read a file, since nothing takes our words to their standard input.

    The file holds the job, and with it secrets: only its owner may read it, and it goes when the channel is closed.
    """

    def __init__(self, argv: Sequence[str], nodes: Sequence[int], path: Path) -> None:
        self._path = path
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        super().__init__(argv, nodes)

    def send(self, line: str) -> None:
        with suppress(OSError):
            self._file.write(line.encode())

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()
        super().close()


class Transport(Protocol):
    """Starts the agents of some nodes."""

    is_local: bool
    """Whether the ranks run on this machine and inherit the launcher's environment."""

    def start(self, nodes: Sequence[Node], console: int | None) -> list[Channel]:
        """Start an agent on each node; together the channels cover them all."""
        ...


class LocalTransport:
    """This machine alone."""

    is_local = True

    def __init__(self, number: int = 0) -> None:
        """`number`: of this node, where others are started by somebody else."""
        self._number = number

    def start(self, nodes: Sequence[Node], console: int | None) -> list[Channel]:
        argv = [sys.executable, *_AGENT, str(self._number)]
        return [Channel(argv, [self._number], console)]


class SshTransport:
    """One `ssh` for each node."""

    is_local = False

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def start(self, nodes: Sequence[Node], console: int | None) -> list[Channel]:
        return [
            Channel(ssh_command(self._cluster, node.name, agent_words(self._cluster, str(number))), [number])
            for number, node in enumerate(nodes)
        ]


class PdshTransport:
    """One `pdsh` for all nodes. It passes no standard input on, so the agents read a file of the run directory."""

    is_local = False

    def __init__(self, cluster: Cluster, run_dir: Path) -> None:
        self._cluster, self._run_dir = cluster, run_dir

    def start(self, nodes: Sequence[Node], console: int | None) -> list[Channel]:
        self._remove_stale()
        directory = Path(tempfile.mkdtemp(prefix=".launch-", dir=self._run_dir))
        messages = directory / "messages"
        argv = pdsh_command(self._cluster, [node.name for node in nodes], messages.absolute())
        return [_InDirectory(argv, range(len(nodes)), messages)]

    def _remove_stale(self) -> None:
        """Remove what a killed launcher has left, secrets among it: one that lives writes a beat every few seconds."""
        for messages in self._run_dir.glob(".launch-*/messages"):
            if time.time() - messages.stat().st_mtime > _STALE * self._cluster.lost_seconds:
                shutil.rmtree(messages.parent)


class _InDirectory(FileChannel):
    """A file channel with a directory of its own."""

    def close(self) -> None:
        super().close()
        self._path.parent.rmdir()


class SrunTransport:
    """One `srun` for all nodes of an allocation; it passes our words on to every agent."""

    is_local = False

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def start(self, nodes: Sequence[Node], console: int | None) -> list[Channel]:
        argv = srun_command(self._cluster, [node.name for node in nodes])
        return [Channel(argv, range(len(nodes)))]


def agent_words(cluster: Cluster, number: str, *options: str) -> list[str]:
    """The agent's command on another machine, in the working directory there. It holds nothing secret."""
    python = cluster.python or sys.executable
    words = [python, *_AGENT, number, *options]
    directory = cluster.directory or os.getcwd()
    return ["sh", "-c", f"cd {shlex.quote(directory)} && exec {shlex.join(words)}"]


def pdsh_command(cluster: Cluster, hosts: Sequence[str], messages: Path) -> list[str]:
    """`pdsh` with our options of ssh. Its `%h` becomes each host's name."""
    remote = shlex.join(agent_words(cluster, "%h", "--messages", str(messages)))
    ssh = shlex.join(ssh_words(cluster))
    # -N: no host name before each line; -S: the exit code is the remote ones' largest.
    pdsh = ["pdsh", "-S", "-N", "-R", "ssh", "-f", str(max(32, len(hosts))), "-w", ",".join(hosts), remote]
    return ["env", f"PDSH_SSH_ARGS_APPEND={ssh}", *pdsh]


def srun_command(cluster: Cluster, hosts: Sequence[str]) -> list[str]:
    """`srun` with one agent on each node. The ranks' environment is not among its arguments."""
    count = str(len(hosts))
    return [
        "srun",
        f"--nodes={count}",
        f"--ntasks={count}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(hosts)}",
        "--kill-on-bad-exit=0",
        "--unbuffered",
        "--input=all",
        "--export=ALL",
        *agent_words(cluster, "slurm"),
    ]
