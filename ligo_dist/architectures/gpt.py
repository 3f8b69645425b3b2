"""GPT-2, GPT-NeoX (Pythia) and OPT."""

from __future__ import annotations

from dataclasses import replace

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
    activation="gelu_new",
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


_OPT_CONFIG_KEYS = {
    "num_hidden_layers": "layers",
    "word_embed_proj_dim": "width",  # OPT-350M's differs, which this table has no parameters for
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "ffn_dim": "ffn",
    "vocab_size": "vocab",
    "max_position_embeddings": "positions",
    "tie_word_embeddings": "tied",
}


def _opt_table(shape: ModelShape) -> dict[str, str]:
    norm = ("hidden.gain", "hidden.bias")
    block = {
        "self_attn_layer_norm": norm,
        "self_attn.q_proj": ("query.out hidden.in", "query.out"),
        "self_attn.k_proj": ("key.out hidden.in", "key.out"),
        "self_attn.v_proj": ("value.out hidden.in", "value.out"),
        "self_attn.out_proj": ("hidden.out value.in", "hidden.out"),
        "final_layer_norm": norm,
        "fc1": ("ffn.out hidden.in", "ffn.out"),
        "fc2": ("hidden.out ffn.in", "hidden.out"),
    }
    modules = {f"layers.{{layer}}.{name}": lines for name, lines in block.items()}
    modules["final_layer_norm"] = ("hidden.head_gain", "hidden.head_bias") if shape.tied else norm
    table = {
        "model.decoder.embed_tokens.weight": "vocab hidden.out",
        "model.decoder.embed_positions.weight": "position hidden.out",
    }
    for name, (weight, bias) in modules.items():
        table |= {f"model.decoder.{name}.weight": weight, f"model.decoder.{name}.bias": bias}
    if not shape.tied:
        table["lm_head.weight"] = "vocab hidden.in"
    return table


OPT = replace(
    GPT2,
    name="opt",
    model_class="OPTForCausalLM",
    config_class="OPTConfig",
    layers_path="model.decoder.layers",
    # Its embedding has two more rows than the configuration counts positions.
    axes={**GPT2.axes, "position": Axis("position", lambda shape: shape.positions + 2, "fixed")},
    table=_opt_table,
    config_keys=_OPT_CONFIG_KEYS,
    norm_epsilon=None,
    activation="relu",
    softmax_in_fp32=True,
    masks_by_positions=False,
    numbering_keys=(),
)
