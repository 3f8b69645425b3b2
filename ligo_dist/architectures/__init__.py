"""The model families that can be grown. Adding one is adding a table: see `table.py` for how it is written."""

from ligo_dist.architectures.families import architecture_names, architecture_of_class, get_architecture
from ligo_dist.architectures.llama import CONFIG_KEYS, LLAMA
from ligo_dist.architectures.selections import Selection, every_parameter, no_block_matrix
from ligo_dist.architectures.table import (
    LAYER,
    Architecture,
    Axis,
    Dim,
    ModelShape,
    Objective,
    ParameterSpec,
    Segment,
    fits_attribute,
    is_dropout,
)

__all__ = [
    "CONFIG_KEYS",
    "LAYER",
    "LLAMA",
    "Architecture",
    "Axis",
    "Dim",
    "ModelShape",
    "Objective",
    "ParameterSpec",
    "Segment",
    "Selection",
    "architecture_names",
    "architecture_of_class",
    "every_parameter",
    "fits_attribute",
    "get_architecture",
    "is_dropout",
    "no_block_matrix",
]
