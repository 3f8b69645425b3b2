"""`ligo-dist methods`: the ways to grow."""

from __future__ import annotations

import argparse

from launcher.tables import print_methods


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    commands.add_parser("methods", help="list the ways to grow, what each preserves and where it is from")


def run(_arguments: argparse.Namespace) -> int:
    print_methods()
    return 0
