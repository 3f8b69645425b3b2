from __future__ import annotations

import copy

import pytest

from example import assert_told, example
from ligo_dist.config import check_huggingface_keys, check_huggingface_keys_apart, stage_shapes
from ligo_dist.huggingface import huggingface_config

_LLAMA = ("model.family=llama",)


def test_knows_the_keys_of_the_family():
    assert check_huggingface_keys(example("model.huggingface={resid_pdrop: 0.1, attn_pdrop: 0.1}")) == []
    assert check_huggingface_keys(example(*_LLAMA, "model.huggingface={rope_theta: 500000.0}")) == []


def test_names_a_key_of_another_family_and_the_nearest_name():
    faults = check_huggingface_keys(
        example(*_LLAMA, "model.huggingface={resid_pdrop: 0.1, rope_thetta: 1.0}")
    )
    assert [str(fault) for fault in faults] == [
        "model.huggingface.resid_pdrop: unknown key of LlamaConfig",
        "model.huggingface.rope_thetta: unknown key of LlamaConfig; did you mean 'rope_theta'?",
    ]


def test_old_names_of_rotary_keys_are_taken_where_the_class_reads_them():
    """The library itself drops the others without a word."""
    neox = "model.huggingface={rotary_pct: 0.5, rotary_emb_base: 500.0, rope_theta: 500.0}"
    assert [str(fault) for fault in check_huggingface_keys(example("model.family=gpt_neox", neox))] == [
        "model.huggingface.rope_theta: unknown key of GPTNeoXConfig"
    ]
    llama = "model.huggingface={rope_theta: 500.0, partial_rotary_factor: 0.5}"
    assert [str(fault) for fault in check_huggingface_keys(example(*_LLAMA, llama))] == [
        "model.huggingface.partial_rotary_factor: unknown key of LlamaConfig"
    ]
    phi = "model.huggingface={partial_rotary_factor: 0.25, rope_theta: 500.0}"
    assert check_huggingface_keys(example("model.family=phi_family:PHI", phi)) == []


_SCALED = "rope_scaling: {rope_type: linear, factor: 2.0}"


@pytest.mark.parametrize(
    ("family", "keys", "rope"),
    [
        ("llama", "rope_theta: 5e5", {"rope_theta": 5e5}),
        (
            "gpt_neox",
            "rotary_pct: 0.5, rotary_emb_base: 500.0",
            {"rope_theta": 500.0, "partial_rotary_factor": 0.5},
        ),
    ],
)
def test_checking_and_building_change_no_key(family: str, keys: str, rope: dict[str, float]):
    """The library completes a mapping in its place, with its own defaults, and these then won."""
    config = example(f"model.family={family}", f"model.huggingface={{{keys}, {_SCALED}}}")
    before = copy.deepcopy(config.model.huggingface)
    assert check_huggingface_keys(config) == []
    for _ in range(2):
        made = huggingface_config(config.architecture, stage_shapes(config, 512)[0], config.model.huggingface)
        assert made.rope_parameters == {"rope_type": "linear", "factor": 2.0} | rope
    assert config.model.huggingface == before


def test_two_names_of_one_mapping():
    both = f"model.huggingface={{rope_parameters: {{rope_type: default, rope_theta: 5e5}}, {_SCALED}}}"
    faults = check_huggingface_keys(example(*_LLAMA, both))
    assert_told(faults, "model.huggingface.rope_scaling", "one of them has to go")


def test_tells_a_value_that_the_class_refuses():
    (fault,) = check_huggingface_keys(example("model.huggingface={resid_pdrop: much}"))
    assert str(fault).startswith("model.huggingface.resid_pdrop: GPT2Config refuses 'much': ")


def test_another_name_of_a_key_that_a_size_sets():
    (fault,) = check_huggingface_keys(example("model.huggingface={hidden_size: 3}"))
    assert str(fault) == "model.huggingface.hidden_size: cannot be given: it is set by `stages[].size.width`"


def test_a_process_apart_says_the_same():
    assert check_huggingface_keys_apart(example()) == []
    config = example("model.huggingface={resid_pdropp: 0.1}")
    assert check_huggingface_keys_apart(config) == check_huggingface_keys(config) != []
