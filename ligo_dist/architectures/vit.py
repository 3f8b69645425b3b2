"""ViT and DeiT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ligo_dist.architectures.table import Architecture, Axis, ModelShape

_CONFIG_KEYS = {
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "num_channels": "channels",
    "num_labels": "labels",
}


def image_axes(special_tokens: int) -> Mapping[str, Axis]:
    """The axes of a model that puts so many tokens of its own before the patches."""
    axes = (
        Axis("one", lambda shape: 1, "fixed"),
        Axis("position", lambda shape: shape.patches + special_tokens, "fixed"),
        Axis("channel", lambda shape: shape.channels, "fixed"),
        Axis("patch", lambda shape: shape.patch_size, "fixed"),
        Axis("label", lambda shape: shape.labels, "fixed"),
        Axis("hidden", lambda shape: shape.width, "model"),
        Axis("query", lambda shape: shape.width, "layer", heads=True),
        Axis("key", lambda shape: shape.width, "layer", heads=True),
        Axis("value", lambda shape: shape.width, "layer", heads=True),
        Axis("ffn", lambda shape: shape.ffn, "layer"),
    )
    return {axis.name: axis for axis in axes}


def image_table(prefix: str, special_tokens: tuple[str, ...]) -> dict[str, str]:
    """The table; `prefix` is what names begin with inside the model, `special_tokens` are the model's own tokens."""
    block = {
        "layernorm_before.weight": "hidden.gain",
        "layernorm_before.bias": "hidden.bias",
        "attention.q_proj.weight": "query.out hidden.in",
        "attention.q_proj.bias": "query.out",
        "attention.k_proj.weight": "key.out hidden.in",
        "attention.k_proj.bias": "key.out",
        "attention.v_proj.weight": "value.out hidden.in",
        "attention.v_proj.bias": "value.out",
        "attention.o_proj.weight": "hidden.out value.in",
        "attention.o_proj.bias": "hidden.out",
        "layernorm_after.weight": "hidden.gain",
        "layernorm_after.bias": "hidden.bias",
        "mlp.fc1.weight": "ffn.out hidden.in",
        "mlp.fc1.bias": "ffn.out",
        "mlp.fc2.weight": "hidden.out ffn.in",
        "mlp.fc2.bias": "hidden.out",
    }
    return {
        **{f"{prefix}.embeddings.{token}": "one one hidden.out" for token in special_tokens},
        f"{prefix}.embeddings.position_embeddings": "one position hidden.out",
        f"{prefix}.embeddings.patch_embeddings.projection.weight": "hidden.out channel patch patch",
        f"{prefix}.embeddings.patch_embeddings.projection.bias": "hidden.out",
        **{f"{prefix}.layers.{{layer}}.{name}": line for name, line in block.items()},
        f"{prefix}.layernorm.weight": "hidden.gain",
        f"{prefix}.layernorm.bias": "hidden.bias",
        "classifier.weight": "label hidden.in",
        "classifier.bias": "label",
    }


def _vit_table(_shape: ModelShape) -> dict[str, str]:
    return image_table("vit", ("cls_token",))


VIT = Architecture(
    name="vit",
    model_class="ViTForImageClassification",
    config_class="ViTConfig",
    layers_path="vit.layers",
    objective="image_classification",
    normalization="layer_norm",
    axes=image_axes(special_tokens=1),
    table=_vit_table,
    config_keys=_CONFIG_KEYS,
    default_ffn=lambda width: 4 * width,
    ties_embeddings=None,
    norm_epsilon="layer_norm_eps",
)


def _deit_table(_shape: ModelShape) -> dict[str, str]:
    return image_table("deit", ("cls_token", "distillation_token"))


DEIT = replace(
    VIT,
    name="deit",
    model_class="DeiTForImageClassification",
    config_class="DeiTConfig",
    layers_path="deit.layers",
    axes=image_axes(special_tokens=2),
    table=_deit_table,
)
