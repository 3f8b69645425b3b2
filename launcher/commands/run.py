"""`ligo-dist run`: take a configuration through all its stages, or resume where it stopped."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from pathlib import Path

from launcher.accelerators import count_accelerators
from launcher.arguments import add_config, port, positive
from launcher.command import Command, compose_command, free_port
from launcher.preflight import check_before_start, vocabulary_size
from launcher.processes import run_in_group
from ligo_dist.config import Config, load_config
from ligo_dist.config.source import with_source_apart
from ligo_dist.errors import LigoError
from ligo_dist.result import LAUNCH_ID, has_finished


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run", help="take a configuration through all its stages, or resume where it stopped"
    )
    add_config(parser)
    parser.add_argument(
        "--nproc", type=positive, metavar="N", help="ranks (default: one per accelerator, else one)"
    )
    parser.add_argument(
        "--master-port", type=port, metavar="P", help="TCP port of the ranks (default: a free one)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print stages and command, start nothing"
    )


def run(arguments: argparse.Namespace) -> int:
    num_accelerators = count_accelerators()
    num_ranks = arguments.nproc or max(1, num_accelerators)
    config = with_source_apart(load_config(arguments.config, arguments.overrides), arguments.config)
    check_before_start(config, num_ranks, num_accelerators, arguments.config)
    command = compose_command(
        arguments.config,
        arguments.overrides,
        num_ranks=num_ranks,
        master_port=arguments.master_port or free_port(),
        num_accelerators=num_accelerators,
    )
    if arguments.dry_run:
        _show_plan(config, num_ranks)
        print(f"\nthe command (number of ranks: {num_ranks}):\n{command}\n\nnothing was started")
        return 0
    print(f"{command}\n", flush=True)
    return _launch(command, Path(config.run_dir))


def _show_plan(config: Config, num_ranks: int) -> None:
    from launcher.dry_run import print_plan
    from launcher.plan import plan_stages

    print_plan(plan_stages(config, vocabulary_size(config), num_ranks))


def _launch(command: Command, run_dir: Path) -> int:
    """Run the command, and believe its exit code 0 only if the worker has left the result of this very
    launch."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LigoError(f"run_dir: {str(run_dir)!r} cannot be made: {error.strerror}") from None
    launch_id = uuid.uuid4().hex
    code = run_in_group(command.argv, {**os.environ, **command.environment, LAUNCH_ID: launch_id})
    if code == 0 and not has_finished(run_dir, launch_id):
        print(
            "ligo-dist: deepspeed ended without an error, but the run did not report its end: one of its"
            " processes was killed (out of memory?). The same command resumes from the last checkpoint.",
            file=sys.stderr,
        )
        return 1
    return code
