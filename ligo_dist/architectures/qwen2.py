"""Qwen2: Llama with biases on query, key and value; the head size is the width over the heads."""

from __future__ import annotations

from dataclasses import replace

from ligo_dist.architectures.llama import CONFIG_KEYS, LLAMA, llama_table
from ligo_dist.architectures.table import ModelShape

_BIASES = {"q_proj.bias": "query.out", "k_proj.bias": "key.out", "v_proj.bias": "value.out"}


def _table(shape: ModelShape) -> dict[str, str]:
    return llama_table(shape, _BIASES)


QWEN2 = replace(
    LLAMA,
    name="qwen2",
    model_class="Qwen2ForCausalLM",
    config_class="Qwen2Config",
    table=_table,
    config_keys=CONFIG_KEYS,
    free_head_size=False,
)
