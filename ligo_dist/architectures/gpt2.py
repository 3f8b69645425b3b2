"""GPT-2: fused, transposed QKV (`Conv1D` stores input x output), learned positions, LayerNorm, biases everywhere."""

from __future__ import annotations

from ligo_dist.architectures.table import Architecture, Axis, ModelShape

_AXES = (
    Axis("vocab", lambda shape: shape.vocab, "fixed"),
    Axis("position", lambda shape: shape.positions, "fixed"),
    Axis("hidden", lambda shape: shape.width, "model"),
    Axis("query", lambda shape: shape.width, "layer", heads=True),
    Axis("key", lambda shape: shape.width, "layer", heads=True),
    Axis("value", lambda shape: shape.width, "layer", heads=True),
    Axis("ffn", lambda shape: shape.ffn, "layer"),
)

_CONFIG_KEYS = {
    "n_layer": "layers",
    "n_embd": "width",
    "n_head": "heads",
    "n_inner": "ffn",
    "vocab_size": "vocab",
    "n_positions": "positions",
    "tie_word_embeddings": "tied",
}


def _table(shape: ModelShape) -> dict[str, str]:
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
    axes={axis.name: axis for axis in _AXES},
    table=_table,
    config_keys=_CONFIG_KEYS,
    default_ffn=lambda width: 4 * width,
    ties_embeddings=True,
    norm_epsilon="layer_norm_epsilon",
    writes_gelu_out=True,
    softmax_in_fp32=False,
)
