"""`ligo-dist run`: take a configuration through all its stages, or resume where it stopped."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from launcher.accelerators import count_accelerators
from launcher.arguments import add_config, add_hosts, port, positive, read_config
from launcher.command import command_by_hand, free_port
from launcher.environment import ranks_environment
from launcher.fleet import FIRST_PORT, Fleet, choose_fleet
from launcher.preflight import check_before_start, vocabulary_size
from launcher.signals import leave_when_warned
from launcher.supervisor import Launch, Supervisor
from ligo_dist.config import Config
from ligo_dist.errors import LigoError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run", help="take a configuration through all its stages, or resume where it stopped"
    )
    add_config(parser)
    add_start(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print stages and command, start nothing"
    )


def add_start(parser: argparse.ArgumentParser) -> None:
    """Where and how the ranks are started."""
    add_hosts(parser)
    parser.add_argument(
        "--slurm", action="store_true", help="on the nodes of the Slurm allocation this is in"
    )
    parser.add_argument(
        "--nproc",
        type=positive,
        metavar="N",
        help="ranks on each node (default: one per accelerator, else one)",
    )
    parser.add_argument(
        "--master-port", type=port, metavar="P", help="TCP port of the ranks (default: a free one)"
    )
    parser.add_argument(
        "--no-preflight", action="store_true", help="do not check the hosts before the launch"
    )


@leave_when_warned()
def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    fleet = choose_and_check(arguments, config)
    if arguments.dry_run:
        _show_plan(config, fleet.world_size)
        launch = _launch(arguments, config, fleet)
        by_hand = command_by_hand(launch, fleet, arguments.hostfile or config.cluster.hostfile)
        print(f"\nby hand (number of ranks: {fleet.world_size}):\n{by_hand}\n\nnothing was started")
        return 0
    return start(arguments, config, fleet)


def choose_and_check(arguments: argparse.Namespace, config: Config) -> Fleet:
    """The nodes that were asked for, the configuration held against them and this machine."""
    num_accelerators = count_accelerators()
    fleet = choose_fleet(config, slurm=arguments.slurm, nproc=arguments.nproc, accelerators=num_accelerators)
    # Of other machines the preflight will say what they have.
    check_before_start(
        config, fleet.world_size, num_accelerators if fleet.transport.is_local else None, arguments.config
    )
    return fleet


def start(arguments: argparse.Namespace, config: Config, fleet: Fleet) -> int:
    """Take a run to its end, or as far as it gets; its exit code."""
    launch = _launch(arguments, config, fleet)
    if fleet.can_be_asked and config.cluster.preflight and not arguments.no_preflight:
        _preflight(launch, config, fleet)
    try:
        launch.run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LigoError(f"run_dir: {str(launch.run_dir)!r} cannot be made: {error.strerror}") from None
    return Supervisor(launch, fleet.transport, fleet.reachable).run()


def _launch(arguments: argparse.Namespace, config: Config, fleet: Fleet) -> Launch:
    cluster = config.cluster
    directory = Path(cluster.directory or os.getcwd())
    given_port = arguments.master_port or cluster.master_port or fleet.master_port
    is_here = fleet.transport.is_local
    return Launch(
        config=arguments.config,
        overrides=tuple(arguments.overrides),
        cluster=cluster if fleet.restarts else cluster.model_copy(update={"max_restarts": 0}),
        directory=directory,
        run_dir=Path(cluster.directory or "", config.run_dir),
        nodes=tuple(fleet.nodes),
        environment=ranks_environment(cluster, os.environ, everything=is_here),
        master_address=fleet.meeting_address(cluster),
        master_port=given_port or (free_port() if is_here else FIRST_PORT),
        port_is_given=given_port is not None,
        console=os.dup(sys.stdout.fileno()) if is_here and sys.stdout.isatty() else None,
    )


def _preflight(launch: Launch, config: Config, fleet: Fleet) -> None:
    from launcher.doctor import run_preflight

    report = run_preflight(
        launch.nodes,
        config,
        launch.config,
        launch.cluster,
        launch.master_address,
        launch.master_port,
        fleet.remote,
    )
    report.raise_if_failed()


def _show_plan(config: Config, num_ranks: int) -> None:
    from launcher.dry_run import print_plan
    from launcher.plan import plan_stages

    print_plan(plan_stages(config, vocabulary_size(config), num_ranks))
