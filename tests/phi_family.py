"""Phi, a family that the package does not know: what a user writes to add one, as `phi_family:PHI`."""

from dataclasses import replace

from ligo_dist.architectures import CONFIG_KEYS, LLAMA, ModelShape


def _table(shape: ModelShape) -> dict[str, str]:
    block = {
        "input_layernorm": ("hidden.gain", "hidden.bias"),
        "self_attn.q_proj": ("query.out hidden.in", "query.out"),
        "self_attn.k_proj": ("key.out hidden.in", "key.out"),
        "self_attn.v_proj": ("value.out hidden.in", "value.out"),
        "self_attn.dense": ("hidden.out attention.in", "hidden.out"),
        "mlp.fc1": ("ffn.out hidden.in", "ffn.out"),
        "mlp.fc2": ("hidden.out ffn.in", "hidden.out"),
    }
    modules = {f"model.layers.{{layer}}.{name}": lines for name, lines in block.items()}
    modules |= {"model.final_layernorm": block["input_layernorm"], "lm_head": ("vocab hidden.in", "vocab")}
    table = {"model.embed_tokens.weight": "vocab hidden.out"}
    for name, (weight, bias) in modules.items():
        table |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return table


PHI = replace(
    LLAMA,
    name="phi",
    model_class="PhiForCausalLM",
    config_class="PhiConfig",
    normalization="layer_norm",
    table=_table,
    config_keys=CONFIG_KEYS,
    default_ffn=lambda width: 4 * width,
    norm_epsilon="layer_norm_eps",
    rotary_part=0.5,
    free_head_size=False,
)
