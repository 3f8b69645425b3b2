"""The growth operator of one pair of models: which matrices it has, and how they make each target parameter.

The operator's parameters, by name:

    hidden.out, hidden.in, ...          one per side that the family's table uses (whole model)
    layers.{l}.query.out, ...           the same per target layer
    layers.{l}.depth                    depth coefficients of target layer l: roles x source layers

Tied (the paper), every side of an axis uses its `out` matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ligo_dist.architectures import Architecture, ModelShape, ParameterSpec, Segment
from ligo_dist.errors import ArchitectureError
from ligo_dist.growth.algebra import AxisMap, DimMap, SegmentMap, expand_width, mix_depth


@dataclass(frozen=True)
class OperatorParameter:
    """One tensor of the operator.

    Attributes:
        name: see the module's docstring.
        shape: target units x source units, or roles x source layers for depth coefficients.
        axis: the growth axis, or None for depth coefficients.
        side: the side it serves, or None for depth coefficients.
        layer: target layer, or None where the whole model shares it.
    """

    name: str
    shape: tuple[int, int]
    axis: str | None
    side: str | None
    layer: int | None


@dataclass(frozen=True)
class Growth:
    """A pair of models of one family and the operator between them.

    Attributes:
        architecture: the family.
        source: shape of the model that is there.
        target: shape of the model to come.
        tied: one matrix for all sides of an axis (paper), or one per side.

    Raises:
        ArchitectureError: if the family does not allow this growth; the message says which size is at fault.
    """

    architecture: Architecture
    source: ModelShape
    target: ModelShape
    tied: bool

    def __post_init__(self) -> None:
        faults = growth_faults(self.source, self.target)
        if faults:
            raise ArchitectureError(f"{self.architecture.name} cannot grow so: " + "; ".join(faults))

    @cached_property
    def target_parameters(self) -> list[ParameterSpec]:
        return self.architecture.parameters(self.target)

    @cached_property
    def source_by_role(self) -> dict[str, ParameterSpec]:
        """The source's parameter of each role: the first layer's for roles of the blocks."""
        specs: dict[str, ParameterSpec] = {}
        for spec in self.architecture.parameters(self.source):
            specs.setdefault(spec.role, spec)
        return specs

    @cached_property
    def layer_roles(self) -> list[str]:
        return self.architecture.layer_roles(self.target)

    @cached_property
    def operator_parameters(self) -> list[OperatorParameter]:
        """All parameters of the operator, those of the whole model first, then layer by layer."""
        shared: dict[str, OperatorParameter] = {}
        layers: dict[str, OperatorParameter] = {}
        for spec in self.target_parameters:
            for segment in (segment for dim in spec.dims for segment in dim if segment.side):
                parameter = self._width_parameter(segment, spec.layer)
                (shared if parameter.layer is None else layers)[parameter.name] = parameter
        depth_shape = (len(self.layer_roles), self.source.layers)
        for layer in range(self.target.layers):
            name = self.depth_name(layer)
            layers[name] = OperatorParameter(name, depth_shape, None, None, layer)
        return [*shared.values(), *sorted(layers.values(), key=lambda p: p.layer or 0)]

    @staticmethod
    def depth_name(layer: int) -> str:
        return f"layers.{layer}.depth"

    def matrices_of(self, spec: ParameterSpec) -> set[str]:
        """Names of the width matrices that a target parameter is made with."""
        return {
            self._width_parameter(segment, spec.layer).name
            for dim in spec.dims
            for segment in dim
            if segment.side
        }

    def dim_maps(self, spec: ParameterSpec, matrices: Mapping[str, Tensor]) -> tuple[DimMap, ...]:
        """The maps that expand a source tensor of this parameter's role, dim by dim.

        Args:
            spec: the target parameter.
            matrices: operator parameters by name; those of `matrices_of(spec)` must be there.
        """
        return tuple(
            DimMap(
                segments=tuple(self._segment_map(segment, spec.layer, matrices) for segment in dim),
                source_sizes=tuple(segment.axis.size(self.source) for segment in dim),
                target_sizes=tuple(segment.axis.size(self.target) for segment in dim),
            )
            for dim in spec.dims
        )

    def grow_dense(self, source: Mapping[str, Tensor], operator: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every target parameter in plain dense maths, on one process: the oracle that the sharded path equals."""
        target = {}
        for spec in self.target_parameters:
            if spec.layer is None:
                mixed = source[spec.name]
            else:
                layers = [spec.role.format(layer=layer) for layer in range(self.source.layers)]
                depth_K = operator[self.depth_name(spec.layer)][self.layer_roles.index(spec.role)]
                mixed = mix_depth(depth_K, torch.stack([source[name] for name in layers]))
            target[spec.name] = expand_width(mixed, self.dim_maps(spec, operator))
        return target

    def _width_parameter(self, segment: Segment, layer: int | None) -> OperatorParameter:
        axis = segment.axis
        if axis.lifted_from:
            axis = self.architecture.axes[axis.lifted_from]
        side = "out" if self.tied else segment.side
        scope = layer if axis.scope == "layer" else None
        prefix = "" if scope is None else f"layers.{scope}."
        shape = (axis.units(self.target), axis.units(self.source))
        return OperatorParameter(f"{prefix}{axis.name}.{side}", shape, axis.name, side, scope)

    def _segment_map(self, segment: Segment, layer: int | None, matrices: Mapping[str, Tensor]) -> SegmentMap:
        axis = segment.axis
        if segment.side is None:
            return None
        matrix_UV = matrices[self._width_parameter(segment, layer).name]
        if axis.lifted_from:
            groups = (self.target.queries_per_group, self.source.queries_per_group)
            unit_size = self.architecture.axes[axis.lifted_from].unit_size(self.source)
            return AxisMap(matrix_UV, unit_size, groups, group_size=self.source.head_size)
        return AxisMap(matrix_UV, axis.unit_size(self.source))


def growth_faults(source: ModelShape, target: ModelShape) -> list[str]:
    """Why a model of one shape cannot grow into another; empty if it can."""
    faults = []
    for name in ("layers", "width", "heads", "key_value_heads", "ffn", "queries_per_group"):
        before, after = getattr(source, name), getattr(target, name)
        if after < before:
            faults.append(f"{name} shrinks from {before} to {after}")
    if source.head_size != target.head_size:
        faults.append(
            f"the head size changes from {source.head_size} to {target.head_size}; keep it and add heads"
            f" (width {target.width} wants {target.width / source.head_size:g} heads)"
        )
    for name in ("vocab", "positions", "tied"):
        before, after = getattr(source, name), getattr(target, name)
        if after != before:
            faults.append(f"{name} differs: {before} and {after}")
    return faults
