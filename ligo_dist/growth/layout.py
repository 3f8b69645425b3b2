"""Which parameters the growth operator of a pair of models has: known from their shapes alone, without torch.

The operator's parameters, by name:

    hidden.out, hidden.in, ...          one per side that the family's table uses (whole model)
    layers.{l}.query.out, ...           the same per target layer; `query.out` where all layers share them
    layers.{l}.depth                    depth coefficients of target layer l: roles x columns
    layers.{l}.new_depth                the same for the units that the source had not, where they have their own

An axis that does not grow has no matrix: its units are carried over as they are.

A column is a layer that coefficients mix: the source's layers, then the fresh ones (as the library initialises them),
then the unit layer (gains one, all else zero), where a method asks for those.

Tied (the paper), every side of an axis uses its `out` matrix. With a fixed identity (the published code) a matrix's
parameter holds the rows of new units only, and the source's own units are carried over as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from ligo_dist.architectures import Architecture, Axis, ModelShape, ParameterSpec, Segment
from ligo_dist.growth.preserves import (
    epsilon_factor,
    fresh_layers,
    has_new_depth,
    needs_unit_layer,
    obstacles,
    refusals,
)
from ligo_dist.growth.registry import MAY_BE_TIED, Method
from ligo_dist.runtime.errors import ArchitectureError

_TIED_BY_DEFAULT = ("identity-random",)


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

    @property
    def numel(self) -> int:
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class GrowthLayout:
    """A pair of models of one family and the parameters of the operator between them.

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
        numbered: what a block computes depends on its number, so none may be put between others.

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
    numbered: bool = False

    def __post_init__(self) -> None:
        faults = growth_faults(self.source, self.target)
        if faults:
            raise ArchitectureError(f"{self.architecture.name} cannot grow so: " + "; ".join(faults))

    @classmethod
    def for_method(
        cls,
        architecture: Architecture,
        source: ModelShape,
        target: ModelShape,
        method: Method,
        *,
        tied: bool | None = None,
        identity: str | None = None,
        share_depth: bool = False,
        share_width: bool = False,
        numbered: bool = False,
    ) -> Self:
        """The operator that a method needs for a pair of models.

        Args:
            architecture: the family.
            source, target: the pair.
            method: where it starts.
            tied: one matrix for all sides of an axis; None: as the method does.
            identity: `fixed` or `learned`; None: as the method does.
            share_depth: one row of depth coefficients for all roles.
            share_width: one operator per axis for all layers.
            numbered: what a block computes depends on its number.

        Raises:
            ArchitectureError: for a growth that the family or the method does not allow.
        """
        depth, width = method.depth, method.width
        faults = refusals(architecture, source, target, depth=depth, width=width, share_depth=share_depth)
        if tied and width not in MAY_BE_TIED:
            faults.append(f"width {width!r} needs a matrix for each side of an axis: set tied: false")
        if identity == "fixed" and width != "identity-random":
            faults.append(f"width {width!r} has no identity to fix: set identity: learned")
        if faults:
            raise ArchitectureError("; ".join(faults))
        return cls(
            architecture,
            source,
            target,
            tied=width in _TIED_BY_DEFAULT if tied is None else tied,
            fixed_identity=(width == "identity-random") if identity is None else identity == "fixed",
            share_depth=share_depth,
            share_width=share_width,
            fresh_layers=fresh_layers(source, target, depth),
            unit_layer=needs_unit_layer(architecture, source, target, depth),
            new_depth=has_new_depth(width),
            numbered=numbered,
        )

    def obstacles(self, method: Method) -> list[str]:
        """Why the target will not compute the source's function right after growing so; empty if it will."""
        return obstacles(
            self.architecture,
            self.source,
            self.target,
            depth=method.depth,
            width=method.width,
            noise=method.noise,
            share_depth=self.share_depth,
        )

    def epsilon_factor(self, method: Method) -> float:
        """What the norms' epsilon is multiplied by in the target."""
        return epsilon_factor(self.architecture, self.source, self.target, method.width)

    @property
    def columns(self) -> int:
        """Layers that depth coefficients mix."""
        return self.source.layers + self.fresh_layers + self.unit_layer

    @property
    def generations(self) -> int:
        """Times that a block is made: twice where new units have depth coefficients of their own."""
        return 2 if self.new_depth else 1

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
                parameter = self.width_parameter(segment, spec.layer)
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

    def matrices_of(self, spec: ParameterSpec) -> set[str]:
        """Names of the width matrices that a target parameter is made with."""
        parameters = (
            self.width_parameter(segment, spec.layer) for dim in spec.dims for segment in dim if segment.side
        )
        return {parameter.name for parameter in parameters if parameter.shape[0]}

    def axis_of(self, axis: Axis) -> Axis:
        """The axis whose operator an axis has: its own, or the one it is lifted from."""
        return self.architecture.axes[axis.lifted_from] if axis.lifted_from else axis

    def is_copied(self, segment: Segment) -> bool:
        """Whether a segment of a parameter's dim is the source's, element by element."""
        return segment.side is None or is_copied(self.architecture, segment.axis, self.source, self.target)

    def width_parameter(self, segment: Segment, layer: int | None) -> OperatorParameter:
        """The matrix that expands a segment of a parameter's dim; it may have no rows."""
        axis = self.axis_of(segment.axis)
        side = "out" if self.tied else segment.side
        scope = layer if axis.scope == "layer" and not self.share_width else None
        prefix = "" if scope is None else f"layers.{scope}."
        large, small = axis.units(self.target), axis.units(self.source)
        only_new = self.fixed_identity or not grows(axis, self.source, self.target)
        shape = (large - small if only_new else large, small)
        return OperatorParameter(f"{prefix}{axis.name}.{side}", shape, axis.name, side, scope)


def grows(axis: Axis, source: ModelShape, target: ModelShape) -> bool:
    """Whether an axis has an operator: it gets units; or norms inside it follow the epsilon of all norms, which changes
    with the width."""
    if axis.normed and source.width != target.width:
        return True
    return axis.units(source) != axis.units(target)


def is_copied(architecture: Architecture, axis: Axis, source: ModelShape, target: ModelShape) -> bool:
    """Whether what lies on an axis, which may be lifted from another, is the source's, element by element."""
    own = architecture.axes[axis.lifted_from] if axis.lifted_from else axis
    return not grows(own, source, target) and axis.size(source) == axis.size(target)


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
    "attention_bias",
    "mlp_bias",
)
