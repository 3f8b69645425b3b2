"""What a model family is to this system: a table of parameter name -> growth axes, and the sizes of those axes.

A table line reads `name: dim dim ...`; a dim is one or more `axis.side` joined by `+` (a fused dim, such as the
query, key and value of GPT-2's `c_attn`), in the order of the tensor's dims as the library stores it. The side says
which of an axis's operators applies (design: `B_out` writes, `A_in` reads):

    out        writes the axis: rows of a projection, an embedding, a bias
    in         reads the axis: columns of a projection
    gain bias  parameters of a normalisation layer inside the axis
    head_gain head_bias
               the same of the final normalisation where a *tied* embedding is the head: its output is read
               through the embedding's own `out` operator, so it must be prepared for that
    -          a fixed axis (vocab, position, ...) has no side: it never grows

This module knows nothing of torch, so the launcher can count parameters without loading it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ligo_dist.errors import ArchitectureError

SIDES = ("out", "in", "gain", "bias", "head_gain", "head_bias")
LAYER = "{layer}"


@dataclass(frozen=True)
class ModelShape:
    """The numbers that make one model of a family.

    Attributes:
        layers: number of transformer blocks.
        width: size of the residual stream.
        heads: query heads; `width // heads` is the head size.
        key_value_heads: heads of keys and values; `heads` unless attention is grouped.
        ffn: inner width of the feed-forward block.
        vocab: rows of the embedding.
        positions: longest sequence the model takes.
        tied: the embedding is the output head too.
    """

    layers: int
    width: int
    heads: int
    key_value_heads: int
    ffn: int
    vocab: int
    positions: int
    tied: bool

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def queries_per_group(self) -> int:
        """Query heads that share one key/value head."""
        return self.heads // self.key_value_heads


@dataclass(frozen=True)
class Axis:
    """One growth axis of a family.

    Attributes:
        name: the field's name for it: `hidden`, `query`, ...
        size: elements of the axis in a model of a given shape.
        scope: `model` - one operator for the whole model; `layer` - one per target layer; `fixed` - never grows.
        unit: `element` - the operator mixes single elements; `head` - it mixes whole heads, `H (x) I_head_size`
            (rotary position embeddings pair the elements inside a head, so those must keep their places).
        grouped: the axis is ordered by key/value group (query heads under grouped-query attention).
        lifted_from: the axis repeats another one once per query head of a group, and has that axis's operator.
    """

    name: str
    size: Callable[[ModelShape], int]
    scope: Literal["model", "layer", "fixed"]
    unit: Literal["element", "head"] = "element"
    grouped: bool = False
    lifted_from: str | None = None

    def units(self, shape: ModelShape) -> int:
        """Rows (or columns) of the axis's operator for a model of this shape."""
        return self.size(shape) // self.unit_size(shape)

    def unit_size(self, shape: ModelShape) -> int:
        return shape.head_size if self.unit == "head" else 1


@dataclass(frozen=True)
class Segment:
    """A run of one axis inside a tensor dim; `side` is None for a fixed axis."""

    axis: Axis
    side: str | None


Dim = tuple[Segment, ...]


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a model: what the table says of it.

    Attributes:
        name: the name in the Hugging Face model.
        role: the name with the layer number replaced by `{layer}`; equal roles have equal shapes.
        layer: number of its block, or None outside the blocks.
        dims: axis segments of each tensor dim.
        shape: the tensor's shape.
    """

    name: str
    role: str
    layer: int | None
    dims: tuple[Dim, ...]
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Architecture:
    """A model family.

    Attributes:
        name: what the configuration calls it.
        model_class: class in `transformers` that is trained and exported.
        config_class: its configuration class.
        layers_path: dotted path of the list of blocks inside the model.
        normalization: which statistics its norms take; decides how a lossless start is built.
        axes: the growth axes, by name.
        table: lines `parameter name -> dims`; a function of the shape, as tied heads change it.
        config_keys: keys of the Hugging Face configuration that a shape sets.
        default_ffn: inner width where the user gives none.
        ties_embeddings: whether the family ties its head to its embedding unless told otherwise.
        rotary: positions are rotations inside the head, whose size must then be even.
    """

    name: str
    model_class: str
    config_class: str
    layers_path: str
    normalization: Literal["layer_norm", "rms_norm"]
    axes: Mapping[str, Axis]
    table: Callable[[ModelShape], Mapping[str, str]]
    config_keys: Callable[[ModelShape], dict[str, object]]
    default_ffn: Callable[[int], int]
    ties_embeddings: bool
    rotary: bool

    def parameters(self, shape: ModelShape) -> list[ParameterSpec]:
        """All parameters of a model of this shape; a tied head counts once, under the embedding's name."""
        specs = []
        for role, line in self.table(shape).items():
            dims = self.parse_dims(line)
            sizes = tuple(sum(segment.axis.size(shape) for segment in dim) for dim in dims)
            layers: list[int | None] = list(range(shape.layers)) if LAYER in role else [None]
            for layer in layers:
                name = role if layer is None else role.replace(LAYER, str(layer))
                specs.append(ParameterSpec(name, role, layer, dims, sizes))
        return sorted(specs, key=lambda spec: (spec.layer is not None, spec.layer or 0))

    def layer_roles(self, shape: ModelShape) -> list[str]:
        """Roles found in every block, in the table's order."""
        return [role for role in self.table(shape) if LAYER in role]

    def parse_dims(self, line: str) -> tuple[Dim, ...]:
        """Raises ArchitectureError for an axis or side that does not exist."""
        return tuple(tuple(self._segment(word) for word in dim.split("+")) for dim in line.split())

    def _segment(self, word: str) -> Segment:
        name, _, side = word.partition(".")
        axis = self.axes.get(name)
        if axis is None:
            raise ArchitectureError(f"{self.name}: no axis {name!r}; it has {', '.join(self.axes)}")
        if axis.scope == "fixed":
            if side:
                raise ArchitectureError(
                    f"{self.name}: axis {name!r} is fixed and takes no side, not {side!r}"
                )
            return Segment(axis, None)
        if side not in SIDES:
            raise ArchitectureError(f"{self.name}: {word!r} needs a side: one of {', '.join(SIDES)}")
        return Segment(axis, side)

    def check_model(self, shape: ModelShape, actual: Mapping[str, tuple[int, ...]]) -> None:
        """Hold the table against a model's parameters (name -> shape): the three completeness checks.

        Every parameter of the model matches exactly one rule; every rule matches a parameter; each tensor dim is
        the sum of its axis segments.

        Raises:
            ArchitectureError: naming every parameter or rule at fault.
        """
        faults = [
            f"{role}: matched by no parameter of the model" for role in self._unmatched_rules(shape, actual)
        ]
        specs = {spec.name: spec for spec in self.parameters(shape)}
        for name, tensor_shape in actual.items():
            rules = [role for role, pattern in self._patterns(shape).items() if pattern.fullmatch(name)]
            if len(rules) != 1:
                faults.append(
                    f"{name}: matched by {len(rules)} rules ({', '.join(rules) or 'none'}), not by one"
                )
            elif name not in specs:
                faults.append(f"{name}: beyond the {shape.layers} layers of this model")
            elif specs[name].shape != tuple(tensor_shape):
                faults.append(
                    f"{name}: shape {tuple(tensor_shape)}, the table's axes give {specs[name].shape}"
                )
        faults += [f"{name}: in the table, not in the model" for name in specs if name not in actual]
        if faults:
            raise ArchitectureError(
                f"{self.name}: the model does not fit its table\n  " + "\n  ".join(faults)
            )

    def _patterns(self, shape: ModelShape) -> dict[str, re.Pattern[str]]:
        return {
            role: re.compile(re.escape(role).replace(re.escape(LAYER), r"\d+")) for role in self.table(shape)
        }

    def _unmatched_rules(self, shape: ModelShape, actual: Mapping[str, object]) -> list[str]:
        return [
            role
            for role, pattern in self._patterns(shape).items()
            if not any(pattern.fullmatch(name) for name in actual)
        ]
