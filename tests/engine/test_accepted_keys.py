"""Every key of DeepSpeed's that a configuration may give is run: a step with it is the step without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engines import build_engine, causal, train_on, whole
from ligo_dist.config import ALLOWED, MAY_CHANGE, ZERO_OWNED
from ligo_dist.engine import ZERO_KEYS, World
from ranks import run_ranks
from small_models import library_model, model_shape, token_ids, weights_of

LLAMA = model_shape((2, 24, 3, 1, 41), False)

KEYS: dict[str, Any] = {
    "aio": {"block_size": 4096},
    "comms_logger": {"enabled": False},
    "communication_data_type": "fp32",
    "disable_allgather": True,
    "disable_python_gc": True,
    "dump_state": False,
    "flops_profiler": {"enabled": False},
    "log_level": "error",
    "memory_breakdown": False,
    "steps_per_print": 1000,
    "timers": {"throughput": {"enabled": False}},
    "wall_clock_breakdown": False,
}
ZERO: dict[str, Any] = {
    "allgather_bucket_size": 1000,
    "allgather_partitions": False,
    "contiguous_gradients": False,
    "enable_sanity_checks": True,
    "ignore_unused_parameters": False,
    "leaf_module": {"classes": ["transformers.models.llama.modeling_llama.LlamaMLP"]},
    "log_trace_cache_warnings": True,
    "memory_efficient_linear": False,
    "offload_optimizer": {"device": "cpu", "ratio": 1},
    "offload_param": {"device": "cpu"},
    "overlap_comm": False,
    "override_module_apply": False,
    "parameter_alignment": True,
    "pipeline_loading_checkpoint": True,
    "reduce_bucket_size": 1000,
    "reduce_scatter": False,
    "round_robin_gradients": True,
    "stage": 3,
    "stage3_allgather_sequential": True,
    "stage3_max_live_parameters": 100,
    "stage3_max_reuse_distance": 100,
    "stage3_model_persistence_threshold": 100,
    "stage3_module_granularity_threshold": 10,
    "stage3_param_persistence_threshold": 100,
    "stage3_prefetch_bucket_size": 100,
    "stage3_use_all_reduce_for_fetch_params": True,
    "sub_group_size": 100,
    "use_multi_rank_bucket_allreduce": False,
    "zero_hpz_partition_size": 1,
    "zero_quantized_gradients": False,
}


def two_steps(world: World, keys: dict[str, Any]) -> tuple[list[float], dict[str, Tensor]]:
    engine = build_engine(world, "llama", LLAMA, weights_of(library_model("llama", LLAMA)), deepspeed=keys)
    mine = [token_ids(4, seed=step).chunk(world.size)[world.rank] for step in range(2)]
    losses = [train_on(engine, [causal(ids)], {"model": 0.01}).loss for ids in mine]
    weights = whole(world, "llama", LLAMA, engine.read_shards())
    engine.release()
    return losses, weights


def test_each_key_that_is_accepted_is_here() -> None:
    assert set(KEYS) | {"zero_optimization"} == set(ALLOWED)
    assert set(ZERO) == set(ZERO_KEYS) - set(ZERO_OWNED)


def test_those_that_may_change_when_a_run_goes_on_are_among_them() -> None:
    """The test below shows that they change no number."""
    assert set(MAY_CHANGE["deepspeed"]) <= set(KEYS) - {"communication_data_type"}
    assert set(MAY_CHANGE["deepspeed.zero_optimization"]) <= set(ZERO) - {"zero_quantized_gradients", "stage"}


@pytest.fixture(scope="module")
def plain() -> tuple[list[float], dict[str, Tensor]]:
    return run_ranks(two_steps, 2, {})[0]


@pytest.mark.parametrize("key", [*KEYS, *ZERO])
def test_a_step_with_a_key_is_the_step_without_it(
    plain: tuple[list[float], dict[str, Tensor]], key: str
) -> None:
    keys = {key: KEYS[key]} if key in KEYS else {"zero_optimization": {key: ZERO[key]}}
    for losses, weights in run_ranks(two_steps, 2, keys):
        assert losses == pytest.approx(plain[0], rel=1e-6)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, plain[1][name], rtol=1e-4, atol=1e-6, msg=name)
