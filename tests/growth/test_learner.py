"""What the learner keeps in memory, and its low-precision forward pass."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from ligo_dist.architectures import get_architecture
from ligo_dist.engine.world import World
from ligo_dist.growth.operators import Growth
from ranks import run_ranks
from small_models import model_shape, token_ids

SIZES = {"gpt2": ((2, 24, 3, 3, 50), (7, 40, 5, 5, 111)), "llama": ((2, 32, 4, 2, 50), (7, 48, 6, 3, 111))}


def pair_of(family: str) -> Growth:
    source, target = (model_shape(sizes, True) for sizes in SIZES[family])
    return Growth(get_architecture(family), source, target, tied=True)


class Alive:
    """Counts the elements of generated weights that are alive."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0

    def add(self, tensor: Tensor) -> None:
        numel = tensor.numel()
        self.now += numel
        self.total += numel
        self.most = max(self.most, self.now)
        weakref.finalize(tensor, self._remove, numel)

    def _remove(self, numel: int) -> None:
        self.now -= numel


def generated_alive(world: World, family: str) -> tuple[int, int, int, int]:
    from engines import bare_learner
    from ligo_dist.growth import operators as module

    growth, alive, expand = pair_of(family), Alive(), module.expand_width

    def counted(*arguments: Any) -> Tensor:
        result = expand(*arguments)
        alive.add(result)
        return result

    learner = bare_learner(world, growth, torch.float32)
    module.expand_width = counted
    try:
        ids = token_ids(2)
        loss = learner(input_ids=ids, labels=ids).loss
        after_forward = alive.now
        loss.backward()
    finally:
        module.expand_width = expand
    return alive.most, alive.total, after_forward, alive.now


@pytest.mark.parametrize("family", SIZES)
def test_generated_weights_are_alive_for_one_block_at_a_time(family: str):
    specs = pair_of(family).target_parameters
    blocks: dict[int | None, int] = {}
    for spec in specs:
        blocks[spec.layer] = blocks.get(spec.layer, 0) + spec.numel
    ((most, total, after_forward, at_the_end),) = run_ranks(generated_alive, 1, family)
    assert total >= 2 * sum(blocks.values()), "all were made, forward and again backward"
    assert most <= blocks[0], "one block's weights, forward and backward"
    assert after_forward == 0
    assert at_the_end == 0


def losses(world: World, family: str) -> list[float]:
    from engines import bare_learner

    ids = token_ids(8)
    values = []
    for dtype in (torch.float32, torch.bfloat16):
        learner = bare_learner(world, pair_of(family), dtype)
        with torch.no_grad():
            values.append(learner(input_ids=ids, labels=ids).loss.item())
    return values


@pytest.mark.parametrize("family", SIZES)
def test_bf16_is_fp32_with_less_precision(family: str):
    ((exact, rough),) = run_ranks(losses, 1, family)
    assert rough == pytest.approx(exact, rel=0.02)
    assert rough != exact
