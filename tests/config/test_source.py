"""What `stages[0].from` fills in, and what it contradicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from example import example, raw_example
from ligo_dist.config import (
    Config,
    config_from,
    read_source_config,
    stage_shapes,
    with_source,
    with_source_apart,
)
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
    for given in ("rotary_pct: 0.25", "rope_scaling: {rope_type: linear, factor: 2.0}"):
        (said,) = faults_of(example(*neox, f"model.huggingface={{{given}}}"))
        assert said.startswith(f"model.huggingface.{given.partition(':')[0]}: ")
        assert f"the model in {str(tmp_path)!r} says it in rope_parameters, {inherited}; give those" in said
    (said,) = faults_of(
        example(*neox, "model.huggingface={rope_parameters: {rope_type: default, rope_theta: 1e4}}")
    )
    assert "partial_rotary_factor is missing, which is 0.5 for the model in" in said
    given = "model.huggingface={rope_parameters: {rope_type: default, rope_theta: 1e4, partial_rotary_factor: 0.25}}"
    huggingface = with_source(example(*neox, given), "").model.huggingface
    assert huggingface["rope_parameters"]["partial_rotary_factor"] == 0.25


@pytest.mark.parametrize("names", [{}, {"num_hidden_layers": "n_layer", "hidden_size": "n_embd"}])
def test_a_type_that_is_not_named_is_the_familys(names, tmp_path):
    """The library's other names of a key are names of it too."""
    values = {key: value for key, value in _GPT2.items() if key != "model_type"}
    values |= {new: values.pop(old) for new, old in names.items()}
    config = with_source(example(*_LEFT_OUT, source(tmp_path, values)), "")
    assert (config.stages[0].size.layers, config.stages[0].size.width) == (2, 32)


@pytest.mark.parametrize(("vocab", "pieces", "rows"), [(None, 601, 601), (640, 601, 640), (512, 500, 512)])
def test_the_embedding_has_the_rows_that_are_asked_for(vocab, pieces, rows, tmp_path):
    """Two messages sent one in a circle: fewer rows than pieces, other rows than the source."""
    asked = "model={family: gpt2}" if vocab is None else f"model={{family: gpt2, vocab_size: {vocab}}}"
    left_out = [one for one in _LEFT_OUT if not one.startswith("model.")]
    config = with_source(example(asked, *left_out, source(tmp_path, _GPT2)), "")
    assert [shape.vocab for shape in stage_shapes(config, pieces)] == [rows, rows]


_LLAMA = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
    "intermediate_size": 128, "vocab_size": 600, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("rope", "may_differ"),
    [
        ({"rope_type": "default", "rope_theta": 5e5}, True),
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, True),
        ({"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}, True),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, False),
    ],
)
def test_another_context_than_the_sources(rope, may_differ, tmp_path):
    here = source(tmp_path, {**_LLAMA, "rope_parameters": rope})
    given = ("model.family=llama", *_LEFT_OUT[:2], "tokenizer={}", here)
    if may_differ:
        assert with_source(example(*given), "").model.max_positions == 64
        return
    assert faults_of(example(*given)) == [
        f"model.max_positions: 64: the model in {str(tmp_path)!r} has 32, and how its positions rotate follows from"
        " that (rope_type 'dynamic'); null or 32 would be right"
    ]


def test_positions_that_are_rows_may_be_more(tmp_path):
    left_out = (_LEFT_OUT[0], _LEFT_OUT[1], "tokenizer={}", "model.max_positions=256")
    assert with_source(example(*left_out, source(tmp_path, _GPT2)), "").model.max_positions == 256


def test_biases_come_along(tmp_path):
    here = source(tmp_path, {**_LLAMA, "attention_bias": True})
    config = with_source(example("model.family=llama", *_LEFT_OUT, "data.sequence_length=32", here), "")
    assert [(shape.attention_bias, shape.mlp_bias) for shape in stage_shapes(config, 0)] == [
        (True, False)
    ] * 2


def test_types_of_layers_that_follow_from_other_keys(tmp_path):
    """They are made anew for every size; only a list that says them by itself cannot be."""
    values = {**_LLAMA, "model_type": "qwen2", "num_key_value_heads": 4}
    values |= {"use_sliding_window": True, "max_window_layers": 1}
    given = ("model.family=qwen2", *_LEFT_OUT, "data.sequence_length=32", source(tmp_path, values))
    inherited = with_source(example(*given), "").model.huggingface
    assert (inherited["use_sliding_window"], inherited["max_window_layers"]) == (True, 1)
    assert "layer_types" not in inherited


def test_layers_that_are_not_alike(tmp_path):
    values = {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    values |= {
        "layer_types": ["full_attention", "sliding_attention"],
        "head_dim": 8,
        "num_key_value_heads": 4,
    }
    (said,) = faults_of(example("model.family=qwen3", *_LEFT_OUT, source(tmp_path, values)))
    assert said.endswith("its layers are not all alike (layer_types), so none can be made of others")


def test_how_the_library_is_called_does_not_come_along(tmp_path):
    called = {"problem_type": "regression", "return_dict": False, "output_hidden_states": True}
    here = source(tmp_path, {**_GPT2, **called})
    assert not set(called) & set(with_source(example(*_LEFT_OUT, here), "").model.huggingface)
    said = read_source_config("gpt2", str(tmp_path)).said
    assert "problem_type" not in said
    assert said["output_hidden_states"] is True


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
    assert faults_of(example("data={source: digits, image_size: 12}", *images)) == [
        f"data.image_size: 12: the model in {str(tmp_path)!r} has 8; null or 8 would be right",
        f"data.channels: 3: the model in {str(tmp_path)!r} has 1; null or 1 would be right",
    ]
    others = with_source(example("data={source: digits, channels: 1, labels: 4}", *images), "")
    assert stage_shapes(others, 0)[0].labels == 4
    assert "id2label" not in others.model.huggingface, "they are names of other classes"


def test_every_contradiction_is_told(tmp_path):
    here = source(tmp_path, _GPT2)
    said = ("stages[0].size.ffn=100", "stages[0].size.heads=8", "model.tie_embeddings=false", "tokenizer={}")
    assert faults_of(example(here, *said, "stages[1].size={layers: 3, width: 48, heads: 12}")) == [
        f"{key}: {given}: the model in {str(tmp_path)!r} has {value}; null or {value} would be right"
        for key, given, value in (
            ("stages[0].size.heads", 8, 4),
            ("stages[0].size.ffn", 100, 128),
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
        ("{}", "its config.json has neither model_type nor n_layer, so it is no model of gpt2"),
        (
            '{"n_layer": 2, "n_head": 2}',
            "its config.json has neither model_type nor n_embd, so it is no model of",
        ),
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


def test_a_path_is_not_looked_for_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("it asks the hub"))
    (tmp_path / "models" / "small").mkdir(parents=True)
    for wrong, right in (("models/smal", "models/small"), ("modells/small", "models")):
        (said,) = faults_of(example(*_LEFT_OUT, f"stages[0].from={tmp_path}/{wrong}"))
        assert said.startswith(f"stages[0].from: no such directory: '{tmp_path}/{wrong}' (from {Path.cwd()})")
        assert said.endswith(f"; did you mean '{tmp_path / right}'?")


def test_a_name_that_may_be_a_path_too(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: 1 / 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "small").mkdir(parents=True)
    (said,) = faults_of(example(*_LEFT_OUT, "stages[0].from=models/smal"))
    assert "cannot be had from the hub" in said
    assert said.endswith("; did you mean 'models/small'?")


def test_a_name_on_the_hub(monkeypatch, tmp_path):
    from ligo_dist.huggingface import resolve_directory

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
    raw = raw_example(source(tmp_path, _GPT2), "model.max_positions=null", "tokenizer={}")
    raw["defaults"] = {"train": {"batch_size": 16, "micro_batch_size": 4, "steps": 3}}
    raw["stages"][0]["train"] = {"steps": 2}
    assert config_from(raw).stages[0].train.batch_size == 16
    del raw["stages"][0]["train"]
    assert config_from(raw).stages[0].train is None
