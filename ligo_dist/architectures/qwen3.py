"""Qwen3: Llama with a norm inside every query and key head, one gain for all heads of a layer."""

from __future__ import annotations

from dataclasses import replace

from ligo_dist.architectures.llama import AXES, LLAMA, llama_table
from ligo_dist.architectures.table import Axis, ModelShape

_HEAD = Axis("head", lambda shape: shape.head_size, "fixed")

_NORMS = {"q_norm.weight": "head", "k_norm.weight": "head"}

_NORMED = ("query", "key")


def _table(shape: ModelShape) -> dict[str, str]:
    return llama_table(shape, _NORMS)


QWEN3 = replace(
    LLAMA,
    name="qwen3",
    model_class="Qwen3ForCausalLM",
    config_class="Qwen3Config",
    axes={axis.name: replace(axis, normed=axis.name in _NORMED) for axis in (*AXES, _HEAD)},
    table=_table,
)
