"""From a stage's size to the numbers of one model, the family's defaults filled in."""

from __future__ import annotations

from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.config.schema import Model, Size


def model_shape(model: Model, size: Size, vocab: int) -> ModelShape:
    """The shape of a stage's model; `vocab` is the tokenizer's number of pieces."""
    architecture = get_architecture(model.family)
    tied = architecture.ties_embeddings if model.tie_embeddings is None else model.tie_embeddings
    return ModelShape(
        layers=size.layers,
        width=size.width,
        heads=size.heads,
        key_value_heads=size.heads if size.key_value_heads is None else size.key_value_heads,
        ffn=architecture.default_ffn(size.width) if size.ffn is None else size.ffn,
        vocab=vocab,
        positions=model.max_positions,
        tied=tied,
    )


def groups_heads(architecture: Architecture) -> bool:
    """Whether the family can have fewer key/value heads than query heads."""
    return any(axis.grouped for axis in architecture.axes.values())
