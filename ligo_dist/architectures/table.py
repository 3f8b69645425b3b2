"""What a model family is to this system: a table of parameter name -> growth axes, and the sizes of those axes.

A table line reads `name: dim dim ...`; a dim is one or more `axis.side` joined by `+` (a fused dim, such as the
query, key and value of GPT-2's `c_attn`) or by `|` where they alternate head by head (as in GPT-NeoX's
`query_key_value`), in the order of the tensor's dims as the library stores it. The side says which of an axis's
operators applies (design: `B_out` writes, `A_in` reads):

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ligo_dist.runtime.errors import ArchitectureError, shortened

SIDES = ("out", "in", "gain", "bias", "head_gain", "head_bias")
LAYER = "{layer}"
_BIASES = ("attention_bias", "mlp_bias")
_BY_RULE = ("ffn", "head_size", "key_value_heads", *_BIASES)
"""Attributes of a shape that a family has a rule for, where a configuration leaves them out."""

Objective = Literal["causal_lm", "masked_lm", "image_classification", "features"]


@dataclass(frozen=True)
class ModelShape:
    """The numbers that make one model of a family; those that a family has no use for are 0.

    Attributes:
        layers: number of transformer blocks.
        width: size of the residual stream.
        heads: query heads.
        key_value_heads: heads of keys and values; `heads` unless attention is grouped.
        ffn: inner width of the feed-forward block.
        tied: the embedding is the output head too.
        head_size: elements of a head; 0 given: `width // heads`.
        vocab: rows of the embedding.
        positions: longest sequence the model takes.
        token_types: kinds of segments that an encoder tells apart.
        labels: classes of an image.
        image_size, patch_size: side of a square image and of a patch of it, in pixels.
        channels: of an image.
        attention_bias, mlp_bias: the projections of the attention, of the feed-forward block have biases; for families
            that let their configuration say so.
    """

    layers: int
    width: int
    heads: int
    key_value_heads: int
    ffn: int
    tied: bool
    head_size: int = 0
    vocab: int = 0
    positions: int = 0
    token_types: int = 0
    labels: int = 0
    image_size: int = 0
    patch_size: int = 0
    channels: int = 0
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self) -> None:
        if self.head_size == 0:
            object.__setattr__(self, "head_size", self.width // self.heads)

    @property
    def attention_width(self) -> int:
        """Elements of all query heads."""
        return self.heads * self.head_size

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2 if self.patch_size else 0

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
        heads: its elements belong to heads, contiguous blocks of the head size; what copies units copies whole heads.
        normed: a norm inside each head acts on it, with the epsilon of all norms.
        lifted_from: the axis repeats another one once per query head of a group, and has that axis's operator.
        elementwise: something acts on its elements one by one before a norm takes their statistics or another part of
            the model reads them through the same matrix: an activation, or the gain of a norm that lies *on* the
            residual stream (post-norm). What keeps the function can then only copy units, not mix them.
    """

    name: str
    size: Callable[[ModelShape], int]
    scope: Literal["model", "layer", "fixed"]
    unit: Literal["element", "head"] = "element"
    grouped: bool = False
    heads: bool = False
    normed: bool = False
    lifted_from: str | None = None
    elementwise: bool = False

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


@dataclass(frozen=True)
class Dim:
    """The axis segments of one tensor dim, one after the other, or (`interleaved`) alternating head by head."""

    segments: tuple[Segment, ...]
    interleaved: bool = False

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)


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

    @property
    def is_block_matrix(self) -> bool:
        """Whether it is a matrix of a block: a projection of its attention or of its feed-forward part."""
        return self.layer is not None and len(self.shape) == 2


@dataclass(frozen=True)
class Architecture:
    """A model family.

    Attributes:
        name: what the configuration calls it.
        model_class: class in `transformers` that is trained and exported.
        config_class: its configuration class.
        layers_path: dotted path of the list of blocks inside the model.
        objective: what it is trained for; `features`: nothing, it can only be grown.
        normalization: which statistics its norms take; decides how a lossless start is built.
        axes: the growth axes, by name.
        table: lines `parameter name -> dims`; a function of the shape, as tied heads and biases change it.
        config_keys: keys of the Hugging Face configuration -> the attribute of `ModelShape` that each holds.
        default_ffn: inner width where the user gives none.
        ties_embeddings: whether the family ties its head to its embedding unless told otherwise; None: it has no
            choice (encoders alone have no head, image models no embedding).
        rotary: positions are rotations inside the head.
        rotary_part: part of each head that rotates; below 1 the library's configuration may say another. Its elements
            rotate in pairs.
        post_norm: norms lie on the residual stream, behind each addition (BERT), not in front of each branch.
        free_head_size: the head size may differ from `width / heads`.
        position_offset: rows of the position embedding beyond the positions there are (RoBERTa: 2).
        norm_epsilon: key of the configuration that holds the norms' epsilon; None: it has none (OPT), and widths that
            would change the epsilon do not keep the function.
        token_types: kinds of segments that its published models tell apart, taken where nobody says another number.
        activation: the library's name of its feed-forward blocks' activation, which says what they keep for the
            backward pass.
        softmax_in_fp32: the library takes the softmax of attention in fp32, whatever the precision.
        parallel_branches: attention and feed-forward block read the same residual stream, side by side.
        masks_by_positions: of a causal model, whether the library's masks what lies before `position_ids` that begin
            anew.
        numbering_keys: keys of the configuration that, where they say something, make a block's work depend on its
            number. New blocks that pass on what they get then go behind all others, which keep their numbers.
    """

    name: str
    model_class: str
    config_class: str
    layers_path: str
    objective: Objective
    normalization: Literal["layer_norm", "rms_norm"]
    axes: Mapping[str, Axis]
    table: Callable[[ModelShape], Mapping[str, str]]
    config_keys: Mapping[str, str]
    default_ffn: Callable[[int], int]
    ties_embeddings: bool | None
    norm_epsilon: str | None
    rotary: bool = False
    rotary_part: float = 1.0
    post_norm: bool = False
    free_head_size: bool = False
    position_offset: int = 0
    token_types: int = 0
    activation: str = "gelu"
    softmax_in_fp32: bool = True
    parallel_branches: bool = False
    masks_by_positions: bool = True
    numbering_keys: tuple[str, ...] = ()

    def library_keys(self, shape: ModelShape) -> dict[str, object]:
        """The keys of the Hugging Face configuration that a shape sets."""
        values = {key: getattr(shape, attribute) for key, attribute in self.config_keys.items()}
        for key, attribute in self.config_keys.items():
            if attribute == "positions":
                values[key] += self.position_offset
        return values

    def shape_from(self, config: Mapping[str, object]) -> ModelShape:
        """The shape of the model that a Hugging Face configuration describes: `library_keys` the other way round.

        Args:
            config: its plain values, completed by the library's defaults. `None` stands for the family's own rule:
                the inner width of the feed-forward block, the head size, as many key/value heads as heads.

        Raises:
            ArchitectureError: naming each key that is missing or has a value that no shape has.
        """
        values: dict[str, int] = {}
        faults = []
        for key, attribute in self.config_keys.items():
            value = _config_value(config, key)
            if fits_attribute(value, attribute):
                values[attribute] = value  # type: ignore[assignment]
            elif value is not None:
                right = "true or false" if attribute in _SWITCHES else "a whole number, at least 1"
                faults.append(f"{key}: {value!r} should be {right}")
            elif attribute not in _BY_RULE or (attribute == "ffn" and key not in config):
                faults.append(f"{key} is missing")
        if faults:
            raise ArchitectureError(f"{self.name}: no model has this configuration: " + "; ".join(faults))
        return self._completed(values)

    def _completed(self, values: Mapping[str, int]) -> ModelShape:
        """A shape from what the configuration says, the rest by the family's own rules."""
        width, heads = values["width"], values["heads"]
        rules = {"ffn": self.default_ffn(width), "key_value_heads": heads, "tied": self.tied_by_default}
        sizes = {**rules, **values}
        if "positions" in sizes:
            sizes["positions"] -= self.position_offset
        return ModelShape(**sizes)  # type: ignore[arg-type]

    @property
    def tied_by_default(self) -> bool:
        """Whether a model is tied where nobody says so."""
        return bool(self.ties_embeddings)

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
        return tuple(self._dim(words) for words in line.split())

    def _dim(self, words: str) -> Dim:
        separator = "|" if "|" in words else "+"
        return Dim(tuple(self._segment(word) for word in words.split(separator)), separator == "|")

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
                f"{self.name}: the model does not fit its table\n  " + shortened(faults, separator="\n  ")
            )

    def _patterns(self, shape: ModelShape) -> dict[str, re.Pattern[str]]:
        return {
            role: re.compile(re.escape(role).replace(re.escape(LAYER), r"\d+")) for role in self.table(shape)
        }

    def _unmatched_rules(self, shape: ModelShape, actual: Mapping[str, object]) -> list[str]:
        return [
            role
            for role, pattern in self._patterns(shape).items()
            if (shape.layers or LAYER not in role) and not any(pattern.fullmatch(name) for name in actual)
        ]


def _config_value(config: Mapping[str, object], key: str) -> object:
    """A configuration's value; a square may be written as its two sides, classes as the mapping of their names."""
    value = config.get(key)
    if value is None and key == "num_labels":
        names = config.get("id2label")
        return len(names) if isinstance(names, Mapping) else None
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    return value


_SWITCHES = ("tied", *_BIASES)


def fits_attribute(value: object, attribute: str) -> bool:
    """Whether a value is one that an attribute of a shape can have; only layers may be none at all."""
    if attribute in _SWITCHES:
        return isinstance(value, bool)
    smallest = 0 if attribute == "layers" else 1
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


def is_dropout(key: str) -> bool:
    """Whether a key of the library's configuration says what part is dropped: `resid_pdrop`, `dropout`, `layerdrop`."""
    return "drop" in key
