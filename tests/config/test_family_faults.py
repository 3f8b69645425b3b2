"""Which keys have a meaning for which family, and what each family needs."""

from __future__ import annotations

import sys
import types

import pytest

from example import assert_told, example, faults_of, raw_example
from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.config import config_from, model_shape, owned_huggingface_keys, stage_shapes, tokens_per_sample
from ligo_dist.runtime.errors import ConfigError

_IMAGES = (
    "model={family: vit, patch_size: 4}",
    "data={source: digits, image_size: 8, labels: 10}",
    "tokenizer={}",
)
_BERT = ("model.family=bert",)
_BERT_ENCODER = ("model.family=bert_encoder",)
_QWEN3 = (
    "model.family=qwen3",
    "stages[0].size={layers: 2, width: 32, heads: 4, key_value_heads: 2, head_size: 16}",
    "stages[1].size={layers: 3, width: 48, heads: 6, key_value_heads: 3, head_size: 16}",
)


@pytest.mark.parametrize("overrides", [_IMAGES, _BERT, _QWEN3])
def test_the_examples_are_right(overrides):
    assert example(*overrides)


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ("model.patch_size=null", "model.patch_size", "is missing; vit needs pixels, such as 16"),
        ("model.max_positions=64", "model.max_positions", "64 has no meaning for vit, only for text"),
        ("model.vocab_size=64", "model.vocab_size", "64 has no meaning for vit, only for text"),
        (
            "model.tie_embeddings=true",
            "model.tie_embeddings",
            "true: vit leaves no choice; null would be right",
        ),
        ("data.image_size=10", "data.image_size", "10 is no multiple of the 4 of model.patch_size; 8 would"),
        ("data.image_size=null", "data.image_size", "is missing; vit needs the side of its images"),
        ("data.labels=null", "data.labels", "is missing; vit needs a number of classes"),
        ("data.labels=1", "data.labels", "would take it for a regression; at least 2 would be right"),
        ("data.channels=2", "data.channels", "2 is no channels; there are: 1, 3"),
        ("data.random_shift=8", "data.random_shift", "8 is not less than the 8 of data.image_size"),
        (
            "data.sequence_length=64",
            "data.sequence_length",
            "64 has no meaning for vit, only for text models",
        ),
        ("data.mask_fraction=0.2", "data.mask_fraction", "0.2 has no meaning for vit, only for text models"),
        (
            "data.separate_documents=true",
            "data.separate_documents",
            "True has no meaning for vit, only for text models",
        ),
        (
            "data.source=stdlib",
            "data.source",
            "no source of images for vit; there are: digits, images, parquet",
        ),
        (
            "data.image_column=x",
            "data.image_column",
            "'x' has no meaning for the source 'digits', only for parquet",
        ),
        (
            "data.source=images",
            "data.name",
            "is missing; the source 'images' needs a directory with a folder",
        ),
        (
            "tokenizer.vocab_size=512",
            "tokenizer.vocab_size",
            "512 has no meaning for vit, which reads images",
        ),
    ],
)
def test_images(override: str, path: str, words: str):
    assert_told(faults_of(*_IMAGES, override), path, words)


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (("model.max_positions=null",), "model.max_positions", "is missing; gpt2 needs the longest sequence"),
        (("model.patch_size=4",), "model.patch_size", "4 has no meaning for gpt2, only for images"),
        (("data.source=digits",), "data.source", ", datatrove, module:FUNCTION (yours)"),
        (
            ("data.source=digits",),
            "data.source",
            "'digits' is no source of text for gpt2; there are: stdlib, text",
        ),
        (("data.labels=3",), "data.labels", "3 has no meaning for gpt2, only for image models"),
        (
            ("data.random_flip=true",),
            "data.random_flip",
            "True has no meaning for gpt2, only for image models",
        ),
        (
            ("data.mask_fraction=0.2",),
            "data.mask_fraction",
            "no meaning for gpt2, only for masked language models",
        ),
        (("tokenizer={file: a.model, huggingface: b}",), "tokenizer.huggingface", "are two tokenizers"),
        (
            ("stages[0].size.head_size=16",),
            "stages[0].size.head_size",
            "width / heads; null or 8 would be right",
        ),
        (
            (*_BERT_ENCODER, "model.tie_embeddings=false"),
            "model.tie_embeddings",
            "false: bert_encoder leaves no",
        ),
        (
            (*_QWEN3, "stages[1].size.head_size=null"),
            "stages[1].size.head_size",
            "would change from 16 to 8; growing keeps it and adds heads; 16 would be right",
        ),
        (
            (*_QWEN3, "stages[0].size.head_size=15", "stages[1].size.head_size=15"),
            "stages[0].size.head_size",
            "15 elements; rotary positions (qwen3) need an even number; heads of 14 would be right",
        ),
    ],
)
def test_text(overrides: tuple[str, ...], path: str, words: str):
    assert_told(faults_of(*overrides)[:1], path, words)


def neox(head_size: int, keys: str) -> tuple[str, ...]:
    """Overrides for a GPT-NeoX, of whose heads a quarter rotates unless the keys say otherwise."""
    return (
        f"model={{family: gpt_neox, max_positions: 64, huggingface: {{{keys}}}}}",
        f"stages[0].size={{layers: 2, width: {4 * head_size}, heads: 4}}",
        f"stages[1].size={{layers: 2, width: {6 * head_size}, heads: 6}}",
    )


@pytest.mark.parametrize(
    ("head_size", "keys"),
    [
        (8, ""),
        (16, ""),
        (12, "rope_parameters: {partial_rotary_factor: 0.5}"),
        (12, "rotary_pct: 0.5"),
        (10, "rotary_pct: 1"),
    ],
)
def test_a_part_of_each_head_rotates(head_size, keys):
    assert example(*neox(head_size, keys))


@pytest.mark.parametrize(
    ("head_size", "keys", "words"),
    [
        (
            12,
            "",
            "12 elements each, of which 3 rotate; rotary positions (gpt_neox) need an even number; heads of 8",
        ),
        (
            2,
            "",
            "of which 0 rotate; rotary positions (gpt_neox) need an even number; heads of 8 would be right",
        ),
        (13, "rope_parameters: {rope_theta: 5e5}", "of which 3 rotate; rotary positions (gpt_neox)"),
        (8, "rotary_pct: 0.1", "heads of 20 would be right"),
        (8, "rotary_pct: 2", "of which 16 rotate; rotary positions (gpt_neox) need an even number"),
        (9, "rotary_pct: 1", "9 elements each; rotary positions (gpt_neox) need an even number; heads of 8"),
    ],
)
def test_what_rotates_has_to_be_pairs(head_size: int, keys: str, words: str):
    first, second = faults_of(*neox(head_size, keys))
    assert_told([first], "stages[0].size.heads", words)
    assert second.path == "stages[1].size.heads"


def test_mask_fraction_is_for_masked_models():
    assert example(*_BERT, "data.mask_fraction=0.3").data.mask_fraction == 0.3


def test_a_width_need_not_divide_where_the_head_size_is_free():
    sizes = ("stages[0].size.heads=3", "stages[0].size.key_value_heads=3")
    config = example(*_QWEN3, *sizes, "stages[1].size.key_value_heads=6")
    assert config.stages[0].size.width % config.stages[0].size.heads


def test_a_family_from_elsewhere(monkeypatch: pytest.MonkeyPatch):
    assert_told(faults_of("model.family=no_such_package:FAMILY"), "model.family", "no_such_package")
    module = types.ModuleType("somebodys_families")
    module.MINE = get_architecture("gpt2")
    monkeypatch.setitem(sys.modules, "somebodys_families", module)
    mine = "model.family=somebodys_families:MINE"
    assert stage_shapes(example(mine), 512)[1] == stage_shapes(example(), 512)[1]
    assert_told(faults_of(mine, "model.huggingface.n_layer=3"), "model.huggingface.n_layer", "size.layers")


def test_a_family_that_is_only_grown_needs_a_source_and_no_step():
    missing, *steps = faults_of(*_BERT_ENCODER)
    assert_told([missing], "stages[0].from", "is missing; bert_encoder is only grown, from a Hugging Face")
    assert [fault.path for fault in steps] == [
        "stages[0].train.steps", "stages[1].grow.learn.steps", "stages[1].train.steps",
    ]  # fmt: skip
    assert steps[0].message.startswith("10: bert_encoder has no objective")
    none = ("stages[0].train=null", "stages[1].train.steps=0", "stages[1].grow.learn.steps=0")
    assert example(*_BERT_ENCODER, "stages[0].from=here", "tokenizer.vocab_size=null", *none)


# The first stage's model.


def test_a_source_says_what_is_left_out():
    raw = raw_example(
        "stages[0].from=here", "model.max_positions=null", "tokenizer={}", "stages[0].size=null"
    )
    del raw["stages"][0]["train"]
    raw["defaults"] = {"train": {"batch_size": 4}}
    first = config_from(raw).stages[0]
    assert (first.from_, first.size, first.train) == ("here", None, None)
    assert config_from(raw).resolved()["stages"][0]["from"] == "here"


# Growing.


@pytest.mark.parametrize(
    ("grow", "path", "words"),
    [
        ("{depth: stak}", "depth", "'stak' is no way to grow in depth; did you mean 'stack'?"),
        ("{width: zero-pat}", "width", "'zero-pat' is no way to grow in width; did you mean 'zero-pad'?"),
        (
            "{method: scratch, depth: stack}",
            "depth",
            "'stack': 'scratch' has no operator; null would be right",
        ),
        (
            "{method: lossless, identity: fixed}",
            "identity",
            "width 'lossless' has no rows that are the identity",
        ),
        ("{method: damped, share_depth: true}", "method", "roles share cannot; set share_depth: false"),
        ("{method: hypercloning}", "method", "48 (width) is no multiple of 32; lossless has no such limit"),
    ],
)
def test_how_a_stage_grows(grow: str, path: str, words: str):
    assert_told(faults_of(f"stages[1].grow={grow}")[:1], f"stages[1].grow.{path}", words)


def test_moments_are_grown_from_a_model_that_was_trained():
    grown = "stages[1].grow.optimizer_state=grown"
    assert example(grown)
    faults = faults_of(grown, "stages[0].train.steps=0")
    assert_told(faults, "stages[1].grow.optimizer_state", "'grown': the stage before is not trained")


def test_a_source_of_no_layer():
    none, grow = "stages[0].size.layers=0", "stages[1].grow={method: progressive}"
    assert example(none, grow).stages[0].size.layers == 0
    assert_told(
        faults_of(none, grow, "stages[1].size.layers=0"), "stages[1].size.layers", "has at least 1 layer"
    )
    assert_told(faults_of(none), "stages[1].grow.method", "needs a layer to start from")


def test_a_stage_without_steps_has_no_schedule_to_check():
    assert (
        example("stages[1].train.steps=0", "stages[1].train.schedule.warmup_steps=6").stages[1].train.steps
        == 0
    )


# Shapes.


def test_a_shape_of_each_kind():
    config = example(*_IMAGES)
    shape = stage_shapes(config, 0)[0]
    assert shape == ModelShape(
        2, 32, 4, 4, 128, tied=False, labels=10, image_size=8, patch_size=4, channels=3
    )
    assert tokens_per_sample(get_architecture("vit"), shape, 128) == 4 + 1
    assert tokens_per_sample(get_architecture("deit"), shape, 128) == 4 + 2
    shape = stage_shapes(example(*_BERT), 512)[0]
    assert shape == ModelShape(2, 32, 4, 4, 128, tied=True, vocab=512, positions=64, token_types=2)
    assert tokens_per_sample(get_architecture("bert"), shape, 128) == 128
    assert stage_shapes(example("model.family=roberta"), 512)[0].token_types == 1
    more = example("model.family=roberta", "model.huggingface.type_vocab_size=3")
    assert model_shape(more.model, more.data, more.stages[0].size, 512).token_types == 3
    assert stage_shapes(example(*_QWEN3), 512)[0].head_size == 16
    biased = example("model.family=llama", "model.huggingface={attention_bias: true, mlp_bias: wrong}")
    shape = stage_shapes(biased, 512)[0]
    assert (shape.attention_bias, shape.mlp_bias) == (True, False), (
        "the library's class refuses the other value"
    )


def test_the_embedding_may_have_more_rows_than_the_tokenizer_pieces():
    config = example("model.vocab_size=520")
    assert stage_shapes(config, 512)[0].vocab == 520
    with pytest.raises(
        ConfigError, match=r"model.vocab_size: 520 is less than the 521 pieces of the tokenizer"
    ):
        stage_shapes(config, 521)


@pytest.mark.parametrize("family", architecture_names())
def test_every_key_that_a_size_sets_is_refused_from_the_user(family):
    architecture = get_architecture(family)
    owned = owned_huggingface_keys(architecture)
    free = {key for key in architecture.config_keys if key not in owned}
    assert {architecture.config_keys[key] for key in free} <= {"token_types", "attention_bias", "mlp_bias"}
    assert {"bos_token_id", "use_cache", "dtype"} <= set(owned)
