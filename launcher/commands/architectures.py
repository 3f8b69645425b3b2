"""`ligo-dist architectures`: the model families and their growth axes."""

from __future__ import annotations

import argparse

from launcher.tables import print_architecture, print_architectures


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("architectures", help="list the model families and their growth axes")
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="show one: its axes and parameters; also package.module:NAME"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        print_architectures()
    else:
        print_architecture(arguments.name)
    return 0
