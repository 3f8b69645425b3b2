from __future__ import annotations

from typing import Any

import pytest

from ligo_dist.config import ALLOWED, OWNED, ZERO_OWNED, check_deepspeed_keys_apart, deepspeed_faults
from ligo_dist.runtime.zero3 import Zero3


def zero(**keys: Any) -> dict[str, Any]:
    return {"zero_optimization": keys}


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        (
            {"gradient_clipping": 1.0},
            "gradient_clipping",
            "set by `stages[].train.optimizer.gradient_clipping`",
        ),
        (
            {"elasticity": {}},
            "elasticity",
            "was removed from DeepSpeed; a run resumes on any number of ranks",
        ),
        ({"steps_per_prin": 8}, "steps_per_prin", "unknown key; did you mean 'steps_per_print'?"),
        ({"steps_per_print": "8"}, "steps_per_print", "'8' should be a whole number"),
        ({"dump_state": 1}, "dump_state", "1 should be true or false"),
        ({"zero_optimization": 3}, "zero_optimization", "3 should be a section"),
        (zero(stage=2), "zero_optimization.stage", "2 should be 3, or absent"),
        (
            zero(zero_quantized_weights=True),
            "zero_optimization.zero_quantized_weights",
            "must be plain numbers",
        ),
        (zero(sub_group_size="auto"), "zero_optimization.sub_group_size", "for the Trainer of transformers"),
        (
            zero(offload_optimizer={"device": "nvme"}),
            "zero_optimization.offload_optimizer.device",
            "'nvme' cannot be used: growing writes the partitions one by one",
        ),
        (
            zero(offload_optimizer={"device": "cpu", "ratio": 0.5}),
            "zero_optimization.offload_optimizer.ratio",
            "0.5: a part can be offloaded with DeepSpeed's own optimizer only; 1 would be right",
        ),
    ],
)
def test_says_which_key_conflicts_and_with_what(keys: dict[str, Any], path: str, words: str):
    (fault,) = deepspeed_faults(keys)
    assert fault.path == f"deepspeed.{path}"
    assert words in fault.message


def test_takes_the_other_keys():
    keys = zero(stage=3, offload_optimizer={"device": "cpu"}, stage3_prefetch_bucket_size=1000)
    assert deepspeed_faults(keys | {"steps_per_print": 5, "communication_data_type": "fp32"}) == []


@pytest.mark.parametrize("key", ["optimizer", "scheduler", "fp16", "bf16", "torch_autocast", "amp"])
def test_refuses_the_keys_that_the_project_sets(key: str):
    assert len(deepspeed_faults({key: {}})) == 1


def test_what_deepspeed_has_removed_is_refused():
    from deepspeed.runtime.config import _REMOVED_TOP_LEVEL_CONFIG_KEYS, _REMOVED_ZERO_CONFIG_KEYS

    assert not set(ALLOWED) & set(OWNED)
    assert set(_REMOVED_TOP_LEVEL_CONFIG_KEYS) <= set(OWNED)
    assert set(_REMOVED_ZERO_CONFIG_KEYS) <= set(ZERO_OWNED)


def test_a_plan_can_be_made_before_deepspeed_refuses_a_value():
    assert Zero3.from_keys(zero(reduce_bucket_size="x", sub_group_size=5e8)) == Zero3(sub_group=500_000_000)


def test_deepspeed_itself_is_asked_in_a_process_apart():
    assert check_deepspeed_keys_apart({}) == []
    (fault,) = check_deepspeed_keys_apart(zero(parameter_alignment=8))
    assert str(fault).startswith("deepspeed.zero_optimization.parameter_alignment: 8: DeepSpeed refuses it: ")
