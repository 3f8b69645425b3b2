"""What is said before a run begins of models that the library, or the table, does not make as they are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.huggingface import check, check_models, differing_blocks, model_faults
from small_models import library_model, small_shape


def faults(family: str, keys: dict[str, Any], *shapes: ModelShape) -> list[str]:
    both = shapes or (small_shape(family), small_shape(family, 3))
    return [str(fault) for fault in model_faults(get_architecture(family), both, keys, 6)]


@pytest.mark.parametrize(
    ("family", "attention", "accelerator", "said"),
    [
        ("gpt2", "sdpa", "cpu", None),
        ("llama", "flex_attention", "cpu", "trains on accelerators alone"),
        ("llama", "flex_attention", "cuda", None),
        ("gpt2", "flex_attention", "cuda", "GPT2LMHeadModel refuses it: "),
        ("llama", "flash_attention_3", "cuda", "LlamaForCausalLM refuses it: "),  # not installed
    ],
)
def test_an_attention_that_cannot_be_had(
    family: str, attention: str, accelerator: str, said: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(check, "get_accelerator_name", lambda: accelerator)
    faults, _ = check_models(get_architecture(family), [small_shape(family)], {}, 16, None, attention)
    assert [fault.path for fault in faults] == ([] if said is None else ["model.attention"])
    assert said is None or said in faults[0].message


def test_each_model_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library_model("gpt2", small_shape("gpt2")).save_pretrained(tmp_path)
    built, build = [], check.build_meta_model
    monkeypatch.setattr(check, "build_meta_model", lambda *given: built.append(given[1]) or build(*given))
    shapes = [small_shape("gpt2"), small_shape("gpt2", 3)]
    assert check_models(get_architecture("gpt2"), shapes, {}, 6, tmp_path) == ([], [])
    assert built == shapes


@pytest.mark.parametrize("family", architecture_names())
def test_every_family_can_be_built(family: str):
    assert faults(family, {}) == []


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("gpt2", "add_cross_attention", True),
        ("gpt_neox", "attention_bias", False),
        ("vit", "qkv_bias", False),
        ("deit", "qkv_bias", False),
        ("bert", "add_cross_attention", True),  # the library itself refuses it, as the model is no decoder
    ],
)
def test_a_key_that_changes_the_set_of_parameters_is_named(family: str, key: str, value: object):
    """Once for all stages, and beside keys that do no harm."""
    (said,) = faults(family, {"initializer_range": 0.03, key: value})
    assert said.startswith(f"model.huggingface.{key}: {value!r}: ")
    assert "which cannot be grown" in said or "BertConfig refuses it" in said


@pytest.mark.parametrize(("family", "keys"), [("llama", {"attention_bias": True, "mlp_bias": True})])
def test_biases_that_the_shape_knows(family: str, keys: dict[str, Any]):
    assert faults(family, keys, small_shape(family, **keys)) == []


@pytest.mark.parametrize("width", [20, 44])
def test_a_width_that_heads_do_not_divide(width: int):
    """Llama's class refuses it though it takes a head size; the others that take one do not."""
    shapes = [replace(small_shape("llama"), width=width), small_shape("llama")]
    (said,) = faults("llama", {}, *shapes)
    assert said.startswith(
        f"stages[0].size: LlamaConfig refuses it: The hidden size ({width}) is not a multiple"
    )
    for family in ("mistral", "qwen3"):
        assert faults(family, {}, replace(small_shape(family), width=width)) == []


def test_keys_that_only_together_are_at_fault():
    keys = {"pad_token_id": 200, "initializer_range": 0.03}
    (said,) = faults("llama", keys)
    assert said.startswith("model.huggingface.pad_token_id: 200: LlamaConfig refuses it: ")


@pytest.mark.parametrize(
    ("family", "keys", "words"),
    [
        ("bert", {"chunk_size_feed_forward": 4}, "6 has to be a multiple of the chunk size 4"),
        ("vit", {"return_dict": False}, "makes no loss"),
        ("vit", {"problem_type": "multi_label_classification"}, "makes no loss"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, None),
    ],
)
def test_what_fails_only_where_a_batch_is_given(family: str, keys: dict[str, Any], words: str | None):
    said = faults(family, keys)
    assert len(said) == (words is not None)
    assert all("ForMaskedLM" in one or "ForImage" in one for one in said)
    assert all(words is not None and words in one for one in said)


NUMBERED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "attn.scaling"),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, "self_attn.layer_type"),
    ("qwen3", {"use_sliding_window": True, "max_window_layers": 1}, "self_attn.layer_type"),
]


@pytest.mark.parametrize("family", architecture_names())
def test_blocks_are_alike(family: str):
    assert differing_blocks(library_model(family, small_shape(family, 3)), get_architecture(family)) is None


@pytest.mark.parametrize(("family", "keys", "setting"), NUMBERED)
def test_blocks_that_depend_on_their_number(family: str, keys: dict[str, Any], setting: str):
    architecture, shape = get_architecture(family), small_shape(family, 3)
    assert differing_blocks(library_model(family, shape, **keys), architecture) == setting
    assert faults(family, keys) == []
    silent = replace(architecture, numbering_keys=())
    (fault,) = model_faults(silent, [small_shape(family), shape], keys, 6)
    assert f"what a block computes depends on its number ({setting})" in fault.message
    assert model_faults(silent, [shape], keys, 6) == []
