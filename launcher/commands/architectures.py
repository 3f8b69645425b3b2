"""`ligo-dist architectures`: the model families and their growth axes."""

from __future__ import annotations

import argparse

from launcher.tables import listing, print_listing
from ligo_dist.architectures import Architecture, Axis, ModelShape, architecture_names, get_architecture
from ligo_dist.runtime.errors import FINISHED

_SCOPES = {"model": "whole model", "layer": "each layer", "fixed": "never grows"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("architectures", help="list the model families and their growth axes")
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="show one: its axes and parameters; also package.module:NAME"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        _print_all()
    else:
        _print_one(get_architecture(arguments.name))
    return FINISHED


def _print_all() -> None:
    """All families of the package, with their axes by the scope of their operators."""
    table = listing("family", "model class", "objective", *(f"axes: {words}" for words in _SCOPES.values()))
    for name in architecture_names():
        architecture = get_architecture(name)
        axes = [_axes_of_scope(architecture, scope) for scope in _SCOPES]
        table.add_row(name, architecture.model_class, architecture.objective, *axes)
    print_listing(table)
    print("(heads): whole heads are mixed. More of one family: ligo-dist architectures NAME")


def _print_one(architecture: Architecture) -> None:
    """Its axes, and the table of its parameters."""
    print(f"{architecture.name}: {architecture.model_class}, {architecture.objective}")
    axes = listing("axis", "operator for", "it mixes", "remarks")
    for axis in architecture.axes.values():
        mixes = "-" if axis.scope == "fixed" else {"element": "elements", "head": "whole heads"}[axis.unit]
        axes.add_row(axis.name, _SCOPES[axis.scope], mixes, ", ".join(_remarks(axis)))
    print_listing(axes)
    parameters = listing("parameter", "axes of its dims")
    # The lines depend on no size, only on whether the head is tied.
    any_shape = ModelShape(1, 1, 1, 1, 1, tied=architecture.tied_by_default)
    for role, line in architecture.table(any_shape).items():
        parameters.add_row(role, line)
    print_listing(parameters)


def _axes_of_scope(architecture: Architecture, scope: str) -> str:
    axes = [axis for axis in architecture.axes.values() if axis.scope == scope]
    return ", ".join(f"{axis.name} (heads)" if axis.unit == "head" else axis.name for axis in axes)


def _remarks(axis: Axis) -> list[str]:
    remarks = [f"{axis.lifted_from}, repeated per query head"] if axis.lifted_from else []
    remarks += ["ordered by key/value group"] if axis.grouped else []
    return remarks + (["acted on element by element"] if axis.elementwise else [])
