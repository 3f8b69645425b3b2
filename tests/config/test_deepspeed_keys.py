from __future__ import annotations

import pytest

from ligo_dist.config.deepspeed_keys import ALLOWED, OWNED, ZERO_ALLOWED, ZERO_OWNED, deepspeed_faults


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"train_batch_size": 8},
            "deepspeed.train_batch_size: cannot be given: it is set by `stages[].train.batch_size`",
        ),
        (
            {"gradient_clipping": 1.0},
            "deepspeed.gradient_clipping: cannot be given: it is set by"
            " `stages[].train.optimizer.gradient_clipping`",
        ),
        (
            {"elasticity": {}},
            "deepspeed.elasticity: cannot be given: it was removed from DeepSpeed; a run"
            " resumes on any number of"
            " ranks instead",
        ),
        ({"steps_per_prin": 8}, "deepspeed.steps_per_prin: unknown key; did you mean 'steps_per_print'?"),
        (
            {"zero_optimization": 3},
            "deepspeed.zero_optimization: 3 should be a section (a mapping of keys to values)",
        ),
        (
            {"zero_optimization": {"stage": 2}},
            "deepspeed.zero_optimization.stage: 2 should be 3, or absent: everything here is"
            " sharded by ZeRO-3",
        ),
        (
            {"zero_optimization": {"reduce_bucket": 2}},
            "deepspeed.zero_optimization.reduce_bucket: unknown key; did you mean 'reduce_bucket_size'?",
        ),
        (
            {"zero_optimization": {"zero_quantized_weights": True}},
            "deepspeed.zero_optimization.zero_quantized_weights: cannot be given: growing reads"
            " and writes the"
            " partitions themselves, which must be plain numbers",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}},
            "deepspeed.zero_optimization.offload_optimizer.device: 'nvme' cannot be used: growing writes the"
            " partitions one by one, each through the disk; cpu or none would be right",
        ),
    ],
)
def test_says_which_key_conflicts_and_with_what(keys, said):
    assert [str(fault) for fault in deepspeed_faults(keys)] == [said]


def test_takes_the_other_keys():
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "stage3_prefetch_bucket_size": 1000}
    assert (
        deepspeed_faults({"zero_optimization": zero, "steps_per_print": 5, "communication_data_type": "fp32"})
        == []
    )


@pytest.mark.parametrize("key", ["optimizer", "scheduler", "fp16", "bf16", "torch_autocast", "amp"])
def test_refuses_the_keys_that_the_project_sets(key):
    assert len(deepspeed_faults({key: {}})) == 1


def test_no_key_is_both_taken_and_refused():
    assert not set(ALLOWED) & set(OWNED)
    assert not set(ZERO_ALLOWED) & set(ZERO_OWNED)


def test_the_lists_are_those_of_the_installed_deepspeed(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import _REMOVED_TOP_LEVEL_CONFIG_KEYS, _REMOVED_ZERO_CONFIG_KEYS
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    names = {field.alias or name for name, field in fields.items()}
    assert set(ZERO_ALLOWED) <= names
    assert names <= set(ZERO_ALLOWED) | set(ZERO_OWNED)
    assert set(_REMOVED_TOP_LEVEL_CONFIG_KEYS) <= set(OWNED)
    assert set(_REMOVED_ZERO_CONFIG_KEYS) <= set(ZERO_OWNED)
