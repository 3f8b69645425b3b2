"""From the library's configuration to the shape, for every family, and what is said where that is impossible."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from ligo_dist.architectures import Architecture, ModelShape, architecture_names, get_architecture
from ligo_dist.runtime.errors import ArchitectureError
from small_models import library_config, small_shape


def completed(family: str, **keys: Any) -> dict[str, Any]:
    """The library's defaults, with other keys."""
    return getattr(transformers, get_architecture(family).config_class)(**keys).to_dict()


@pytest.mark.parametrize("family", architecture_names())
@pytest.mark.parametrize("sizes", [{}, {"layers": 0}, {"layers": 7, "heads": 5, "head_size": 24}], ids=str)
def test_the_shape_comes_back(family: str, sizes: dict[str, int]):
    architecture, shape = get_architecture(family), small_shape(family, **sizes)
    assert architecture.shape_from(library_config(architecture, shape).to_dict()) == shape


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_a_head_size_of_its_own_comes_back(family: str):
    architecture, shape = get_architecture(family), small_shape(family, width=60, head_size=16)
    assert architecture.shape_from(library_config(architecture, shape).to_dict()) == shape


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_biases_come_back(family: str):
    architecture, shape = get_architecture(family), small_shape(family, attention_bias=True, mlp_bias=True)
    assert shape.attention_bias
    assert shape.mlp_bias == (family == "llama")
    assert architecture.shape_from(library_config(architecture, shape).to_dict()) == shape


def test_the_published_models_are_the_defaults_of_their_classes():
    assert get_architecture("gpt2").shape_from(completed("gpt2")) == ModelShape(
        12, 768, 12, 12, 3072, vocab=50257, positions=1024, tied=True
    )
    assert get_architecture("bert").shape_from(completed("bert")) == ModelShape(
        12, 768, 12, 12, 3072, vocab=30522, positions=512, token_types=2, tied=True
    )
    vit = ModelShape(12, 768, 12, 12, 3072, False, labels=1000, image_size=224, patch_size=16, channels=3)
    assert get_architecture("vit").shape_from(completed("vit", num_labels=1000)) == vit


def test_positions_are_those_that_can_be_used():
    # roberta-base: 514 rows, of which the first two are no positions.
    config = completed("roberta", max_position_embeddings=514, type_vocab_size=1)
    shape = get_architecture("roberta").shape_from(config)
    assert (shape.positions, shape.token_types) == (512, 1)
    assert get_architecture("roberta").library_keys(shape)["max_position_embeddings"] == 514


def test_what_is_none_follows_the_familys_rule():
    llama = get_architecture("llama")
    config = {**completed("llama", hidden_size=96, num_attention_heads=6), "head_dim": None}
    del config["num_key_value_heads"]
    shape = llama.shape_from({**config, "intermediate_size": None})
    assert (shape.head_size, shape.key_value_heads, shape.ffn) == (16, 6, 256)


def test_a_square_may_be_two_sides():
    config = {**completed("vit"), "image_size": [32, 32], "patch_size": (8, 8)}
    shape = get_architecture("vit").shape_from(config)
    assert (shape.image_size, shape.patch_size, shape.patches) == (32, 8, 16)


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


GPT2, LLAMA, BERT, VIT = (completed(family) for family in ("gpt2", "llama", "bert", "vit"))


@pytest.mark.parametrize(
    ("family", "config", "said"),
    [
        ("gpt2", without(GPT2, "n_embd", "n_inner"), "n_embd is missing; n_inner is missing"),
        ("gpt2", {**GPT2, "n_head": "12"}, "n_head: '12' should be a whole number"),
        ("gpt2", {**GPT2, "n_head": 0}, "n_head: 0 should be a whole number, at least 1"),
        ("gpt2", {**GPT2, "n_layer": True}, "n_layer: True should be a whole number"),
        ("llama", {**LLAMA, "tie_word_embeddings": 1}, "tie_word_embeddings: 1 should be true or false"),
        ("vit", {**VIT, "image_size": [32, 48]}, "image_size: [32, 48] should be a whole number"),
        ("vit", without(VIT, "id2label"), "num_labels is missing"),
    ],
)
def test_what_no_model_has_is_named(family: str, config: dict[str, Any], said: str):
    architecture: Architecture = get_architecture(family)
    with pytest.raises(ArchitectureError) as caught:
        architecture.shape_from(config)
    assert str(caught.value).startswith(f"{family}: no model has this configuration: {said}")
