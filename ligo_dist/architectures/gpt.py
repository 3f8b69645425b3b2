"""GPT-2 and GPT-NeoX (Pythia)."""

from __future__ import annotations

from ligo_dist.architectures.table import Architecture, Axis, ModelShape

_GPT2_AXES = (
    Axis("vocab", lambda shape: shape.vocab, "fixed"),
    Axis("position", lambda shape: shape.positions, "fixed"),
    Axis("hidden", lambda shape: shape.width, "model"),
    Axis("query", lambda shape: shape.width, "layer", heads=True),
    Axis("key", lambda shape: shape.width, "layer", heads=True),
    Axis("value", lambda shape: shape.width, "layer", heads=True),
    Axis("ffn", lambda shape: shape.ffn, "layer"),
)

_GPT2_CONFIG_KEYS = {
    "n_layer": "layers",
    "n_embd": "width",
    "n_head": "heads",
    "n_inner": "ffn",
    "vocab_size": "vocab",
    "n_positions": "positions",
    "tie_word_embeddings": "tied",
}


def _gpt2_table(shape: ModelShape) -> dict[str, str]:
    table = {
        "transformer.wte.weight": "vocab hidden.out",
        "transformer.wpe.weight": "position hidden.out",
        "transformer.h.{layer}.ln_1.weight": "hidden.gain",
        "transformer.h.{layer}.ln_1.bias": "hidden.bias",
        "transformer.h.{layer}.attn.c_attn.weight": "hidden.in query.out+key.out+value.out",
        "transformer.h.{layer}.attn.c_attn.bias": "query.out+key.out+value.out",
        "transformer.h.{layer}.attn.c_proj.weight": "value.in hidden.out",
        "transformer.h.{layer}.attn.c_proj.bias": "hidden.out",
        "transformer.h.{layer}.ln_2.weight": "hidden.gain",
        "transformer.h.{layer}.ln_2.bias": "hidden.bias",
        "transformer.h.{layer}.mlp.c_fc.weight": "hidden.in ffn.out",
        "transformer.h.{layer}.mlp.c_fc.bias": "ffn.out",
        "transformer.h.{layer}.mlp.c_proj.weight": "ffn.in hidden.out",
        "transformer.h.{layer}.mlp.c_proj.bias": "hidden.out",
        "transformer.ln_f.weight": "hidden.head_gain" if shape.tied else "hidden.gain",
        "transformer.ln_f.bias": "hidden.head_bias" if shape.tied else "hidden.bias",
    }
    if not shape.tied:
        table["lm_head.weight"] = "vocab hidden.in"
    return table


GPT2 = Architecture(
    name="gpt2",
    model_class="GPT2LMHeadModel",
    config_class="GPT2Config",
    layers_path="transformer.h",
    objective="causal_lm",
    normalization="layer_norm",
    axes={axis.name: axis for axis in _GPT2_AXES},
    table=_gpt2_table,
    config_keys=_GPT2_CONFIG_KEYS,
    default_ffn=lambda width: 4 * width,
    ties_embeddings=True,
    norm_epsilon="layer_norm_epsilon",
    writes_gelu_out=True,
    softmax_in_fp32=False,
    numbering_keys=("scale_attn_by_inverse_layer_idx",),
)


_NEOX_AXES = (
    Axis("vocab", lambda shape: shape.vocab, "fixed"),
    Axis("hidden", lambda shape: shape.width, "model"),
    Axis("query", lambda shape: shape.width, "layer", unit="head", heads=True),
    Axis("key", lambda shape: shape.width, "layer", unit="head", heads=True),
    Axis("value", lambda shape: shape.width, "layer", heads=True),
    Axis("ffn", lambda shape: shape.ffn, "layer"),
)

_NEOX_CONFIG_KEYS = {
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn",
    "vocab_size": "vocab",
    "max_position_embeddings": "positions",
    "tie_word_embeddings": "tied",
}


def _neox_table(shape: ModelShape) -> dict[str, str]:
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
    axes={axis.name: axis for axis in _NEOX_AXES},
    table=_neox_table,
    config_keys=_NEOX_CONFIG_KEYS,
    default_ffn=lambda width: 4 * width,
    ties_embeddings=False,
    norm_epsilon="layer_norm_eps",
    rotary=True,
    rotary_part=0.25,
    parallel_branches=True,
)
