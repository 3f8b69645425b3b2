"""Which keys have a meaning for which family, and what each family needs."""

from __future__ import annotations

import sys
import types

import pytest
from example import example, raw_example

from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.config import config_from, model_shape, stage_shapes
from ligo_dist.config.resolve import tokens_per_sample
from ligo_dist.config.rules import owned_huggingface_keys
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


def faults_of(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        example(*overrides)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("overrides", [_IMAGES, _BERT, _QWEN3])
def test_the_examples_are_right(overrides):
    assert example(*overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.patch_size=null", "model.patch_size: is missing; vit needs pixels, such as 16"),
        (
            "model.max_positions=64",
            "model.max_positions: 64 has no meaning for vit, only for text; null would be right",
        ),
        (
            "model.vocab_size=64",
            "model.vocab_size: 64 has no meaning for vit, only for text; null would be right",
        ),
        (
            "model.tie_embeddings=true",
            "model.tie_embeddings: true: vit leaves no choice; null would be right",
        ),
        (
            "data.image_size=10",
            "data.image_size: 10 is no multiple of the 4 of model.patch_size; 8 would be right",
        ),
        (
            "data.image_size=null",
            "data.image_size: is missing; vit needs the side of its images, such as 224",
        ),
        ("data.labels=null", "data.labels: is missing; vit needs a number of classes"),
        ("data.channels=2", "data.channels: 2 is no channels; there are: 1, 3"),
        (
            "data.random_shift=8",
            "data.random_shift: 8 is not less than the 8 of data.image_size: nothing would be left",
        ),
        ("data.sequence_length=64", "data.sequence_length: 64 has no meaning for vit, only for text models"),
        ("data.mask_fraction=0.2", "data.mask_fraction: 0.2 has no meaning for vit, only for text models"),
        (
            "data.source=stdlib",
            "data.source: 'stdlib' is no source of images for vit; there are: digits, images, parquet, arrow, hub",
        ),
        (
            "data.image_column=x",
            "data.image_column: 'x' has no meaning for the source 'digits', only for parquet, arrow, hub",
        ),
        (
            "data.source=images",
            "data.name: is missing; the source 'images' needs a directory with a folder of images for each class",
        ),
        (
            "tokenizer.vocab_size=512",
            "tokenizer.vocab_size: 512 has no meaning for vit, which reads images",
        ),
    ],
)
def test_images(override, said):
    assert faults_of(*_IMAGES, override) == [said]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("model.max_positions=null",),
            "model.max_positions: is missing; gpt2 needs the longest sequence it takes, such as 1024",
        ),
        (
            ("model.patch_size=4",),
            "model.patch_size: 4 has no meaning for gpt2, only for images; null would be right",
        ),
        (
            ("data.source=digits",),
            "data.source: 'digits' is no source of text for gpt2; there are: stdlib, text, json, parquet, arrow, hub",
        ),
        (("data.labels=3",), "data.labels: 3 has no meaning for gpt2, only for image models"),
        (("data.random_flip=true",), "data.random_flip: True has no meaning for gpt2, only for image models"),
        (
            ("data.mask_fraction=0.2",),
            "data.mask_fraction: 0.2 has no meaning for gpt2, only for masked language models",
        ),
        (
            ("tokenizer={file: a.model, huggingface: b}",),
            "tokenizer.huggingface: 'b' and tokenizer.file are two tokenizers; one of them has to be null",
        ),
        (
            ("stages[0].size.head_size=16",),
            "stages[0].size.head_size: 16: the head size of gpt2 is width / heads; null or 8 would be right",
        ),
        (
            (*_BERT_ENCODER, "model.tie_embeddings=false"),
            "model.tie_embeddings: false: bert_encoder leaves no choice; null would be right",
        ),
        (
            (*_QWEN3, "stages[1].size.head_size=null"),
            "stages[1].size.head_size: would change from 16 to 8; growing keeps it and adds heads; 16 would be right",
        ),
        (
            (*_QWEN3, "stages[0].size.head_size=15", "stages[1].size.head_size=15"),
            "stages[0].size.head_size: 15 elements; rotary positions (qwen3) need an even number; heads of 14 would be"
            " right",
        ),
    ],
)
def test_text(overrides, said):
    assert faults_of(*overrides)[0] == said


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
    ("head_size", "keys", "rotating", "nearest"),
    [
        (12, "", ", of which 3 rotate", 8),
        (6, "", ", of which 1 rotate", 8),
        (2, "", ", of which 0 rotate", 8),
        (13, "rope_parameters: {rope_theta: 5e5}", ", of which 3 rotate", 16),
        (8, "rotary_pct: 0.1", ", of which 0 rotate", 20),
        (9, "rotary_pct: 1", "", 8),
    ],
)
def test_what_rotates_has_to_be_pairs(head_size, keys, rotating, nearest):
    first, second = faults_of(*neox(head_size, keys))
    assert first == (
        f"stages[0].size.heads: 4 heads of a width of {4 * head_size} have {head_size} elements each{rotating}; rotary"
        f" positions (gpt_neox) need an even number; heads of {nearest} would be right"
    )
    assert second.startswith("stages[1].size.heads: 6 heads")


def test_a_part_that_no_head_can_rotate():
    said = faults_of(*neox(8, "rotary_pct: 2"))[0]
    assert said.endswith(
        "8 elements each, of which 16 rotate; rotary positions (gpt_neox) need an even number"
    )


def test_mask_fraction_is_for_masked_models():
    assert example(*_BERT, "data.mask_fraction=0.3").data.mask_fraction == 0.3


def test_a_width_need_not_divide_where_the_head_size_is_free():
    sizes = ("stages[0].size.heads=3", "stages[0].size.key_value_heads=3")
    config = example(*_QWEN3, *sizes, "stages[1].size.key_value_heads=6")
    assert config.stages[0].size.width % config.stages[0].size.heads


def test_a_family_from_elsewhere_that_is_not_there():
    (said,) = faults_of("model.family=no_such_package:FAMILY")
    assert said.startswith("model.family: ")
    assert "no_such_package" in said


def test_a_family_from_elsewhere(monkeypatch):
    module = types.ModuleType("somebodys_families")
    module.MINE = get_architecture("gpt2")
    monkeypatch.setitem(sys.modules, "somebodys_families", module)
    config = example("model.family=somebodys_families:MINE")
    assert stage_shapes(config, 512)[1] == stage_shapes(example(), 512)[1]
    assert faults_of("model.family=somebodys_families:MINE", "model.huggingface.n_layer=3") == [
        "model.huggingface.n_layer: cannot be given: it is set by `stages[].size.layers`"
    ]


# A family without an objective.


def test_a_family_that_is_only_grown_needs_a_source_and_no_step():
    assert faults_of("model.family=bert_encoder") == [
        "stages[0].from: is missing; bert_encoder is only grown, from a Hugging Face directory",
        "stages[0].train.steps: 10: bert_encoder has no objective to be trained for and is only grown;"
        " 0 would be right",
        "stages[1].grow.learn.steps: 5: bert_encoder has no objective to be trained for and is only grown;"
        " 0 would be right",
        "stages[1].train.steps: 10: bert_encoder has no objective to be trained for and is only grown;"
        " 0 would be right",
    ]
    steps = ("stages[0].train=null", "stages[1].train.steps=0", "stages[1].grow.learn.steps=0")
    assert example("model.family=bert_encoder", "stages[0].from=here", "tokenizer.vocab_size=null", *steps)


# The first stage's model.


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "stages[1].from=there",
            "stages[1].from: 'there': only the first stage can begin from a model that exists; remove it",
        ),
        (
            "stages[0].size=null",
            "stages[0].size: is missing; only a first stage with `from` can do without it",
        ),
        (
            "stages[0].train=null",
            "stages[0].train: is missing; only a first stage with `from` can do without it",
        ),
        (
            "stages[1].train=null",
            "stages[1].train: is missing; only a first stage with `from` can do without it",
        ),
        ("stages[0].fro=x", "stages[0].fro: unknown key; did you mean 'from'?"),
    ],
)
def test_what_only_a_source_makes_unnecessary(override, said):
    assert faults_of(override) == [said]


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
    ("grow", "said"),
    [
        (
            "{depth: stak}",
            "stages[1].grow.depth: 'stak' is no way to grow in depth; did you mean 'stack'?",
        ),
        (
            "{width: zero-pat}",
            "stages[1].grow.width: 'zero-pat' is no way to grow in width; did you mean 'zero-pad'?",
        ),
        (
            "{method: scratch, depth: stack}",
            "stages[1].grow.depth: 'stack': 'scratch' has no operator; null would be right",
        ),
        (
            "{method: lossless, identity: fixed}",
            "stages[1].grow.identity: 'fixed' cannot be: width 'lossless' has no rows that are the identity by"
            " themselves; 'learned' or null would be right",
        ),
        ("{identity: no}", "stages[1].grow.identity: 'no' is no identity; there are: fixed, learned, null"),
        (
            "{method: hypercloning}",
            "stages[1].grow.method: width 'hypercloning' repeats all units equally often, and 48 (width) is no"
            " multiple of 32; lossless has no such limit",
        ),
        (
            "{learn: {steps: 5, schedule: {warmup_steps: 6}}}",
            "stages[1].grow.learn.schedule.warmup_steps: 6 is more than the 5 steps there are",
        ),
    ],
)
def test_how_a_stage_grows(grow, said):
    assert faults_of(f"stages[1].grow={grow}")[0] == said


def test_moments_are_grown_from_a_model_that_was_trained():
    grown = "stages[1].grow.optimizer_state=grown"
    assert example(grown)
    assert faults_of(grown, "stages[0].train.steps=0") == [
        "stages[1].grow.optimizer_state: 'grown': the stage before is not trained and has no moments to grow;"
        " 'fresh' would be right"
    ]


def test_a_source_of_no_layer():
    grow = "stages[1].grow={method: progressive}"
    assert example("stages[0].size.layers=0", grow).stages[0].size.layers == 0
    assert faults_of("stages[0].size.layers=0", grow, "stages[1].size.layers=0") == [
        "stages[1].size.layers: 0: a model that is grown has at least 1 layer"
    ]
    assert "needs a layer to start from" in faults_of("stages[0].size.layers=0")[0]


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
