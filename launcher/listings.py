"""What `ligo-dist architectures` and `ligo-dist methods` print."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from ligo_dist.architectures import Architecture, Axis, ModelShape, architecture_names, get_architecture
from ligo_dist.growth.names import DEPTHS, METHODS, WIDTHS, Entry  # noqa: TID251 - names alone: no torch

_WIDEST = 1000
_SCOPES = {"model": "whole model", "layer": "each layer", "fixed": "never grows"}


def print_architectures() -> None:
    """All families of the package, with their axes by the scope of their operators."""
    table = _table("family", "model class", "objective", *(f"axes: {words}" for words in _SCOPES.values()))
    for name in architecture_names():
        architecture = get_architecture(name)
        axes = [_axes_of_scope(architecture, scope) for scope in _SCOPES]
        table.add_row(name, architecture.model_class, architecture.objective, *axes)
    _print(table)
    print("(heads): whole heads are mixed. More of one family: ligo-dist architectures NAME")


def print_architecture(name: str) -> None:
    """One family: its axes, and the table of its parameters.

    Raises:
        ArchitectureError: for a family that is not known, or `module:NAME` that is none.
    """
    architecture = get_architecture(name)
    print(f"{architecture.name}: {architecture.model_class}, {architecture.objective}")
    axes = _table("axis", "operator for", "it mixes", "remarks")
    for axis in architecture.axes.values():
        mixes = "-" if axis.scope == "fixed" else {"element": "elements", "head": "whole heads"}[axis.unit]
        axes.add_row(axis.name, _SCOPES[axis.scope], mixes, ", ".join(_remarks(axis)))
    _print(axes)
    parameters = _table("parameter", "axes of its dims")
    for role, line in architecture.table(_any_shape(architecture)).items():
        parameters.add_row(role, line)
    _print(parameters)


def print_methods() -> None:
    """The methods, then what `grow.depth` and `grow.width` may name."""
    methods = _table("method", "depth", "width", "what it does", "keeps the function", "source")
    for name, method in METHODS.items():
        depth, width = method.depth or "-", method.width or "-"
        methods.add_row(name, depth, width, method.description, method.preserves, method.source)
    _print(methods)
    _print(_ways("depth", DEPTHS))
    _print(_ways("width", WIDTHS))


def _ways(kind: str, entries: Mapping[str, Entry]) -> Table:
    table = _table(kind, "what it does", "keeps the function", "source")
    for name, entry in entries.items():
        table.add_row(name, entry.description, entry.preserves, entry.source)
    return table


def _axes_of_scope(architecture: Architecture, scope: str) -> str:
    axes = [axis for axis in architecture.axes.values() if axis.scope == scope]
    return ", ".join(f"{axis.name} (heads)" if axis.unit == "head" else axis.name for axis in axes)


def _remarks(axis: Axis) -> list[str]:
    remarks = [f"{axis.lifted_from}, repeated per query head"] if axis.lifted_from else []
    remarks += ["ordered by key/value group"] if axis.grouped else []
    return remarks + (["acted on element by element"] if axis.elementwise else [])


def _any_shape(architecture: Architecture) -> ModelShape:
    """The lines of a table depend on no size, only on whether the head is tied."""
    return ModelShape(1, 1, 1, 1, 1, tied=architecture.tied_by_default)


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for index, name in enumerate(names):
        table.add_column(name, no_wrap=index == 0, overflow="fold")
    return table


def _print(table: Table) -> None:
    """On a terminal as wide as that is; elsewhere, where lines are searched, as wide as the table is."""
    Console(width=None if sys.stdout.isatty() else _WIDEST, markup=False).print(table)
