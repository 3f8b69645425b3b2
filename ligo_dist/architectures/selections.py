"""Which of a family's parameters something is said of; without torch."""

from __future__ import annotations

from collections.abc import Callable

from ligo_dist.architectures.table import ParameterSpec

Selection = Callable[[ParameterSpec], bool]


def every_parameter(spec: ParameterSpec) -> bool:
    """The selection of all."""
    return True


def no_block_matrix(spec: ParameterSpec) -> bool:
    """The selection of all but the matrices of the blocks, as of Muon's second moments."""
    return not spec.is_block_matrix
