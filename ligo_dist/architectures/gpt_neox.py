"""GPT-NeoX (Pythia): QKV fused head by head, rotary positions in a part of each head, LayerNorm, biases, attention and
feed-forward side by side (`use_parallel_residual`), untied head."""

from __future__ import annotations

from ligo_dist.architectures.table import Architecture, Axis, ModelShape

_AXES = (
    Axis("vocab", lambda shape: shape.vocab, "fixed"),
    Axis("hidden", lambda shape: shape.width, "model"),
    Axis("query", lambda shape: shape.width, "layer", unit="head", heads=True),
    Axis("key", lambda shape: shape.width, "layer", unit="head", heads=True),
    Axis("value", lambda shape: shape.width, "layer", heads=True),
    Axis("ffn", lambda shape: shape.ffn, "layer"),
)

_CONFIG_KEYS = {
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn",
    "vocab_size": "vocab",
    "max_position_embeddings": "positions",
    "tie_word_embeddings": "tied",
}


def _table(shape: ModelShape) -> dict[str, str]:
    table = {
        "gpt_neox.embed_in.weight": "vocab hidden.out",
        "gpt_neox.layers.{layer}.input_layernorm.weight": "hidden.gain",
        "gpt_neox.layers.{layer}.input_layernorm.bias": "hidden.bias",
        "gpt_neox.layers.{layer}.attention.query_key_value.weight": "query.out|key.out|value.out hidden.in",
        "gpt_neox.layers.{layer}.attention.query_key_value.bias": "query.out|key.out|value.out",
        "gpt_neox.layers.{layer}.attention.dense.weight": "hidden.out value.in",
        "gpt_neox.layers.{layer}.attention.dense.bias": "hidden.out",
        "gpt_neox.layers.{layer}.post_attention_layernorm.weight": "hidden.gain",
        "gpt_neox.layers.{layer}.post_attention_layernorm.bias": "hidden.bias",
        "gpt_neox.layers.{layer}.mlp.dense_h_to_4h.weight": "ffn.out hidden.in",
        "gpt_neox.layers.{layer}.mlp.dense_h_to_4h.bias": "ffn.out",
        "gpt_neox.layers.{layer}.mlp.dense_4h_to_h.weight": "hidden.out ffn.in",
        "gpt_neox.layers.{layer}.mlp.dense_4h_to_h.bias": "hidden.out",
        "gpt_neox.final_layer_norm.weight": "hidden.head_gain" if shape.tied else "hidden.gain",
        "gpt_neox.final_layer_norm.bias": "hidden.head_bias" if shape.tied else "hidden.bias",
    }
    if not shape.tied:
        table["lm_head.weight"] = "vocab hidden.in"
    return table


GPT_NEOX = Architecture(
    name="gpt_neox",
    model_class="GPTNeoXForCausalLM",
    config_class="GPTNeoXConfig",
    layers_path="gpt_neox.layers",
    objective="causal_lm",
    normalization="layer_norm",
    axes={axis.name: axis for axis in _AXES},
    table=_table,
    config_keys=_CONFIG_KEYS,
    default_ffn=lambda width: 4 * width,
    ties_embeddings=False,
    norm_epsilon="layer_norm_eps",
    rotary=True,
    rotary_part=0.25,
    parallel_branches=True,
)
