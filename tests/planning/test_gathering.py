"""Which weights are gathered, how often and how many at once: by hand, and against DeepSpeed itself."""

from __future__ import annotations

from typing import Any

import pytest

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.engine import World
from ligo_dist.planning import (
    Module,
    Setting,
    Trained,
    Weight,
    engine_traffic,
    forward_and_backward,
    model_modules,
)
from ligo_dist.runtime.zero3 import Zero3
from ranks import run_ranks

NOTHING_AHEAD = {"prefetch_bucket": 0, "persistence_threshold": 0}


def module(name: str, numel: int, layer: int | None = None) -> Module:
    return Module((Weight(name, numel, "vectors"),), layer)


def chain(*sizes: int) -> list[Module]:
    return [module(f"m{index}", size) for index, size in enumerate(sizes)]


def counts(modules: list[Module], distance: int, *, checkpointed: bool = False) -> list[int]:
    found = Trained.of(modules, Zero3(reuse_distance=distance, **NOTHING_AHEAD), checkpointed=checkpointed)
    return list(found.counts.values())


def test_the_backward_pass_meets_the_modules_in_reverse() -> None:
    uses = forward_and_backward(chain(1, 2, 3), checkpointed=False)
    assert [used.numel for used in uses] == [1, 2, 3, 3, 2, 1]


def test_a_checkpointed_block_runs_again_in_the_backward_pass() -> None:
    modules = [module("embedding", 1), module("a", 2, 0), module("b", 3, 1), module("head", 4)]
    uses = forward_and_backward(modules, checkpointed=True)
    assert [used.numel for used in uses] == [1, 2, 3, 4, 4, 3, 3, 2, 2, 1]


def test_weights_are_kept_while_little_lies_in_between() -> None:
    modules = chain(10, 20, 30)
    # Between the two uses of the first lie 2 x (20 + 30) elements, of the second 2 x 30, of the last none.
    assert counts(modules, 101) == [1, 1, 1]
    assert counts(modules, 100) == [2, 1, 1]
    assert counts(modules, 60) == [2, 2, 1]
    assert counts(modules, 0) == [2, 2, 1]


def test_a_tied_embedding_is_one_weight_with_two_uses() -> None:
    modules = [module("e", 10), module("a", 20, 0), module("e", 10)]
    assert counts(modules, 21) == [1, 1]
    # Forward, at the head (and in its backward pass), and at the end.
    assert counts(modules, 20) == [3, 2]


def test_how_many_are_whole_at_once() -> None:
    modules = chain(10, 20, 30)
    all_kept = Trained.of(modules, Zero3(**NOTHING_AHEAD))
    assert (all_kept.most, all_kept.at_loss, all_kept.persistent) == (60, 60, 0)
    last = Trained.of(modules, Zero3(reuse_distance=0, **NOTHING_AHEAD))
    assert last.at_loss == 30
    assert last.most == 60  # the largest, and as much again that is gathered ahead
    small = Trained.of(modules, Zero3(prefetch_bucket=0, persistence_threshold=10))
    assert (small.counts, small.persistent) == ({"m1": 1, "m2": 1}, 10)


def test_the_optimizer_takes_groups_and_parts_of_them() -> None:
    weights = tuple(Weight(name, 10, group) for name, group in zip("abcd", "mmmv", strict=True))
    trained = Trained.of([Module(weights, None)], Zero3())
    assert trained.sub_groups(1, 10**9) == {"m": [30], "v": [10]}
    assert trained.sub_groups(1, 20) == {"m": [20, 10], "v": [10]}
    assert trained.sub_groups(2, 11) == {"m": [15], "v": [5]}


GPT2 = ModelShape(layers=4, width=32, heads=2, key_value_heads=2, ffn=128, vocab=300, positions=16, tied=True)
LLAMA = ModelShape(
    layers=4, width=32, heads=2, key_value_heads=1, ffn=96, vocab=300, positions=16, tied=False
)
BLOCK = 12 * 32 * 32


def gathered_bytes(world: World, family: str, shape: ModelShape, zero: dict[str, Any], again: bool) -> int:
    """Bytes that DeepSpeed gathers in an optimizer step of two micro-steps."""
    import torch

    from collectives import counted_bytes
    from engines import build_engine, causal

    engine = build_engine(
        world, family, shape, accumulation=2, deepspeed={"zero_optimization": zero}, checkpointed=again
    )
    engine.write_shards((name, torch.zeros(-(-n // world.size))) for name, n in engine.numels.items())
    micro_batches = [(causal(torch.zeros(2, 16, dtype=torch.long)), 2)] * 2
    for _ in range(2):
        engine.train_step(micro_batches, 4 * world.size, {"model": 1e-3})
    with counted_bytes() as sent:
        engine.train_step(micro_batches, 4 * world.size, {"model": 1e-3})
    engine.release()
    return sent["all_gather"]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("distance", [0, BLOCK, 3 * BLOCK, 10 * BLOCK, 10**9])
@pytest.mark.parametrize(("family", "shape"), [("gpt2", GPT2), ("llama", LLAMA)])
def test_deepspeed_gathers_so_often(
    family: str, shape: ModelShape, distance: int, checkpointed: bool
) -> None:
    zero = {"stage3_max_reuse_distance": distance, "stage3_prefetch_bucket_size": 1000}
    setting = Setting(get_architecture(family), 2, 4, zero3=Zero3.from_keys({"zero_optimization": zero}))
    modules = model_modules(setting.architecture, shape)
    trained = Trained.of(modules, setting.zero3, checkpointed=checkpointed)
    planned = engine_traffic(setting, trained, micro_steps=2)
    measured = run_ranks(gathered_bytes, 2, family, shape, zero, checkpointed)
    assert measured == [planned.all_gather] * 2
