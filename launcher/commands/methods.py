"""`ligo-dist methods`: the ways to grow, then what `grow.depth` and `grow.width` may name."""

from __future__ import annotations

import argparse

from launcher.tables import listing, print_listing
from ligo_dist.growth import DEPTHS, METHODS, WIDTHS  # noqa: TID251 - names alone: no torch
from ligo_dist.runtime.errors import FINISHED


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    commands.add_parser("methods", help="list the ways to grow, what each preserves and where it is from")


def run(_arguments: argparse.Namespace) -> int:
    methods = listing("method", "depth", "width", "what it does", "keeps the function", "source")
    for name, method in METHODS.items():
        depth, width = method.depth or "-", method.width or "-"
        methods.add_row(name, depth, width, method.description, method.preserves, method.source)
    print_listing(methods)
    for kind, entries in (("depth", DEPTHS), ("width", WIDTHS)):
        table = listing(kind, "what it does", "keeps the function", "source")
        for name, entry in entries.items():
            table.add_row(name, entry.description, entry.preserves, entry.source)
        print_listing(table)
    return FINISHED
