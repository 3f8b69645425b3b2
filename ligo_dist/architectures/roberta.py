"""RoBERTa: BERT's encoder; positions are counted from behind the padding token's, the head has names of its own."""

from __future__ import annotations

from dataclasses import replace

from ligo_dist.architectures.bert import BERT, ENCODER_AXES, TRANSFORM, encoder_table
from ligo_dist.architectures.table import Axis, ModelShape

_OFFSET = 2

_POSITION = Axis("position", lambda shape: shape.positions + _OFFSET, "fixed")


def _table(_shape: ModelShape) -> dict[str, str]:
    return {
        **encoder_table("roberta."),
        "lm_head.dense.weight": "transform.out hidden.in",
        "lm_head.dense.bias": "transform.out",
        "lm_head.layer_norm.weight": "transform.head_gain",
        "lm_head.layer_norm.bias": "transform.head_bias",
        "lm_head.bias": "vocab",
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
