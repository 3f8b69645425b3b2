from __future__ import annotations

from example import example

from ligo_dist.config.huggingface import check_huggingface_keys, check_huggingface_keys_apart

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
