"""The model families that can be grown. Adding one is adding a table: see `table.py` for how it is written."""

from ligo_dist.architectures.families import architecture_names, get_architecture
from ligo_dist.architectures.table import (
    Architecture,
    Axis,
    Dim,
    ModelShape,
    Objective,
    ParameterSpec,
    Segment,
)

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
