"""What DeepSpeed's own models refuse of the keys that a configuration gives it."""

from __future__ import annotations

from typing import Any

import pytest

from ligo_dist.engine import refused_keys


def zero(**keys: Any) -> dict[str, Any]:
    return {"zero_optimization": keys}


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        (zero(parameter_alignment=8), "zero_optimization.parameter_alignment", "8: DeepSpeed refuses it"),
        (zero(reduce_bucket_size=0), "zero_optimization.reduce_bucket_size", "greater than 0"),
        (zero(reduce_bucket=2), "zero_optimization.reduce_bucket", "did you mean 'reduce_bucket_size'?"),
        # A second name of DeepSpeed's, which the plan would not know.
        (zero(prefetch_bucket_size=1), "zero_optimization.prefetch_bucket_size", "unknown key; did you mean"),
        (zero(offload_param={"device": "gpu"}), "zero_optimization.offload_param.device", "'cpu' or 'nvme'"),
        (zero(leaf_module={"classes": [1]}), "zero_optimization.leaf_module.classes[0]", "valid string"),
        ({"communication_data_type": "fp8"}, "communication_data_type", "Got: fp8"),
        ({"comms_logger": {"enabled": "perhaps"}}, "comms_logger.enabled", "valid boolean"),
    ],
)
def test_the_key_and_the_value_are_named(keys: dict[str, Any], path: str, words: str):
    (fault,) = refused_keys({"steps_per_print": 5, **keys})
    assert fault.path == f"deepspeed.{path}"
    assert words in fault.message


def test_the_others_are_taken():
    assert refused_keys({}) == refused_keys(zero(sub_group_size=1e8, offload_param={"device": "cpu"})) == []
