"""What a block keeps for its backward pass, against the tensors that torch saves: to the byte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.huggingface import heed_positions, huggingface_config
from ligo_dist.planning import Setting, activation_bytes
from small_models import random_batch, small_shape

FAMILIES = [name for name in architecture_names() if get_architecture(name).objective != "features"]
LENGTH, SEQUENCES = 16, 2
DROPOUT = {
    "gpt2": ({"resid_pdrop": 0.1}, {"attn_pdrop": 0.1}),
    "bert": ({"hidden_dropout_prob": 0.1}, {"attention_probs_dropout_prob": 0.1}),
    "vit": ({"hidden_dropout_prob": 0.1}, {"attention_probs_dropout_prob": 0.1}),
    "llama": (None, {"attention_dropout": 0.1}),
}


def saved_bytes(
    family: str, shape: ModelShape, dtype: torch.dtype, attention: str, apart: bool = False, **keys: object
) -> int:
    """Bytes of the storages that a forward pass saves, weights and buffers aside; `apart`: of two documents each."""
    architecture = get_architecture(family)
    config = huggingface_config(architecture, shape, {"attn_implementation": attention, **keys})
    model = getattr(transformers, architecture.model_class)(config).to(dtype).train()
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in known:
            saved[address] = tensor
        return tensor

    batch = random_batch(family, shape, SEQUENCES, LENGTH)
    inputs = {name: t.to(dtype) if t.is_floating_point() else t for name, t in batch.items()}
    if apart:
        heed_positions(architecture, model, dtype)
        inputs["position_ids"] = torch.arange(LENGTH).expand(SEQUENCES, -1) % 9 + architecture.position_offset
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def block_bytes(family: str, dtype: torch.dtype, attention: str, **keys: Any) -> tuple[ModelShape, int]:
    """What one block more saves; of an odd inner width."""
    two, three = (small_shape(family, layers=layers, heads=6, ffn=101) for layers in (2, 3))
    saved = [saved_bytes(family, shape, dtype, attention, **keys) for shape in (two, three)]
    return two, saved[1] - saved[0]


def length_of(family: str, shape: ModelShape) -> int:
    return get_architecture(family).axes["position"].size(shape) if shape.image_size else LENGTH


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_keeps_what_torch_saves(family: str, dtype: torch.dtype, attention: str) -> None:
    shape, saved = block_bytes(family, dtype, attention)
    setting = Setting(get_architecture(family), 1, dtype.itemsize, fused=attention == "sdpa")
    assert activation_bytes(setting, shape, length_of(family, shape), SEQUENCES).block == saved


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert"])
def test_documents_kept_apart_keep_a_mask(family: str, dtype: torch.dtype, attention: str) -> None:
    shape, saved = block_bytes(family, dtype, attention, apart=True)
    setting = Setting(
        get_architecture(family), 1, dtype.itemsize, fused=attention == "sdpa", masked=attention == "sdpa"
    )
    assert activation_bytes(setting, shape, LENGTH, SEQUENCES).block == saved


@pytest.mark.parametrize(
    ("family", "key", "activation"),
    [
        ("gpt2", "activation_function", "gelu_pytorch_tanh"),
        ("gpt2", "activation_function", "gelu_new"),
        ("gpt_neox", "hidden_act", "gelu_new"),
    ],
)
def test_another_activation_keeps_other_tensors(family: str, key: str, activation: str) -> None:
    shape, saved = block_bytes(family, torch.float32, "sdpa", **{key: activation})
    setting = Setting(get_architecture(family), number=4, activation=activation)
    assert activation_bytes(setting, shape, LENGTH, SEQUENCES).block == saved


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("family", DROPOUT)
def test_dropout_keeps_what_it_dropped(family: str, dtype: torch.dtype) -> None:
    hidden, attention = DROPOUT[family]
    shape, saved = block_bytes(family, dtype, "eager", **(hidden or {}), **attention)
    setting = Setting(
        get_architecture(family),
        1,
        dtype.itemsize,
        on_gpu=False,
        fused=False,
        hidden_dropout=hidden is not None,
        attention_dropout=True,
    )
    assert activation_bytes(setting, shape, length_of(family, shape), SEQUENCES).block == saved


def test_a_block_worked_out_by_hand() -> None:
    setting = Setting(get_architecture("llama"))
    shape = ModelShape(layers=2, width=8, heads=4, key_value_heads=2, ffn=24, vocab=50, tied=False)
    plain, again = (activation_bytes(setting, shape, 16, 3, checkpointed=each) for each in (False, True))
    # Two norms: an fp32 input of 8, its root mean square, and two bf16 tensors of 8. Attention: 8 query elements and 8
    # of output, 4 key and 4 value elements, a number in fp32 per head. Four tensors of the inner width.
    token = 2 * (8 * 4 + 4 + 2 * 8 * 2) + (8 + 8 + 4 + 4) * 2 + 4 * 4 + 4 * 24 * 2
    assert plain.block == 48 * token == 48 * 392
    assert plain.block_input == 48 * 8 * 2
    assert plain.loss == plain.in_evaluation == 48 * 50 * 12
    assert replace(plain, loss=0).in_evaluation == 48 * (8 * 2 + token)
    norm = 8 * 4 + 4 + 2 * 8 * 2
    assert plain.kept == 48 * (2 * token + norm)
    assert again.kept == 48 * (2 * 8 * 2 + norm)
    inner = 3 * 48 * 24 * 2
    assert plain.in_backward == 48 * (2 * token + norm) + inner
    assert again.in_backward == 48 * (2 * 8 * 2 + token + norm) + inner


def test_plain_attention_grows_with_the_square_of_the_sequence() -> None:
    setting = Setting(get_architecture("gpt2"), fused=False)
    shape = ModelShape(layers=1, width=8, heads=2, key_value_heads=2, ffn=32, vocab=50, tied=True)
    short, long = (activation_bytes(setting, shape, length, 1).block for length in (64, 128))
    assert long - 2 * short == 2 * 2 * (128 * 128 - 2 * 64 * 64)
    fused = replace(setting, fused=True)
    short, long = (activation_bytes(fused, shape, length, 1).block for length in (64, 128))
    assert long == 2 * short


def test_a_classifier_has_few_logits_and_a_model_of_features_none() -> None:
    shape = small_shape("vit", labels=7)
    assert activation_bytes(Setting(get_architecture("vit")), shape, 10, 3).loss == 3 * 7 * 12
    shape = small_shape("bert_encoder")
    assert activation_bytes(Setting(get_architecture("bert_encoder")), shape, 10, 3).loss == 0
