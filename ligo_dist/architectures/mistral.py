"""Mistral: Llama's parameters under Llama's names."""

from __future__ import annotations

from dataclasses import replace

from ligo_dist.architectures.llama import LLAMA

MISTRAL = replace(LLAMA, name="mistral", model_class="MistralForCausalLM", config_class="MistralConfig")
