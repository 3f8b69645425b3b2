"""`ligo-dist doctor`: check all machines of a run, and start nothing."""

from __future__ import annotations

import argparse

from launcher.accelerators import count_accelerators
from launcher.arguments import add_config, add_hosts, positive, read_config
from launcher.command import free_port
from launcher.doctor import run_preflight
from launcher.fleet import FIRST_PORT, choose_fleet
from launcher.preflight import check_before_start
from ligo_dist.errors import LigoError
from ligo_dist.exit_codes import FINISHED, MISTAKE


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="check all machines of a run, and start nothing")
    add_config(parser)
    add_hosts(parser)
    parser.add_argument("--slurm", action="store_true", help="the nodes of the Slurm allocation this is in")
    parser.add_argument("--nproc", type=positive, metavar="N", help="ranks, where there is no host file")


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    num_accelerators = count_accelerators()
    fleet = choose_fleet(config, slurm=arguments.slurm, nproc=arguments.nproc, accelerators=num_accelerators)
    is_here = fleet.transport.is_local
    if is_here and len(fleet.nodes) > 1:
        raise LigoError(
            "the environment says that somebody else starts the other nodes; no host can be checked from here"
        )
    # Other machines say themselves what accelerators they have.
    check_before_start(config, fleet.world_size, num_accelerators if is_here else None, arguments.config)
    report = run_preflight(
        fleet.nodes,
        config,
        arguments.config,
        config.cluster,
        fleet.meeting_address(config.cluster),
        config.cluster.master_port or (free_port() if is_here else FIRST_PORT),
        fleet.remote,
    )
    report.print()
    return MISTAKE if report.failures else FINISHED
