"""What directories that are almost right give a model: what is left out, what begins anew, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from ligo_dist.architectures import get_architecture
from ligo_dist.huggingface import Match, build_meta_model, match_weights
from ligo_dist.runtime.errors import CheckpointError
from small_models import library_config, small_shape


def saved(directory: Path, family: str, model_class: str | None = None, **sizes: Any) -> Path:
    """A directory as the library's class writes it; `sizes` are of its shape."""
    architecture = get_architecture(family)
    cls = getattr(transformers, model_class or architecture.model_class)
    cls(library_config(architecture, small_shape(family, **sizes))).save_pretrained(directory)
    return directory


def renamed(directory: Path, change: Callable[[str], str]) -> Path:
    file = directory / "model.safetensors"
    tensors = {change(name): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


def match(family: str, directory: Path, **sizes: Any) -> Match:
    architecture, shape = get_architecture(family), small_shape(family, **sizes)
    model = build_meta_model(architecture, shape, library_config(architecture, shape), torch.device("cpu"))
    return match_weights(directory, architecture, shape, model)


_BERT_HEAD = "cls.predictions.transform.dense, cls.predictions.transform.LayerNorm, cls.predictions"
_ANEW = "not in the files, so it begins with random values"


@pytest.mark.parametrize(
    ("family", "model_class", "notes"),
    [
        ("bert", "BertForPreTraining", ["bert.pooler.dense, cls.seq_relationship: left out, as"]),
        ("bert", "BertModel", [f"{_BERT_HEAD}: {_ANEW}", "pooler.dense: left out, as"]),
        ("bert", "BertForTokenClassification", [f"{_BERT_HEAD}: {_ANEW}", "classifier: left out, as"]),
        ("bert_encoder", "BertForMaskedLM", [f"pooler.dense: {_ANEW}", "cls.predictions, "]),
        ("bert_encoder", "BertForPreTraining", ["cls.predictions, "]),
        (
            "roberta",
            "RobertaModel",
            [f"lm_head.dense, lm_head.layer_norm, lm_head: {_ANEW}", "pooler.dense: "],
        ),
        ("gpt2", "GPT2Model", []),
        ("gpt2", "GPT2DoubleHeadsModel", ["multiple_choice_head.summary: left out, as GPT2LMHeadModel"]),
        ("llama", "LlamaModel", [f"lm_head: {_ANEW}"]),
        ("llama", "LlamaForSequenceClassification", [f"lm_head: {_ANEW}", "score: left out, as"]),
        ("gpt_neox", "GPTNeoXModel", [f"lm_head: {_ANEW}"]),
        ("vit", "ViTModel", [f"classifier: {_ANEW}", "pooler.dense: left out, as"]),
        (
            "deit",
            "DeiTForImageClassificationWithTeacher",
            [f"classifier: {_ANEW}", "cls_classifier, distillation_classifier: left out, as"],
        ),
    ],
)
def test_other_heads(family: str, model_class: str, notes: list[str], tmp_path: Path):
    found = match(family, saved(tmp_path, family, model_class))
    assert found.begins_anew == any(_ANEW in note for note in notes)
    for said, begins in zip(found.notes, notes, strict=True):
        assert said.startswith(begins)


@pytest.mark.parametrize(
    ("family", "sizes", "notes"),
    [
        (
            "gpt2",
            {"vocab": 100},
            ["transformer.wte.weight: 100 rows in the files, and 101 in the model; the last 1"],
        ),
        (
            "gpt2",
            {"vocab": 128, "positions": 8},
            ["transformer.wpe.weight: 8 rows", "transformer.wte.weight: 128"],
        ),
        ("llama", {"vocab": 90, "positions": 8}, ["lm_head.weight, model.embed_tokens.weight: 90 rows"]),
        ("roberta", {"token_types": 1}, ["roberta.embeddings.token_type_embeddings.weight: 1 rows"]),
        ("bert", {"vocab": 90}, ["bert.embeddings.word_embeddings.weight, cls.predictions.bias: 90 rows"]),
        ("vit", {"labels": 3}, ["classifier: for 3 classes and not 7, so it begins with random values"]),
        ("deit", {"labels": 9}, ["classifier: for 9 classes and not 7, so it begins with random values"]),
    ],
)
def test_other_rows_and_classes(family: str, sizes: dict[str, int], notes: list[str], tmp_path: Path):
    found = match(family, saved(tmp_path, family, **sizes))
    assert found.begins_anew
    for said, begins in zip(sorted(found.notes), notes, strict=True):
        assert said.startswith(begins)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "vit"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "model.", "net.student."])
def test_a_prefix_on_every_name(family: str, prefix: str, tmp_path: Path):
    found = match(family, renamed(saved(tmp_path, family), lambda name: prefix + name))
    assert (found.begins_anew, found.notes) == (False, [])


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrapped_blocks(wrapper: str, tmp_path: Path):
    found = match(
        "gpt2", renamed(saved(tmp_path, "gpt2"), lambda name: name.replace(".h.1.", f".h.1.{wrapper}."))
    )
    assert (found.begins_anew, found.notes) == (False, [])


def emptied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty(0) for name in tensors}


def part(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty(0) if "wte" in name else tensor for name, tensor in tensors.items()}


def without_a_block(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if ".h.1." not in name}


def with_a_block(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {name.replace(".h.1.", ".h.2."): tensor.clone() for name, tensor in tensors.items()}


def of_nothing(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"a{number}.b": tensor for number, tensor in enumerate(tensors.values())}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            emptied,
            "are none: 28 of 28 tensors are empty (transformer.h.0.attn.c_attn.bias), as a model is that was sa",
        ),
        (
            part,
            "are none: 1 of 28 tensors are empty (transformer.wte.weight), as a model is that was saved under ZeRO",
        ),
        (without_a_block, "with this configuration: config.json says 2 blocks, and the files have 1"),
        (with_a_block, "with this configuration: config.json says 2 blocks, and the files have 3"),
        (of_nothing, "it has no parameter of any of their names (a0.b, a1.b, a10.b, and 25 more)"),
    ],
)
def test_one_cause_is_one_sentence(change: Any, said: str, tmp_path: Path):
    file = saved(tmp_path, "gpt2") / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        match("gpt2", tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_head_is_not_left_out(tmp_path: Path):
    """Biases that config.json does not ask for belong to what the model computes."""
    with pytest.raises(CheckpointError) as caught:
        match("llama", saved(tmp_path, "llama", attention_bias=True, mlp_bias=True))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 7
    assert "  model.layers.{layer}.mlp.down_proj.bias: of no use to LlamaForCausalLM (2 blocks)" in lines


def test_a_long_list_is_cut(tmp_path: Path):
    with pytest.raises(CheckpointError) as caught:
        match("gpt2", saved(tmp_path, "gpt2", heads=8))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 10 + 1
    assert lines[-1] == "  and 6 more"


def test_a_decoder_of_its_own_has_the_bias_that_older_files_hold(tmp_path: Path):
    """Under the name of the head's other bias, of which the library makes no use any more."""
    directory = saved(tmp_path, "bert", tied=False)
    tensors = load_file(directory / "model.safetensors")
    bias = torch.arange(float(len(tensors["cls.predictions.bias"])))
    del tensors["cls.predictions.decoder.bias"]
    save_file({**tensors, "cls.predictions.bias": bias}, directory / "model.safetensors")
    found = match("bert", directory, tied=False)
    assert found.notes == []
    ((name, tensor),) = found.sources["cls.predictions.decoder.bias"]
    assert (name, tensor.rows(0, len(bias)).tolist()) == ("cls.predictions.bias", bias.tolist())
