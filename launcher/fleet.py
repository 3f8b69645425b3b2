"""Which nodes a run is launched on, and how they are reached."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from launcher.hosts import Node, read_hostfile, select_nodes
from launcher.slurm import allocated_nodes
from ligo_dist.config import Cluster
from ligo_dist.runtime.errors import LigoError

HERE = "127.0.0.1"
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Fleet:
    """The nodes of a launch.

    Attributes:
        nodes: in the order of their ranks.
        kind: this machine alone, the machines of a host file, or those of an allocation of Slurm.
        cluster: how they are reached, and what is done when one of them fails.
    """

    nodes: Sequence[Node]
    kind: Literal["here", "hosts", "allocation"]
    cluster: Cluster

    @property
    def is_here(self) -> bool:
        return self.kind == "here"

    @property
    def world_size(self) -> int:
        return sum(node.num_ranks for node in self.nodes)

    @property
    def directory(self) -> Path:
        """Where the ranks work."""
        return Path(self.cluster.directory or os.getcwd())

    @property
    def meeting_address(self) -> str:
        """Where the ranks meet."""
        return HERE if self.is_here else self.cluster.master_address or self.nodes[0].address

    def command_on(self, name: str, argv: Sequence[str]) -> list[str]:
        """A single command on the node of this name, beside whatever else runs there. Nothing secret belongs into it:
        `ps` shows it on both machines."""
        if self.kind == "allocation":
            where = ["--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={name}", "--unbuffered"]
            return ["srun", *where, *argv]
        if self.kind == "hosts":
            return ["ssh", *ssh_words(self.cluster), name, shlex.join(argv)]
        return ["sh", "-c", f"exec {shlex.join(argv)}"]  # a shell says of what is not there the same as ssh's

    def reachable(self) -> dict[str, str | None]:
        """Why each node cannot be reached; None: it can. Whom Slurm gives is there."""
        if self.kind != "hosts":
            return dict.fromkeys(node.name for node in self.nodes)
        from launcher.doctor import reachable_nodes

        return reachable_nodes(self)


def choose_fleet(
    cluster: Cluster,
    *,
    slurm: bool,
    nproc: int | None,
    accelerators: int,
    environ: Mapping[str, str] = os.environ,
) -> Fleet:
    """The nodes that the command line, the configuration and the environment ask for.

    Args:
        cluster: of the configuration.
        slurm: take the nodes of the allocation.
        nproc: ranks on each node; None: one per accelerator.
        accelerators: of this machine.
        environ: where Slurm says which nodes there are.

    Raises:
        LigoError: they contradict each other, a host file is wrong, or the ranks are somebody else's to start.
    """
    _refuse_ranks(environ)
    if slurm:
        if cluster.hostfile is not None:
            raise LigoError(
                f"--slurm: the allocation says the hosts; drop cluster.hostfile: {cluster.hostfile!r}"
            )
        nodes = select_nodes(allocated_nodes(environ, nproc), cluster.include, cluster.exclude)
        if len({node.num_ranks for node in nodes}) > 1:
            few = ", ".join(f"{node.num_ranks} on {node.name}" for node in nodes[:4])
            raise LigoError(
                f"--slurm: srun starts as many ranks on each node, and these would be {few}"
                f"{', ...' if len(nodes) > 4 else ''}; say --nproc, or choose whole nodes that are alike"
            )
        return Fleet(nodes, "allocation", cluster)
    if cluster.hostfile is not None:
        if nproc is not None:
            raise LigoError(
                f"--nproc: {nproc}, but the slots in {cluster.hostfile!r} say how many ranks a host has"
            )
        nodes = select_nodes(read_hostfile(Path(cluster.hostfile)), cluster.include, cluster.exclude)
        for node in nodes:
            if node.devices == tuple(range(node.num_ranks)):
                continue
            if cluster.launcher != "pdsh":
                raise LigoError(
                    f"include, exclude: {cluster.launcher} takes a host's first slots; choose whole hosts"
                )
            if re.search("[@:]", node.name):
                raise LigoError(
                    f"include, exclude: slots of {node.name}: DeepSpeed cuts its filters at `@` and `:`; choose the"
                    " whole host, or give it another name in ssh's configuration"
                )
        return Fleet(nodes, "hosts", cluster)
    for key, value in (("include", cluster.include), ("exclude", cluster.exclude)):
        if value is not None:
            raise LigoError(f"{key}: {value!r} chooses among the hosts of a host file; add --hostfile")
    return Fleet([Node("localhost", tuple(range(nproc or max(1, accelerators))))], "here", cluster)


def with_own_hostfile(fleet: Fleet, file: Path) -> Fleet:
    """The same with a host file of its nodes alone, which is written, in words that DeepSpeed and pdsh take as they are
    meant.

    Raises:
        OSError: it cannot be written.
    """
    with_pdsh, lines, gaps = fleet.cluster.launcher == "pdsh", [], []
    for node in fleet.nodes:
        # pdsh takes what stands before a colon for the way to reach a host.
        name = f"ssh:{node.name}" if with_pdsh and ":" in node.name else node.name
        slots = max(node.devices) + 1
        lines.append(f"{name} slots={slots}\n")
        unused = [str(slot) for slot in range(slots) if slot not in node.devices]
        gaps += [f"{name}:{','.join(unused)}"] if unused else []
    file.write_text("".join(lines), encoding="utf-8")
    own = {"hostfile": str(file), "include": None, "exclude": "@".join(gaps) or None}
    return replace(fleet, cluster=fleet.cluster.model_copy(update=own))


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


def _refuse_ranks(environ: Mapping[str, str]) -> None:
    """An operator of Kubernetes, or torchrun, starts a process on each node: nothing of ours need start its ranks."""
    for name in ("LOCAL_RANK", "PET_NNODES", "WORLD_SIZE"):
        many = name == "LOCAL_RANK" or environ.get(name, "1") not in ("", "1")
        if name in environ and many:
            raise LigoError(
                f"{name}: is {environ[name]!r}, so somebody else starts the ranks here, and `ligo-dist run` starts them"
                " itself; run `python -m ligo_dist CONFIG` as each rank, or `torchrun ... -m ligo_dist CONFIG`"
                " on each node"
            )
