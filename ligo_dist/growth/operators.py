"""The growth operator of one pair of models: which matrices it has, and how they make each target parameter.

The operator's parameters, by name:

    hidden.out, hidden.in, ...          one per side that the family's table uses (whole model)
    layers.{l}.query.out, ...           the same per target layer; `query.out` where all layers share them
    layers.{l}.depth                    depth coefficients of target layer l: roles x columns
    layers.{l}.new_depth                the same for the units that the source had not, where they have their own

A column is a layer that coefficients mix: the source's layers, then the fresh ones (as the library initialises them),
then the unit layer (gains one, all else zero), where a method asks for those.

Tied (the paper), every side of an axis uses its `out` matrix. With a fixed identity (the published code) a matrix's
parameter holds the rows of new units only, and the source's own units are carried over as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ligo_dist.architectures import Architecture, Axis, ModelShape, ParameterSpec, Segment
from ligo_dist.errors import ArchitectureError
from ligo_dist.growth.algebra import (
    AxisMap,
    DimMap,
    SegmentMap,
    expand_flat_range,
    expand_width,
    mix_depth,
)


@dataclass(frozen=True)
class OperatorParameter:
    """One tensor of the operator.

    Attributes:
        name: see the module's docstring.
        shape: target units x source units, or roles x columns for depth coefficients.
        axis: the growth axis, or None for depth coefficients.
        side: the side it serves; for depth coefficients None, or `new` where they serve the new units alone.
        layer: target layer, or None where the whole model shares it.
    """

    name: str
    shape: tuple[int, int]
    axis: str | None
    side: str | None
    layer: int | None

    @property
    def kind(self) -> str:
        """`depth` or `width`."""
        return "depth" if self.axis is None else "width"


@dataclass(frozen=True)
class Growth:
    """A pair of models of one family and the operator between them.

    Attributes:
        architecture: the family.
        source: shape of the model that is there.
        target: shape of the model to come.
        tied: one matrix for all sides of an axis (paper), or one per side.
        fixed_identity: the rows that carry the source's own units are no parameters.
        share_depth: one row of depth coefficients for all roles of a layer.
        share_width: one operator per axis for all layers.
        fresh_layers: columns of layers as the library initialises them.
        unit_layer: a column whose gains are one and whose other parameters are zero.
        new_depth: new units have depth coefficients of their own.

    Raises:
        ArchitectureError: if the family does not allow this growth; the message says which size is at fault.
    """

    architecture: Architecture
    source: ModelShape
    target: ModelShape
    tied: bool
    fixed_identity: bool = False
    share_depth: bool = False
    share_width: bool = False
    fresh_layers: int = 0
    unit_layer: bool = False
    new_depth: bool = False

    def __post_init__(self) -> None:
        faults = growth_faults(self.source, self.target)
        if faults:
            raise ArchitectureError(f"{self.architecture.name} cannot grow so: " + "; ".join(faults))

    @property
    def columns(self) -> int:
        """Layers that depth coefficients mix."""
        return self.source.layers + self.fresh_layers + self.unit_layer

    @property
    def depth_shape(self) -> tuple[int, int]:
        """Of a target layer's depth coefficients: roles (one row for all, where they share it) x columns."""
        return 1 if self.share_depth else len(self.layer_roles), self.columns

    @cached_property
    def target_parameters(self) -> list[ParameterSpec]:
        return self.architecture.parameters(self.target)

    @cached_property
    def source_by_role(self) -> dict[str, ParameterSpec]:
        """The source's parameter of each role: a layer's for roles of the blocks, even where it has no layer."""
        specs: dict[str, ParameterSpec] = {}
        for spec in self.architecture.parameters(replace(self.source, layers=1)):
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
                if parameter.shape[0]:
                    (shared if parameter.layer is None else layers)[parameter.name] = parameter
        for layer in range(self.target.layers):
            for name, side in self._depth_names(layer):
                layers[name] = OperatorParameter(name, self.depth_shape, None, side, layer)
        return [*shared.values(), *sorted(layers.values(), key=lambda p: p.layer or 0)]

    def _depth_names(self, layer: int) -> list[tuple[str, str | None]]:
        names: list[tuple[str, str | None]] = [(f"layers.{layer}.depth", None)]
        return [*names, (f"layers.{layer}.new_depth", "new")] if self.new_depth else names

    def depth_names(self, layer: int) -> list[str]:
        """Names of a target layer's depth coefficients: of all its units, and (`new_depth`) of the new ones."""
        return [name for name, _ in self._depth_names(layer)]

    def depth_rows(self, coefficients: Tensor) -> Tensor:
        """Depth coefficients, one row per role."""
        return coefficients.expand(len(self.layer_roles), -1)

    def matrices_of(self, spec: ParameterSpec) -> set[str]:
        """Names of the width matrices that a target parameter is made with."""
        parameters = (
            self._width_parameter(segment, spec.layer) for dim in spec.dims for segment in dim if segment.side
        )
        return {parameter.name for parameter in parameters if parameter.shape[0]}

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
        fixed."""
        if not self.fixed_identity:
            return value
        assert parameter.axis is not None
        axis, small = self.architecture.axes[parameter.axis], parameter.shape[1]
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
            parameter = self._width_parameter(segment, spec.layer)
            placements[parameter.name] = self.placement(self.axis_of(segment.axis))
        return replace(self, fixed_identity=False).dim_maps(spec, placements)

    def placement(self, axis: Axis) -> Tensor:
        """The matrix of `kept_maps` of an axis: target units x source units, one 1 per source unit."""
        matrix_UV = torch.zeros(axis.units(self.target), axis.units(self.source))
        placed = placed_units(axis, self.source, self.target)
        matrix_UV[placed, torch.arange(len(placed))] = 1.0
        return matrix_UV

    def axis_of(self, axis: Axis) -> Axis:
        """The axis whose operator an axis has: its own, or the one it is lifted from."""
        return self.architecture.axes[axis.lifted_from] if axis.lifted_from else axis

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

    def _width_parameter(self, segment: Segment, layer: int | None) -> OperatorParameter:
        axis = self.axis_of(segment.axis)
        side = "out" if self.tied else segment.side
        scope = layer if axis.scope == "layer" and not self.share_width else None
        prefix = "" if scope is None else f"layers.{scope}."
        large, small = axis.units(self.target), axis.units(self.source)
        shape = (large - small if self.fixed_identity else large, small)
        return OperatorParameter(f"{prefix}{axis.name}.{side}", shape, axis.name, side, scope)

    def _segment_map(self, segment: Segment, layer: int | None, matrices: Mapping[str, Tensor]) -> SegmentMap:
        if segment.side is None:
            return None
        axis = self.axis_of(segment.axis)
        parameter = self._width_parameter(segment, layer)
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
    for name in _NEVER_CHANGES:
        before, after = getattr(source, name), getattr(target, name)
        if after != before:
            faults.append(f"{name} differs: {before} and {after}")
    return faults


_NEVER_CHANGES = (
    "vocab",
    "positions",
    "tied",
    "token_types",
    "labels",
    "image_size",
    "patch_size",
    "channels",
)
