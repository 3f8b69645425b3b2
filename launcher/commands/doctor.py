"""`ligo-dist doctor`: check all machines of a run, and start nothing."""

from __future__ import annotations

import argparse

from launcher.arguments import add_config, add_hosts, positive, read_config
from launcher.command import next_port
from launcher.commands.run import choose_and_check
from launcher.doctor import run_preflight
from ligo_dist.runtime.errors import FINISHED, MISTAKE


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="check all machines of a run, and start nothing")
    add_config(parser)
    add_hosts(parser)
    parser.add_argument("--slurm", action="store_true", help="the nodes of the Slurm allocation this is in")
    parser.add_argument("--nproc", type=positive, metavar="N", help="ranks, where there is no host file")


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    fleet, plan = choose_and_check(arguments, config)
    report = run_preflight(fleet, plan, next_port(fleet, fleet.directory / config.run_dir))
    report.print()
    return MISTAKE if report.failures else FINISHED
