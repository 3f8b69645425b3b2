"""BERT and RoBERTa."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from ligo_dist.architectures.table import Architecture, Axis, ModelShape

ENCODER_AXES = (
    Axis("vocab", lambda shape: shape.vocab, "fixed"),
    Axis("position", lambda shape: shape.positions, "fixed"),
    Axis("token_type", lambda shape: shape.token_types, "fixed"),
    Axis("hidden", lambda shape: shape.width, "model", elementwise=True),
    Axis("query", lambda shape: shape.width, "layer", heads=True),
    Axis("key", lambda shape: shape.width, "layer", heads=True),
    Axis("value", lambda shape: shape.width, "layer", heads=True),
    Axis("ffn", lambda shape: shape.ffn, "layer"),
)

TRANSFORM = Axis("transform", lambda shape: shape.width, "model", elementwise=True)
"""What the language model's head makes of the residual stream before it meets the embedding."""

_POOLED = Axis("pooled", lambda shape: shape.width, "model", elementwise=True)

ENCODER_KEYS = MappingProxyType(
    {
        "num_hidden_layers": "layers",
        "hidden_size": "width",
        "num_attention_heads": "heads",
        "intermediate_size": "ffn",
        "vocab_size": "vocab",
        "max_position_embeddings": "positions",
        "type_vocab_size": "token_types",
    }
)


def encoder_table(prefix: str) -> dict[str, str]:
    """Embeddings and blocks; `prefix` is what their names begin with inside the model."""
    embeddings = {
        "word_embeddings.weight": "vocab hidden.out",
        "position_embeddings.weight": "position hidden.out",
        "token_type_embeddings.weight": "token_type hidden.out",
        "LayerNorm.weight": "hidden.gain",
        "LayerNorm.bias": "hidden.bias",
    }
    block = {
        "attention.self.query.weight": "query.out hidden.in",
        "attention.self.query.bias": "query.out",
        "attention.self.key.weight": "key.out hidden.in",
        "attention.self.key.bias": "key.out",
        "attention.self.value.weight": "value.out hidden.in",
        "attention.self.value.bias": "value.out",
        "attention.output.dense.weight": "hidden.out value.in",
        "attention.output.dense.bias": "hidden.out",
        "attention.output.LayerNorm.weight": "hidden.gain",
        "attention.output.LayerNorm.bias": "hidden.bias",
        "intermediate.dense.weight": "ffn.out hidden.in",
        "intermediate.dense.bias": "ffn.out",
        "output.dense.weight": "hidden.out ffn.in",
        "output.dense.bias": "hidden.out",
        "output.LayerNorm.weight": "hidden.gain",
        "output.LayerNorm.bias": "hidden.bias",
    }
    return {
        **{f"{prefix}embeddings.{name}": line for name, line in embeddings.items()},
        **{f"{prefix}encoder.layer.{{layer}}.{name}": line for name, line in block.items()},
    }


def _masked_lm_head(shape: ModelShape, transform: str, norm: str, head: str) -> dict[str, str]:
    """The head: what it makes of the residual stream, a norm, and the embedding or a decoder of its own.

    Where the decoder is its own so is its bias, and the head's other one is of no effect in the library.
    """
    prefix = "head_" if shape.tied else ""
    table = {
        f"{transform}.weight": "transform.out hidden.in",
        f"{transform}.bias": "transform.out",
        f"{norm}.weight": f"transform.{prefix}gain",
        f"{norm}.bias": f"transform.{prefix}bias",
        f"{head}.bias": "vocab",
    }
    if not shape.tied:
        table |= {f"{head}.decoder.weight": "vocab transform.in", f"{head}.decoder.bias": "vocab"}
    return table


def _masked_lm_table(shape: ModelShape) -> dict[str, str]:
    names = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions")
    return {**encoder_table("bert."), **_masked_lm_head(shape, *names)}


def _encoder_table(_shape: ModelShape) -> dict[str, str]:
    return {
        **encoder_table(""),
        "pooler.dense.weight": "pooled.out hidden.in",
        "pooler.dense.bias": "pooled.out",
    }


BERT = Architecture(
    name="bert",
    model_class="BertForMaskedLM",
    config_class="BertConfig",
    layers_path="bert.encoder.layer",
    objective="masked_lm",
    normalization="layer_norm",
    axes={axis.name: axis for axis in (*ENCODER_AXES, TRANSFORM)},
    table=_masked_lm_table,
    config_keys={**ENCODER_KEYS, "tie_word_embeddings": "tied"},
    default_ffn=lambda width: 4 * width,
    ties_embeddings=True,
    norm_epsilon="layer_norm_eps",
    post_norm=True,
    token_types=2,
    softmax_in_fp32=False,
)

BERT_ENCODER = replace(
    BERT,
    name="bert_encoder",
    model_class="BertModel",
    layers_path="encoder.layer",
    objective="features",
    axes={axis.name: axis for axis in (*ENCODER_AXES, _POOLED)},
    table=_encoder_table,
    config_keys=ENCODER_KEYS,
    ties_embeddings=None,
)


_OFFSET = 2

_POSITION = Axis("position", lambda shape: shape.positions + _OFFSET, "fixed")


def _table(shape: ModelShape) -> dict[str, str]:
    return {
        **encoder_table("roberta."),
        **_masked_lm_head(shape, "lm_head.dense", "lm_head.layer_norm", "lm_head"),
    }


ROBERTA = replace(
    BERT,
    name="roberta",
    model_class="RobertaForMaskedLM",
    config_class="RobertaConfig",
    layers_path="roberta.encoder.layer",
    axes={axis.name: axis for axis in (*ENCODER_AXES, TRANSFORM, _POSITION)},
    table=_table,
    position_offset=_OFFSET,
    token_types=1,
)
