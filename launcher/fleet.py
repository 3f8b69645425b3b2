"""Which nodes a run is launched on, and how they are reached."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.given_nodes import GivenPlace, given_place
from launcher.hosts import Node, read_hostfile, select_nodes
from launcher.remote import RemoteCommand, srun_one_command, ssh_command
from launcher.slurm import allocated_nodes
from launcher.supervisor import ReachableNodes
from launcher.transports import LocalTransport, PdshTransport, SrunTransport, SshTransport, Transport
from ligo_dist.config import Config
from ligo_dist.config.cluster import Cluster
from ligo_dist.errors import LigoError

HERE = "127.0.0.1"
FIRST_PORT = 29500
"""Where ranks on several nodes meet if nobody says; the next attempt takes the next one."""


@dataclass(frozen=True)
class Fleet:
    """The nodes of a launch.

    Attributes:
        nodes: in the order of their ranks.
        transport: what starts the agents on them.
        reachable: says who of them is there.
        remote: how a single command is typed for one of them.
        restarts: whether a failed run may be started again from here; not where others start the other nodes.
        master_address, master_port: where the ranks meet, where that is given.
    """

    nodes: Sequence[Node]
    transport: Transport
    reachable: ReachableNodes
    remote: RemoteCommand = ssh_command
    restarts: bool = True
    master_address: str | None = None
    master_port: int | None = None

    def meeting_address(self, cluster: Cluster) -> str:
        """Where the ranks meet."""
        return self.master_address or cluster.master_address or self.nodes[0].name

    @property
    def can_be_asked(self) -> bool:
        """Whether a command can be run on all nodes; not where others start some of them."""
        return self.restarts

    @property
    def world_size(self) -> int:
        return sum(node.num_ranks for node in self.nodes)


def choose_fleet(
    config: Config,
    *,
    slurm: bool,
    nproc: int | None,
    accelerators: int,
    environ: Mapping[str, str] = os.environ,
) -> Fleet:
    """The nodes that the command line, the configuration and the environment ask for.

    Args:
        config: its `cluster` is read.
        slurm: take the nodes of the allocation.
        nproc: ranks on each node; None: one per accelerator.
        accelerators: of this machine.
        environ: where Slurm or an operator says which nodes there are.

    Raises:
        LigoError: they contradict each other, or a host file is wrong.
    """
    cluster = config.cluster
    if slurm:
        if cluster.hostfile is not None:
            raise LigoError(
                f"--slurm: the allocation says the hosts; drop cluster.hostfile: {cluster.hostfile!r}"
            )
        nodes = select_nodes(allocated_nodes(environ, nproc), cluster.include, cluster.exclude)
        return Fleet(nodes, SrunTransport(cluster), _all_of_them, srun_one_command)
    if cluster.hostfile is not None:
        if nproc is not None:
            raise LigoError(
                f"--nproc: {nproc}, but the slots in {cluster.hostfile!r} say how many ranks a host has"
            )
        nodes = select_nodes(read_hostfile(Path(cluster.hostfile)), cluster.include, cluster.exclude)
        if cluster.transport == "pdsh":
            shared = Path(cluster.directory or os.getcwd(), config.run_dir)
            return Fleet(nodes, PdshTransport(cluster, shared), _by_ssh)
        return Fleet(nodes, SshTransport(cluster), _by_ssh)
    for key, value in (("include", cluster.include), ("exclude", cluster.exclude)):
        if value is not None:
            raise LigoError(f"{key}: {value!r} chooses among the hosts of a host file; add --hostfile")
    devices = tuple(range(nproc or max(1, accelerators)))
    place = given_place(environ)
    if place is not None:
        return _given_fleet(place, devices)
    return Fleet([Node("localhost", devices)], LocalTransport(), _all_of_them, master_address=HERE)


def _given_fleet(place: GivenPlace, devices: tuple[int, ...]) -> Fleet:
    """This node among others that are started alike, each with as many ranks."""
    nodes = [Node(f"node {number}", devices) for number in range(place.count)]
    return Fleet(
        nodes,
        LocalTransport(place.number),
        _all_of_them,
        restarts=False,
        master_address=place.master_address,
        master_port=place.master_port,
    )


def _all_of_them(nodes: Sequence[Node], _cluster: Cluster) -> dict[str, str | None]:
    """Nodes that are there or not without our doing."""
    return dict.fromkeys((node.name for node in nodes), None)


def _by_ssh(nodes: Sequence[Node], cluster: Cluster) -> dict[str, str | None]:
    from launcher.doctor import reachable_nodes

    return reachable_nodes(nodes, cluster)
