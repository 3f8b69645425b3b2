"""The growth operator of one pair of models: how its matrices make each target parameter.

The matrices themselves are listed in `layout`, which knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ligo_dist.architectures import Axis, ModelShape, ParameterSpec, Segment
from ligo_dist.growth.algebra import (
    AxisMap,
    DimMap,
    SegmentMap,
    expand_flat_range,
    expand_width,
    mix_depth,
)
from ligo_dist.growth.layout import GrowthLayout, OperatorParameter


@dataclass(frozen=True)
class Growth(GrowthLayout):
    """A pair of models, the operator between them, and how it is applied."""

    @classmethod
    def of(cls, layout: GrowthLayout) -> Growth:
        """The same pair and operator, to be applied."""
        return cls(**{field.name: getattr(layout, field.name) for field in fields(layout)})

    def depth_rows(self, coefficients: Tensor) -> Tensor:
        """Depth coefficients, one row per role."""
        return coefficients.expand(len(self.layer_roles), -1)

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
                interleave=self.target.head_size if dim.interleaved else 0,
            )
            for dim in spec.dims
        )

    def whole_matrix(self, parameter: OperatorParameter, value: Tensor) -> Tensor:
        """A width matrix, target units x source units, from its parameter: new rows alone where the identity is
        fixed; none where the axis does not grow."""
        assert parameter.axis is not None
        axis, small = self.architecture.axes[parameter.axis], parameter.shape[1]
        if len(value) == axis.units(self.target):
            return value
        whole = torch.cat([torch.eye(small, dtype=value.dtype, device=value.device), value])
        placed = placed_units(axis, self.source, self.target)
        if torch.equal(placed, torch.arange(small)):
            return whole
        order = torch.cat([placed, new_units(axis, self.source, self.target)]).argsort()
        return whole[order.to(value.device)]

    def kept_maps(self, spec: ParameterSpec) -> tuple[DimMap, ...]:
        """Maps that put each source unit where the target continues it, and nothing anywhere else."""
        placements = {}
        for segment in (segment for dim in spec.dims for segment in dim if segment.side):
            parameter = self.width_parameter(segment, spec.layer)
            placements[parameter.name] = self.placement(self.axis_of(segment.axis))
        return replace(self, fixed_identity=False).dim_maps(spec, placements)

    def kept_elements(self, spec: ParameterSpec, start: int, stop: int) -> Tensor:
        """For the elements [start, stop) of a flattened target parameter: 1 where they continue the source's, else
        0."""
        at = torch.arange(start, stop)
        kept, stride = torch.ones(stop - start), spec.numel
        for size, dim_map in zip(spec.shape, self.kept_maps(spec), strict=True):
            stride //= size
            kept *= dim_map.apply(torch.ones(sum(dim_map.source_sizes)), 0)[at // stride % size]
        return kept

    def placement(self, axis: Axis) -> Tensor:
        """The matrix of `kept_maps` of an axis: target units x source units, one 1 per source unit."""
        matrix_UV = torch.zeros(axis.units(self.target), axis.units(self.source))
        placed = placed_units(axis, self.source, self.target)
        matrix_UV[placed, torch.arange(len(placed))] = 1.0
        return matrix_UV

    def expand(self, spec: ParameterSpec, mixed: list[Tensor], operator: Mapping[str, Tensor]) -> Tensor:
        """A target parameter from its mixed source tensors, one for each of `depth_names`."""
        maps = self.dim_maps(spec, operator)
        grown = [expand_width(tensor, maps) for tensor in mixed]
        if len(grown) == 1:
            return grown[0]
        dim, is_new = self._new_units(spec)
        shape = [1] * len(spec.shape)
        shape[dim] = -1
        return torch.where(is_new.to(grown[0].device).view(shape), grown[1], grown[0])

    def expand_range(
        self, spec: ParameterSpec, mixed: list[Tensor], operator: Mapping[str, Tensor], start: int, stop: int
    ) -> Tensor:
        """Elements [start, stop) of the flattened result of `expand`, without computing rows beyond them."""
        maps = self.dim_maps(spec, operator)
        grown = [expand_flat_range(tensor, maps, start, stop) for tensor in mixed]
        if len(grown) == 1:
            return grown[0]
        dim, is_new = self._new_units(spec)
        stride = spec.numel
        for size in spec.shape[: dim + 1]:
            stride //= size
        along = torch.arange(start, stop) // stride % spec.shape[dim]
        return torch.where(is_new[along].to(grown[0].device), grown[1], grown[0])

    def grow_dense(self, source: Mapping[str, Tensor], operator: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every target parameter in plain dense maths, on one process: the oracle that the sharded path equals.

        Args:
            source: the source's parameters by name; those of fresh layers are named as the source's next layers.
            operator: its parameters by name.
        """
        target = {}
        for spec in self.target_parameters:
            mixed = [source[spec.name]] if spec.layer is None else []
            if spec.layer is not None:
                row = self.layer_roles.index(spec.role)
                stack = self._dense_stack(spec.role, source)
                rows = (self.depth_rows(operator[name])[row] for name in self.depth_names(spec.layer))
                mixed = [mix_depth(depth_K, stack) for depth_K in rows]
            target[spec.name] = self.expand(spec, mixed, operator)
        return target

    def _dense_stack(self, role: str, source: Mapping[str, Tensor]) -> Tensor:
        layers = [source[role.format(layer=layer)] for layer in range(self.source.layers + self.fresh_layers)]
        if self.unit_layer:
            layers.append(torch.full(self.source_by_role[role].shape, self.unit_value(role)))
        return torch.stack(layers)

    def unit_value(self, role: str) -> float:
        """What the unit layer holds: one in the gains of norms, so that they only normalise, else zero."""
        sides = {segment.side for dim in self.source_by_role[role].dims for segment in dim}
        return float("gain" in sides)

    def _new_units(self, spec: ParameterSpec) -> tuple[int, Tensor]:
        """The dim that a parameter writes, and which of its target elements the source had not."""
        for dim, segments in enumerate(spec.dims):
            if any(segment.side not in (None, "in") for segment in segments):
                dim_map = self.kept_maps(spec)[dim]
                return dim, dim_map.apply(torch.ones(sum(dim_map.source_sizes)), 0) == 0
        return 0, torch.zeros(spec.shape[0], dtype=torch.bool)

    def _segment_map(self, segment: Segment, layer: int | None, matrices: Mapping[str, Tensor]) -> SegmentMap:
        if self.is_copied(segment):
            return None
        axis = self.axis_of(segment.axis)
        parameter = self.width_parameter(segment, layer)
        value = matrices[parameter.name] if parameter.shape[0] else torch.empty(parameter.shape)
        matrix_UV = self.whole_matrix(parameter, value)
        if segment.axis.lifted_from:
            groups = (self.target.queries_per_group, self.source.queries_per_group)
            unit_size = axis.unit_size(self.source)
            return AxisMap(matrix_UV, unit_size, groups, group_size=self.source.head_size)
        return AxisMap(matrix_UV, axis.unit_size(self.source))


def placed_units(axis: Axis, source: ModelShape, target: ModelShape) -> Tensor:
    """For each source unit of an axis, the target unit that continues it.

    The first units, save where query heads are ordered by group: there, head j of group k stays head j of group k.
    """
    units = torch.arange(axis.units(source))
    if not axis.grouped:
        return units
    per_unit = source.head_size // axis.unit_size(source)
    head, inside = units // per_unit, units % per_unit
    per_group = source.queries_per_group
    placed = head // per_group * target.queries_per_group + head % per_group
    return placed * per_unit + inside


def new_units(axis: Axis, source: ModelShape, target: ModelShape) -> Tensor:
    """The target units of an axis that continue no source unit, in order."""
    is_new = torch.ones(axis.units(target), dtype=torch.bool)
    is_new[placed_units(axis, source, target)] = False
    return is_new.nonzero().squeeze(1)
