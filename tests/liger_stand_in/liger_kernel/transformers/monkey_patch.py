"""Llama alone. As Liger does, the fused loss takes the head's weight and never calls the head."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

APPLIED: list[dict[str, bool]] = []


def _fused(self: Any, labels: Tensor | None = None, **inputs: Any) -> CausalLMOutputWithPast:
    hidden = self.model(**inputs).last_hidden_state
    if not self.training or labels is None:
        logits = self.lm_head(hidden)
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=logits.shape[-1])
        return CausalLMOutputWithPast(loss=loss, logits=logits)
    logits = nn.functional.linear(hidden[:, :-1], self.lm_head.weight).float()
    return CausalLMOutputWithPast(
        loss=nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
    )


def _norm(self: Any, hidden: Tensor) -> Tensor:
    return nn.functional.rms_norm(hidden, hidden.shape[-1:], self.weight, self.variance_epsilon)


def _swiglu(self: Any, hidden: Tensor) -> Tensor:
    return self.down_proj(nn.functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


def apply_liger_kernel_to_llama(
    rope: bool = True,
    cross_entropy: bool = False,
    fused_linear_cross_entropy: bool = True,
    rms_norm: bool = True,
    swiglu: bool = True,
    model: PreTrainedModel | None = None,
) -> None:
    APPLIED.append({"rope": rope, "cross_entropy": cross_entropy, "rms_norm": rms_norm, "swiglu": swiglu})
    assert model is not None
    if fused_linear_cross_entropy:
        model.forward = MethodType(_fused, model)
    for layer in model.model.layers:
        if swiglu:
            layer.mlp.forward = MethodType(_swiglu, layer.mlp)
        if rms_norm:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.forward = MethodType(_norm, norm)
    if rms_norm:
        model.model.norm.forward = MethodType(_norm, model.model.norm)


MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": apply_liger_kernel_to_llama}


def _apply_liger_kernel_to_instance(model: PreTrainedModel, **kernels: bool) -> None:
    with torch.no_grad():
        MODEL_TYPE_TO_APPLY_LIGER_FN[model.config.model_type](model=model, **kernels)
