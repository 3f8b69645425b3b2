"""Llama and what follows its table: Mistral, Qwen2 (biases on query, key and value; the head size is the width over the
heads), Qwen3 (norms on query and key). Llama's and Qwen3's configurations may ask for biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ligo_dist.architectures.table import Architecture, Axis, ModelShape

AXES = (
    Axis("vocab", lambda shape: shape.vocab, "fixed"),
    Axis("hidden", lambda shape: shape.width, "model"),
    Axis("query", lambda shape: shape.attention_width, "layer", unit="head", grouped=True, heads=True),
    Axis("key", lambda shape: shape.key_value_heads * shape.head_size, "layer", unit="head", heads=True),
    Axis("value", lambda shape: shape.key_value_heads * shape.head_size, "layer", heads=True),
    Axis("attention", lambda shape: shape.attention_width, "layer", lifted_from="value", heads=True),
    Axis("ffn", lambda shape: shape.ffn, "layer"),
)

CONFIG_KEYS = MappingProxyType(
    {
        "num_hidden_layers": "layers",
        "hidden_size": "width",
        "num_attention_heads": "heads",
        "num_key_value_heads": "key_value_heads",
        "intermediate_size": "ffn",
        "vocab_size": "vocab",
        "max_position_embeddings": "positions",
        "tie_word_embeddings": "tied",
    }
)


def llama_table(
    shape: ModelShape, more_attention: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The table; `more_attention` are further lines of the attention module, which come before its output."""
    attention = {f"model.layers.{{layer}}.self_attn.{name}": line for name, line in more_attention.items()}
    if shape.attention_bias:
        attention |= {
            f"model.layers.{{layer}}.self_attn.{name}": line for name, line in _INPUT_BIASES.items()
        }
    table = {
        "model.embed_tokens.weight": "vocab hidden.out",
        "model.layers.{layer}.input_layernorm.weight": "hidden.gain",
        "model.layers.{layer}.self_attn.q_proj.weight": "query.out hidden.in",
        "model.layers.{layer}.self_attn.k_proj.weight": "key.out hidden.in",
        "model.layers.{layer}.self_attn.v_proj.weight": "value.out hidden.in",
        **attention,
        "model.layers.{layer}.self_attn.o_proj.weight": "hidden.out attention.in",
        "model.layers.{layer}.post_attention_layernorm.weight": "hidden.gain",
        "model.layers.{layer}.mlp.gate_proj.weight": "ffn.out hidden.in",
        "model.layers.{layer}.mlp.up_proj.weight": "ffn.out hidden.in",
        "model.layers.{layer}.mlp.down_proj.weight": "hidden.out ffn.in",
        "model.norm.weight": "hidden.head_gain" if shape.tied else "hidden.gain",
    }
    if shape.attention_bias:
        table["model.layers.{layer}.self_attn.o_proj.bias"] = "hidden.out"
    if shape.mlp_bias:
        table |= {f"model.layers.{{layer}}.mlp.{name}": line for name, line in _MLP_BIASES.items()}
    if not shape.tied:
        table["lm_head.weight"] = "vocab hidden.in"
    return table


_INPUT_BIASES = {"q_proj.bias": "query.out", "k_proj.bias": "key.out", "v_proj.bias": "value.out"}
_MLP_BIASES = {"gate_proj.bias": "ffn.out", "up_proj.bias": "ffn.out", "down_proj.bias": "hidden.out"}


def _default_ffn(width: int) -> int:
    """8/3 of the width, so that three matrices cost what two of 4x would, rounded up to a multiple of 8."""
    return -(-8 * width // 3 // 8) * 8


LLAMA = Architecture(
    name="llama",
    model_class="LlamaForCausalLM",
    config_class="LlamaConfig",
    layers_path="model.layers",
    objective="causal_lm",
    normalization="rms_norm",
    axes={axis.name: axis for axis in AXES},
    table=llama_table,
    config_keys={
        **CONFIG_KEYS,
        "head_dim": "head_size",
        "attention_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
    },
    default_ffn=_default_ffn,
    ties_embeddings=False,
    norm_epsilon="rms_norm_eps",
    rotary=True,
    free_head_size=True,
)


MISTRAL = replace(
    LLAMA,
    name="mistral",
    model_class="MistralForCausalLM",
    config_class="MistralConfig",
    config_keys={**CONFIG_KEYS, "head_dim": "head_size"},
)


_LAYER_TYPES = ("use_sliding_window", "layer_types")
"""Either says which blocks attend to a window only."""


def _qwen2_table(shape: ModelShape) -> dict[str, str]:
    return llama_table(shape, _INPUT_BIASES)


QWEN2 = replace(
    LLAMA,
    name="qwen2",
    model_class="Qwen2ForCausalLM",
    config_class="Qwen2Config",
    table=_qwen2_table,
    config_keys=CONFIG_KEYS,
    free_head_size=False,
    numbering_keys=_LAYER_TYPES,
)


_HEAD = Axis("head", lambda shape: shape.head_size, "fixed")

_NORMS = {"q_norm.weight": "head", "k_norm.weight": "head"}

_NORMED = ("query", "key")


def _qwen3_table(shape: ModelShape) -> dict[str, str]:
    return llama_table(shape, _NORMS)


QWEN3 = replace(
    LLAMA,
    name="qwen3",
    model_class="Qwen3ForCausalLM",
    config_class="Qwen3Config",
    axes={axis.name: replace(axis, normed=axis.name in _NORMED) for axis in (*AXES, _HEAD)},
    table=_qwen3_table,
    config_keys={**CONFIG_KEYS, "head_dim": "head_size", "attention_bias": "attention_bias"},
    numbering_keys=_LAYER_TYPES,
)
