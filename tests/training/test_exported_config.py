"""What an export says of its model: what the source said, else the library's defaults, never what training needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from ligo_dist.config import config_from, with_source
from ligo_dist.engine import World
from ligo_dist.huggingface import build_meta_model
from ligo_dist.schedule import Plan
from ligo_dist.training import Builder

IDS = {"bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 7}
"""Of the tokenizer."""

SIZES = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 64, "vocab_size": 600},
    "llama": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "vocab_size": 600,
    },
    "bert": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "vocab_size": 600,
    },
}

CLASSES = {"gpt2": "GPT2Config", "llama": "LlamaConfig", "bert": "BertConfig"}


def exported(
    family: str, directory: Path | None, ids: dict[str, Any], **keys: Any
) -> tuple[Builder, dict[str, Any], dict[str, Any] | None]:
    """A builder, and the two files of its grown stage's export."""
    size = {"layers": 3, "width": 64, "heads": 8}
    train = {"steps": 1, "batch_size": 1, "micro_batch_size": 1}
    first: dict[str, Any] = {"name": "a", "size": {"layers": 2, "width": 32, "heads": 4}, "train": train}
    if directory is not None:
        first = {"name": "a", "from": str(directory)}
    model = {"family": family, "huggingface": keys}
    raw = {
        "run_dir": "runs/x",
        "model": model if directory else {**model, "max_positions": 64},
        "stages": [first, {"name": "b", "size": size, "grow": {}, "train": train}],
        "data": {"source": "stdlib", "sequence_length": 32},
        "tokenizer": {} if directory else {"vocab_size": 600},
    }
    plan = Plan.of(with_source(config_from(raw), ""), 600, 1)
    trained_with = {"bos_token_id": 5, "eos_token_id": 6, **({"pad_token_id": 7} if family == "bert" else {})}
    builder = Builder(plan, World(0, 1, torch.device("cpu")), trained_with, ids, directory)
    config, generation = builder.exported(plan.last)
    return (
        builder,
        json.loads(config.to_json_string()),
        None if generation is None else json.loads(generation),
    )


def source(directory: Path, family: str, said: dict[str, Any]) -> Path:
    config = getattr(transformers, CLASSES[family])(**SIZES[family])
    config.save_pretrained(directory)
    values = {**json.loads((directory / "config.json").read_text()), **said}
    (directory / "config.json").write_text(json.dumps(values))
    return directory


@pytest.mark.parametrize("family", SIZES)
def test_a_fresh_model_says_what_the_library_says(family: str):
    builder, said, generation = exported(family, None, IDS)
    default = getattr(transformers, CLASSES[family])().to_dict()
    sizes = {*builder.plan.architecture.config_keys, *IDS, "architectures", "dtype", "head_dim"}
    assert {key: value for key, value in said.items() if key not in sizes} == {
        key: default[key] for key in said if key not in sizes
    }
    assert {key: said[key] for key in IDS} == IDS
    assert said["dtype"] == "float32"
    if family == "bert":
        assert generation is None
    else:
        assert generation is not None
        assert {key: generation[key] for key in IDS} == IDS
        assert said["use_cache"] is generation["use_cache"] is True


def test_what_the_user_says_wins(tmp_path: Path):
    for directory in (None, source(tmp_path, "gpt2", {"resid_pdrop": 0.3})):
        builder, said, _ = exported("gpt2", directory, IDS, resid_pdrop=0.2)
        assert (said["resid_pdrop"], said["embd_pdrop"]) == (0.2, 0.1)
        config = builder.huggingface_config(builder.plan.last)
        assert (config.resid_pdrop, config.embd_pdrop, config.use_cache) == (0.2, 0.0, False)


def test_how_attention_is_computed_stays_in_training():
    builder, said, _ = exported("gpt2", None, IDS)
    stage = builder.plan.last
    for precision, attention in (("bf16", "eager"), ("fp32", "sdpa")):
        config = builder.huggingface_config(stage, precision)
        model = build_meta_model(builder.plan.architecture, stage.shape, config, builder.world.device)
        assert model.config._attn_implementation == attention
    assert not any("attn_implementation" in key for key in said)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("llama", {"eos_token_id": [0, 4], "pad_token_id": 1, "bos_token_id": 3, "dtype": "bfloat16"}),
        (
            "llama",
            {"attention_dropout": 0.1, "use_cache": False, "rms_norm_eps": 1e-5, "initializer_range": 0.1},
        ),
        ("gpt2", {"embd_pdrop": 0.0, "resid_pdrop": 0.3, "summary_type": "mean", "bos_token_id": None}),
        ("gpt2", {"task_specific_params": {"text-generation": {"max_length": 50}}, "a_key_of_ones_own": 3}),
        ("bert", {"hidden_dropout_prob": 0.2, "classifier_dropout": 0.3, "pad_token_id": 3}),
        ("bert", {"id2label": {"0": "no", "1": "yes"}, "dtype": "float16"}),
    ],
)
def test_what_the_source_said_travels(tmp_path: Path, family: str, said: dict[str, Any]):
    builder, exported_config, _ = exported(family, source(tmp_path, family, said), {})
    assert {key: exported_config.get(key) for key in said} == said
    sizes = builder.plan.architecture.library_keys(builder.plan.last.shape)
    assert {key: exported_config.get(key) for key in sizes} == sizes
    trained = builder.huggingface_config(builder.plan.last).to_dict()
    assert all(not trained[key] for key in trained if key.endswith(("_pdrop", "_dropout", "_dropout_prob")))
    assert (trained["eos_token_id"], trained["bos_token_id"]) == (6, 5), "the tokenizer's, in training"


def test_what_is_of_the_sources_own_files_stays_there(tmp_path: Path):
    directory = source(tmp_path, "llama", {"auto_map": {"AutoModel": "x.Y"}, "architectures": ["LlamaModel"]})
    _, said, _ = exported("llama", directory, {})
    assert "auto_map" not in said
    assert said["architectures"] == ["LlamaForCausalLM"]


GENERATION = {"eos_token_id": [0, 4], "bos_token_id": 3, "temperature": 0.6, "top_p": 0.9}
"""Not one that the library would save: no sampling is asked for."""


@pytest.mark.parametrize(
    ("ids", "expected"),
    [({}, GENERATION), (IDS, {**GENERATION, "eos_token_id": 6, "bos_token_id": 5})],
    ids=["its-own-tokenizer", "another-tokenizer"],
)
def test_the_sources_generation_config_travels(tmp_path: Path, ids: dict[str, int], expected: dict[str, Any]):
    directory = source(tmp_path, "llama", {})
    assert exported("llama", directory, ids)[2] is None, "it has none"
    (directory / "generation_config.json").write_text(json.dumps(GENERATION))
    assert exported("llama", directory, ids)[2] == expected


@pytest.mark.parametrize("keys", [{}, {"resid_pdrop": 0.2, "layer_norm_epsilon": 1e-3}])
def test_the_library_opens_what_is_written_and_generates_alike_with_and_without_a_cache(
    tmp_path: Path, keys: dict[str, Any]
):
    builder, _, _ = exported("gpt2", None, IDS, **keys)
    config, generation = builder.exported(builder.plan.last)
    assert generation is not None
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(generation)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert model.generation_config.use_cache
    prompt = torch.tensor([[10, 11, 12]])
    with_cache = model.generate(prompt, max_new_tokens=8, do_sample=False)
    without = model.generate(prompt, max_new_tokens=8, do_sample=False, use_cache=False)
    assert torch.equal(with_cache, without)
