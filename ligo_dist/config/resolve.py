"""What sections come to: the shapes of the stages' models and the method of a growth, the family's and the method's
defaults filled in."""

from __future__ import annotations

from typing import Any

from ligo_dist.architectures import Architecture, ModelShape, fits_attribute, get_architecture
from ligo_dist.config.data import Source
from ligo_dist.config.schema import Config, Data, Grow, Learn, Model, Size, Train
from ligo_dist.growth import METHODS, Method, get_method
from ligo_dist.runtime.errors import ConfigError, Fault

PARTIAL_ROTARY_KEYS = ("partial_rotary_factor", "rotary_pct")
"""What the library's configurations call the part of each head that rotates."""

_LIBRARY_SAYS = ("token_types", "attention_bias", "mlp_bias")


def stage_shapes(config: Config, pieces: int) -> list[ModelShape]:
    """The shapes of all stages' models; `pieces` is the tokenizer's number of pieces, 0 for images.

    A model that exists gets the rows of the embedding that it lacks.

    Raises:
        ConfigError: `model.vocab_size` leaves pieces without a row of the embedding.
    """
    vocab = config.model.vocab_size or pieces
    if config.stages[0].from_ is not None:
        vocab = max(vocab, pieces)
    if vocab < pieces:
        wrong = f"{vocab} is less than the {pieces} pieces of the tokenizer; at least {pieces} would be right"
        raise ConfigError([Fault("model.vocab_size", wrong)])
    sizes = [stage.size for stage in config.stages if stage.size is not None]
    assert len(sizes) == len(config.stages), "the size of a source is filled in before anything is built"
    return [model_shape(config.model, config.data, size, vocab) for size in sizes]


def model_shape(model: Model, data: Data, size: Size, vocab: int) -> ModelShape:
    """The shape of one stage's model with `vocab` rows of the embedding."""
    architecture = get_architecture(model.family)
    tied = architecture.tied_by_default if model.tie_embeddings is None else model.tie_embeddings
    shape: dict[str, Any] = {
        "layers": size.layers,
        "width": size.width,
        "heads": size.heads,
        "key_value_heads": size.heads if size.key_value_heads is None else size.key_value_heads,
        "ffn": architecture.default_ffn(size.width) if size.ffn is None else size.ffn,
        "head_size": size.head_size or 0,
    }
    if is_image_family(architecture):
        return ModelShape(
            **shape,
            tied=False,
            labels=data.labels or 0,
            image_size=data.image_size or 0,
            patch_size=model.patch_size or 0,
            channels=data.channels,
        )
    return ModelShape(
        **shape,
        tied=tied,
        vocab=vocab,
        positions=model.max_positions or 0,
        **_said_in_library_keys(architecture, model),
    )


FLASH = "flash_attention_2"
"""Attention that takes bf16 alone."""

PASSES_OVER = (FLASH, "flex_attention")
"""Attention that does not compute what is masked between documents that are kept apart."""


def attention_of(model: Model, precision: str, *, on_processors: bool) -> str | None:
    """How the library is to compute attention in `bf16` or `fp32`; None: as it does by itself, which is fused (`sdpa`)
    where the family has that.

    `auto` goes by `python -m benchmarks.attention`. On a core with AVX512-BF16 a step with `sdpa` took, of one with
    `eager`, for gpt2, llama and bert: in bf16 1.25, 1.22, 1.26 with 64 positions and 1.33, 0.99, 1.31 with 512; in fp32
    0.99, 1.00, 0.98 and 0.87, 0.90, 0.90.
    """
    if model.attention == FLASH and precision == "fp32":
        return None
    if model.attention != "auto":
        return model.attention
    return "eager" if on_processors and precision == "bf16" else None


def is_image_family(architecture: Architecture) -> bool:
    """Whether the family reads images, not text."""
    return architecture.objective == "image_classification"


def reads_tokens(data: Source) -> bool:
    """Whether a source is one of tokens that exist."""
    if data.source in ("parquet", "arrow"):
        return data.token_column is not None
    return data.source in ("megatron", "datatrove")


def groups_heads(architecture: Architecture) -> bool:
    """Whether the family can have fewer key/value heads than query heads."""
    return any(axis.grouped for axis in architecture.axes.values())


def tokens_per_sample(architecture: Architecture, shape: ModelShape, sequence_length: int) -> int:
    """Positions that the blocks work on: the sequence, or an image's patches and the tokens beside them."""
    if is_image_family(architecture):
        return architecture.axes["position"].size(shape)
    return sequence_length


def rotary_part(architecture: Architecture, model: Model) -> float:
    """The part of each head that rotates. Where a family rotates a part only, `model.huggingface` may say another,
    under any of the library's names."""
    if architecture.rotary_part == 1:
        return 1.0
    nested = model.huggingface.get("rope_parameters")
    for keys in (nested if isinstance(nested, dict) else {}, model.huggingface):
        for name in PARTIAL_ROTARY_KEYS:
            # Any other value is told where the library's class refuses it.
            if isinstance(keys.get(name), int | float):
                return float(keys[name])
    return architecture.rotary_part


def _said_in_library_keys(architecture: Architecture, model: Model) -> dict[str, Any]:
    """What `model.huggingface` may say of a shape under the library's own names: no other key of ours does."""
    says: dict[str, Any] = {"token_types": architecture.token_types}
    for key, attribute in architecture.config_keys.items():
        # Any other value is told where the library's class refuses it.
        if attribute in _LIBRARY_SAYS and fits_attribute(model.huggingface.get(key), attribute):
            says[attribute] = model.huggingface[key]
    return says


def method_of(grow: Grow) -> Method | None:
    """The method that a `grow` section stands for; None if it has no operator, or an unknown method."""
    if grow.method not in METHODS:
        return None
    return get_method(grow.method, grow.depth, grow.width, grow.noise)


def learn_steps(grow: Grow) -> int:
    """Steps that the operator is learned for: those asked for, else the method's own; none without an operator."""
    if method_of(grow) is None:
        return 0
    return METHODS[grow.method].learn_steps if grow.learn.steps is None else grow.learn.steps


def learn_batch(learn: Learn | Train, train: Train) -> tuple[int, int]:
    """Batch and micro-batch with which the operator is learned: its own, else the stage's."""
    return learn.batch_size or train.batch_size, learn.micro_batch_size or train.micro_batch_size
