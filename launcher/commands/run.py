"""`ligo-dist run`: take a configuration through all its stages, or resume where it stopped."""

from __future__ import annotations

import argparse

from launcher.arguments import add_config, add_hosts, port, positive, read_config
from launcher.command import next_port, shown, start_command
from launcher.doctor.probe import capabilities
from launcher.fleet import Fleet, choose_fleet
from launcher.preflight import check_before_start
from launcher.signals import leave_when_warned
from launcher.supervisor import Supervisor
from ligo_dist.config import Config, begun_directories, load_config, recorded_precision, resolve_precision
from ligo_dist.runtime.apart import close_apart
from ligo_dist.runtime.errors import FINISHED, LigoError
from ligo_dist.runtime.machine import count_accelerators, has_native_bf16, processor_flags
from ligo_dist.schedule import Plan


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
    fleet, plan = choose_and_check(arguments, config, asks_for_models=arguments.dry_run)
    if not arguments.dry_run:
        return start(arguments, plan, fleet)
    from launcher.tables import print_plan

    precision = _precision(config, fleet)
    print_plan(plan)
    if precision is not None:
        print(precision)
    meeting = (fleet.meeting_address, next_port(fleet, fleet.directory / config.run_dir))
    command = start_command(fleet, meeting, [arguments.config, *arguments.overrides])
    print(f"\nthe command (number of ranks: {fleet.world_size}):\n{shown(command)}\n\nnothing was started")
    return FINISHED


def choose_and_check(
    arguments: argparse.Namespace, config: Config, *, asks_for_models: bool = True
) -> tuple[Fleet, Plan]:
    """The nodes that were asked for, and the plan of the configuration, which is held against them and this machine."""
    num_accelerators = count_accelerators()
    fleet = choose_fleet(
        config.cluster, slurm=arguments.slurm, nproc=arguments.nproc, accelerators=num_accelerators
    )
    # Of other machines the preflight will say what they have.
    here = num_accelerators if fleet.is_here else None
    plan = check_before_start(
        config, fleet.world_size, here, arguments.config, asks_for_models=asks_for_models
    )
    return fleet, plan


def _precision(config: Config, fleet: Fleet) -> str | None:
    """What `precision: auto` comes to; None where the configuration says it.

    Raises:
        ConfigError: the configuration asks for what cannot be had in that precision.
    """
    recorded = recorded_precision(begun_directories(config, fleet.directory))
    if config.precision == "auto" and recorded is None and not fleet.is_here:
        return "precision: bf16 if it is native to every host, else fp32"
    on_processors = count_accelerators() == 0
    native = has_native_bf16(processor_flags(), capabilities(), on_processors=on_processors)
    return resolve_precision(config, [native], recorded)[1]


def start(arguments: argparse.Namespace, plan: Plan, fleet: Fleet) -> int:
    """Take a run to its end, or as far as it gets; its exit code."""
    close_apart()
    # As it was written: what the model of `from` says the ranks look up themselves.
    config = load_config(arguments.config, arguments.overrides, arguments.cluster)
    run_dir = fleet.directory / config.run_dir
    if fleet.cluster.preflight and not arguments.no_preflight:
        from launcher.doctor import run_preflight

        run_preflight(fleet, plan, next_port(fleet, run_dir)).raise_if_failed()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LigoError(f"run_dir: {config.run_dir!r} cannot be made: {error.strerror}") from None
    return Supervisor(config, fleet).run()
