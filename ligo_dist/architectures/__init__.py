"""The model families that can be grown. Adding one is adding a table: see `table.py` for how it is written."""

from __future__ import annotations

import difflib

from ligo_dist.architectures.gpt2 import GPT2
from ligo_dist.architectures.llama import LLAMA
from ligo_dist.architectures.table import (
    Architecture,
    Axis,
    Dim,
    ModelShape,
    Objective,
    ParameterSpec,
    Segment,
)
from ligo_dist.errors import ArchitectureError

__all__ = [
    "Architecture",
    "Axis",
    "Dim",
    "ModelShape",
    "Objective",
    "ParameterSpec",
    "Segment",
    "architecture_names",
    "get_architecture",
]

_ARCHITECTURES = {architecture.name: architecture for architecture in (GPT2, LLAMA)}


def architecture_names() -> tuple[str, ...]:
    return tuple(_ARCHITECTURES)


def get_architecture(name: str) -> Architecture:
    """Raises ArchitectureError for a family that is not known, with the nearest name."""
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    near = difflib.get_close_matches(name, _ARCHITECTURES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ArchitectureError(f"no model family {name!r}; there are {', '.join(_ARCHITECTURES)}{hint}")
