"""How a command is typed for another machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ligo_dist.config.cluster import Cluster

_CONNECT_SECONDS = 10


def ssh_words(cluster: Cluster) -> list[str]:
    """The options of ssh: it never asks, gives up soon, and notices when the other side is gone.

    The user's own come first, since ssh takes the first value it is given.
    """
    words = list(cluster.ssh_options)
    if cluster.ssh_port is not None:
        words += ["-p", str(cluster.ssh_port)]
    # Three probes that stay without an answer end the connection.
    alive = max(1, int(cluster.lost_seconds) // 3)
    return [
        *words,
        "-T",
        "-oBatchMode=yes",
        f"-oConnectTimeout={_CONNECT_SECONDS}",
        f"-oServerAliveInterval={alive}",
        "-oServerAliveCountMax=3",
        "-oLogLevel=ERROR",
    ]


def ssh_command(cluster: Cluster, host: str, argv: Sequence[str]) -> list[str]:
    """`argv` on another machine, through ssh. Nothing secret belongs into it: `ps` shows it on both machines."""
    return ["ssh", *ssh_words(cluster), host, shlex.join(argv)]


def srun_one_command(host: str, argv: Sequence[str]) -> list[str]:
    """`argv` on one node of the allocation, beside whatever else runs there."""
    return ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={host}", "--unbuffered", *argv]
