"""What `stages[0].from` fills in, and what it contradicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from example import example, raw_example

from ligo_dist.config import Config, config_from, stage_shapes, with_source
from ligo_dist.config.source import with_source_apart
from ligo_dist.runtime.errors import ConfigError

_GPT2 = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": 600,
    "activation_function": "relu",
    "layer_norm_epsilon": 1e-6,
    "resid_pdrop": 0.3,
    "bos_token_id": 7,
    "id2label": {"0": "no"},
    "transformers_version": "4.8.2",
}
_LEFT_OUT = ("stages[0].size=null", "stages[0].train=null", "model.max_positions=null", "tokenizer={}")


def source(directory: Path, values: dict[str, Any]) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(values))
    return f"stages[0].from={directory}"


def faults_of(config: Config) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        with_source(config, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    return [str(fault) for fault in caught.value.faults]


def test_without_a_source_nothing_changes():
    config = example()
    assert with_source(config, "") is config


def test_a_source_fills_in_what_is_left_out(tmp_path):
    config = with_source(example(*_LEFT_OUT, source(tmp_path, _GPT2)), "")
    size, model = config.stages[0].size, config.model
    assert (size.layers, size.width, size.heads, size.ffn) == (2, 32, 4, 128)
    assert (model.max_positions, model.vocab_size, model.tie_embeddings) == (128, 600, True)
    assert model.huggingface == {"activation_function": "relu", "layer_norm_epsilon": 1e-6}
    assert [shape.vocab for shape in stage_shapes(config, 512)] == [600, 600]
    assert (
        config_from(config.resolved()).resolved() == with_source(config, "").resolved() == config.resolved()
    )


def test_a_password_is_still_there_afterwards(tmp_path):
    config = example(*_LEFT_OUT, source(tmp_path, _GPT2), "tracking.uri='http://me:secret@host'")
    assert with_source(config, "").tracking.uri == "http://me:secret@host"


def test_the_users_keys_of_the_library_win(tmp_path):
    config = example(*_LEFT_OUT, source(tmp_path, _GPT2), "model.huggingface={activation_function: gelu}")
    huggingface = with_source(config, "").model.huggingface
    assert huggingface == {"activation_function": "gelu", "layer_norm_epsilon": 1e-6}


def test_what_the_size_decides_is_not_inherited(tmp_path):
    values = {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    values |= {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_theta": 5e5,
        "vocab_size": 600,
        "intermediate_size": 128,
    }
    second = "stages[1].size={layers: 3, width: 48, heads: 6, key_value_heads: 3, head_size: 16}"
    config = example("model.family=qwen3", second, *_LEFT_OUT, source(tmp_path, values))
    config = with_source(config, "")
    assert config.stages[0].size.head_size == 16
    assert set(config.model.huggingface) == {"rope_parameters"}
    assert config.model.huggingface["rope_parameters"]["rope_theta"] == 5e5


def test_a_rotary_key_that_the_sources_would_outweigh(tmp_path):
    values = {"model_type": "gpt_neox", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    values |= {"intermediate_size": 128, "vocab_size": 600, "rotary_pct": 0.5}
    neox = ("model.family=gpt_neox", *_LEFT_OUT, source(tmp_path, values))
    inherited = with_source(example(*neox), "").model.huggingface["rope_parameters"]
    assert inherited["partial_rotary_factor"] == 0.5
    (said,) = faults_of(example(*neox, "model.huggingface={rotary_pct: 0.25}"))
    assert said == (
        f"model.huggingface.rotary_pct: 0.25: the model in {str(tmp_path)!r} says it in rope_parameters, {inherited};"
        " give those if they are to change"
    )
    given = "model.huggingface={rope_parameters: {rope_type: default, rope_theta: 1e4, partial_rotary_factor: 0.25}}"
    huggingface = with_source(example(*neox, given), "").model.huggingface
    assert huggingface["rope_parameters"]["partial_rotary_factor"] == 0.25


def test_layers_that_are_not_alike(tmp_path):
    values = {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    values |= {
        "layer_types": ["full_attention", "sliding_attention"],
        "head_dim": 8,
        "num_key_value_heads": 4,
    }
    (said,) = faults_of(example("model.family=qwen3", *_LEFT_OUT, source(tmp_path, values)))
    assert said.endswith("its layers are not all alike (layer_types), so none can be made of others")


def test_kinds_of_segments_come_along(tmp_path):
    values = {"model_type": "roberta", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    values |= {"intermediate_size": 128, "max_position_embeddings": 66, "type_vocab_size": 2}
    config = with_source(example("model.family=roberta", *_LEFT_OUT, source(tmp_path, values)), "")
    assert config.model.max_positions == 64
    assert [shape.token_types for shape in stage_shapes(config, 0)] == [2, 2]


def test_a_source_of_images(tmp_path):
    values = {"model_type": "vit", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    values |= {"intermediate_size": 64, "image_size": 8, "patch_size": 4, "num_channels": 1}
    values |= {"id2label": {"0": "cat", "1": "dog", "2": "bird"}}
    images = ("model={family: vit}", "tokenizer={}", "stages[0].size=null", source(tmp_path, values))
    config = with_source(example("data={source: digits, channels: 1}", *images), "")
    shape = stage_shapes(config, 0)[0]
    assert (shape.labels, shape.image_size, shape.patch_size, shape.channels) == (3, 8, 4, 1)
    assert config.model.huggingface["id2label"] == {"0": "cat", "1": "dog", "2": "bird"}
    assert faults_of(example("data={source: digits, labels: 4}", *images)) == [
        f"data.channels: 3: the model in {str(tmp_path)!r} has 1; null or 1 would be right",
        f"data.labels: 4: the model in {str(tmp_path)!r} has 3; null or 3 would be right",
    ]


def test_every_contradiction_is_told(tmp_path):
    here = source(tmp_path, _GPT2)
    assert faults_of(example(here, "stages[0].size.ffn=100", "model.tie_embeddings=false")) == [
        f"{key}: {given}: the model in {str(tmp_path)!r} has {value}; null or {value} would be right"
        for key, given, value in (
            ("stages[0].size.ffn", 100, 128),
            ("model.max_positions", 64, 128),
            ("model.tie_embeddings", False, True),
        )
    ]


def test_growth_is_checked_once_the_size_is_known(tmp_path):
    here = source(tmp_path, {**_GPT2, "n_layer": 4})
    assert faults_of(example(*_LEFT_OUT, here)) == [
        "stages[1].size.layers: 3 is less than the 4 of stages[0].size; a stage only grows"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no config.json"),
        ("{", "config.json' cannot be read: Expecting property name"),
        ("[]", "is of the type None, and gpt2 of the type 'gpt2'"),
        ('{"model_type": "bert"}', "is of the type 'bert', and gpt2 of the type 'gpt2'"),
        ('{"model_type": "gpt2", "n_layer": "two"}', "GPT2Config refuses its config.json: "),
        ('{"model_type": "gpt2", "n_head": 0}', "gpt2: no model has this configuration: n_head: 0 should be"),
    ],
)
def test_a_source_that_cannot_be_used(content, said, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    (found,) = faults_of(example(*_LEFT_OUT, f"stages[0].from={tmp_path}"))
    assert found.startswith("stages[0].from: ")
    assert said in found


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (said,) = faults_of(example(*_LEFT_OUT, f"stages[0].from={tmp_path}/config.json"))
    assert said.endswith("is a file, not a Hugging Face directory")


def test_a_name_that_the_hub_cannot_give(monkeypatch):
    def fail(name, **_):
        raise OSError("no network\nhere")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert faults_of(example(*_LEFT_OUT, "stages[0].from=some/where")) == [
        "stages[0].from: 'some/where' is no directory here, and cannot be had from the hub: no network here"
    ]


def test_a_name_on_the_hub(monkeypatch, tmp_path):
    from ligo_dist.huggingface.hub import resolve_directory

    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_directory("some/where", weights=False) == tmp_path
    assert [patterns[0] for _, patterns in asked] == ["*.json"]
    assert resolve_directory("some/where") == tmp_path
    assert asked[-1] == ("some/where", ["pytorch_model*.bin"])  # no safetensors came


def test_a_process_apart_says_the_same(tmp_path):
    config = example(*_LEFT_OUT, source(tmp_path, _GPT2))
    assert with_source_apart(config, "").resolved() == with_source(config, "").resolved()
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        with_source_apart(example(*_LEFT_OUT, f"stages[0].from={tmp_path.parent}"), "")


def test_a_stage_with_a_source_takes_training_only_if_it_says_so(tmp_path):
    raw = raw_example(source(tmp_path, _GPT2), "model.max_positions=null")
    raw["defaults"] = {"train": {"batch_size": 16, "micro_batch_size": 4, "steps": 3}}
    raw["stages"][0]["train"] = {"steps": 2}
    assert config_from(raw).stages[0].train.batch_size == 16
    del raw["stages"][0]["train"]
    assert config_from(raw).stages[0].train is None
