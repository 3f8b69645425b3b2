"""DeiT: ViT with a distillation token; `DeiTForImageClassification`, whose classifier reads the class token alone."""

from __future__ import annotations

from dataclasses import replace

from ligo_dist.architectures.table import ModelShape
from ligo_dist.architectures.vit import VIT, image_axes, image_table


def _table(_shape: ModelShape) -> dict[str, str]:
    return image_table("deit", ("cls_token", "distillation_token"))


DEIT = replace(
    VIT,
    name="deit",
    model_class="DeiTForImageClassification",
    config_class="DeiTConfig",
    layers_path="deit.layers",
    axes=image_axes(special_tokens=2),
    table=_table,
)
