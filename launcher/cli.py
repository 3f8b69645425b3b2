"""The console script `ligo-dist`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from launcher.arguments import refuse_secrets
from launcher.commands import (
    architectures,
    compare,
    doctor,
    evaluate,
    methods,
    plan,
    report,
    run,
    submit,
    sync,
)
from ligo_dist import __version__
from ligo_dist.runtime.apart import close_apart
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.redaction import redact

_COMMANDS = {
    "run": run,
    "plan": plan,
    "compare": compare,
    "doctor": doctor,
    "submit": submit,
    "sync": sync,
    "report": report,
    "evaluate": evaluate,
    "architectures": architectures,
    "methods": methods,
}

_EXAMPLES = """\
examples:
  ligo-dist run configs/quickstart.yaml --dry-run
  ligo-dist run configs/quickstart.yaml --nproc 2
  ligo-dist run configs/quickstart.yaml seed=1 'stages[1].train.steps=300' run_dir=runs/other
  ligo-dist compare configs/compare_quick.yaml --methods scratch,stack,ligo --seeds 3
  ligo-dist doctor configs/quickstart.yaml --hostfile hosts
  ligo-dist sync runs/quickstart
  ligo-dist plan configs/llama_70b.yaml --gpus 1024 --gpu h100
  ligo-dist report runs/grown runs/scratch --baseline runs/scratch
  ligo-dist evaluate runs/quickstart --tasks lambada_openai
  ligo-dist architectures llama
  ligo-dist methods

Running again on the same run directory resumes. Every key is described in docs/configuration.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: the run finished; 2: a mistake in what was asked for; any other: the run failed or was
    stopped."""
    arguments = _parse(argv)
    try:
        refuse_secrets(getattr(arguments, "overrides", ()))
        return _COMMANDS[arguments.command].run(arguments)
    except LigoError as error:
        print(f"ligo-dist: {redact(str(error))}", file=sys.stderr)
        return error.exit_code
    finally:
        close_apart()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments with the overrides wherever they stand: argparse itself takes none that follow an option."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-")]
    if unknown:
        parser.error(f"unknown option: {' '.join(unknown)}")
    if rest and not hasattr(arguments, "overrides"):
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
    for command in _COMMANDS.values():
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
