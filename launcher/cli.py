"""The console script `ligo-dist`."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from launcher.accelerators import count_accelerators
from launcher.command import Command, compose_command, free_port
from launcher.preflight import check_before_start, vocabulary_size
from launcher.processes import run_in_group
from ligo_dist import __version__
from ligo_dist.config import Config, load_config
from ligo_dist.config.source import with_source_apart
from ligo_dist.errors import LigoError
from ligo_dist.result import LAUNCH_ID, has_finished

_EXAMPLES = """\
examples:
  ligo-dist run configs/quickstart.yaml --dry-run
  ligo-dist run configs/quickstart.yaml --nproc 2
  ligo-dist run configs/quickstart.yaml seed=1 'stages[1].train.steps=300' run_dir=runs/other
  ligo-dist architectures llama
  ligo-dist methods

Running again on the same run directory resumes. Every key is described in docs/configuration.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: the run finished; 2: a mistake in what was asked for; any other: the run failed or was
    stopped."""
    arguments = _parse(argv)
    try:
        return _COMMANDS[arguments.command](arguments)
    except LigoError as error:
        print(f"ligo-dist: {error}", file=sys.stderr)
        return error.exit_code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments with the overrides wherever they stand: argparse itself takes none that follow an option."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-")]
    if unknown:
        parser.error(f"unknown option: {' '.join(unknown)}")
    if rest and arguments.command != "run":
        parser.error(f"too many arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ligo-dist",
        description="Grow a small transformer into a large one and go on pre-training it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="take a configuration through all its stages, or resume where it stopped",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("config", metavar="CONFIG", help="the YAML file")
    run.add_argument(
        "overrides", metavar="key.path=value", nargs="*", help="written over the file; values are YAML"
    )
    run.add_argument(
        "--nproc", type=_positive, metavar="N", help="ranks (default: one per accelerator, else one)"
    )
    run.add_argument(
        "--master-port", type=_port, metavar="P", help="TCP port of the ranks (default: a free one)"
    )
    run.add_argument(
        "--dry-run", action="store_true", help="check everything, print stages and command, start nothing"
    )
    families = commands.add_parser("architectures", help="list the model families and their growth axes")
    families.add_argument(
        "name", metavar="NAME", nargs="?", help="show one: its axes and parameters; also package.module:NAME"
    )
    commands.add_parser("methods", help="list the ways to grow, what each preserves and where it is from")
    return parser


def _architectures(arguments: argparse.Namespace) -> int:
    from launcher.listings import print_architecture, print_architectures

    if arguments.name is None:
        print_architectures()
    else:
        print_architecture(arguments.name)
    return 0


def _methods(_arguments: argparse.Namespace) -> int:
    from launcher.listings import print_methods

    print_methods()
    return 0


def _run(arguments: argparse.Namespace) -> int:
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


_COMMANDS = {"run": _run, "architectures": _architectures, "methods": _methods}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number, at least 1")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} should be a port, from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
