"""What the learner keeps in memory, and its low-precision forward pass."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from ligo_dist.architectures import get_architecture
from ligo_dist.engine import World
from ligo_dist.growth import GeneratedWeights, Growth
from ranks import run_ranks
from small_models import model_shape, random_batch, small_shape, token_ids

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


def gradients(world: World, family: str, checkpointed: bool) -> tuple[float, dict[str, Tensor]]:
    from engines import bare_learner

    source, target = (small_shape(family, *size, head_size=4) for size in ((2, 3), (4, 6)))
    growth = Growth(get_architecture(family), source, target, tied=False)
    learner = bare_learner(world, growth, torch.float32, checkpointed=checkpointed)
    loss = learner(**random_batch(family, target, 2, 16)).loss
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in learner.named_parameters()}


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3", "bert", "vit"])
def test_activations_that_are_kept_or_computed_again_give_the_same_gradients(family: str):
    ((kept_loss, kept),) = run_ranks(gradients, 1, family, False)
    ((loss, again),) = run_ranks(gradients, 1, family, True)
    assert kept_loss == loss
    for name, gradient in again.items():
        assert gradient.any(), name
        torch.testing.assert_close(kept[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def test_what_a_call_saves_is_kept_but_for_its_weights():
    """A view of a weight is found again by its place; other tensors, also of the same sizes, stay what they are."""
    made = []

    def generate(operator: dict[str, Tensor]) -> dict[str, Tensor]:
        made.append(operator["a"].requires_grad)
        whole = operator["a"] * torch.arange(12.0)
        return {"one": whole[:6].view(2, 3), "two": whole[6:]}

    operator = torch.tensor(2.0, requires_grad=True)
    weights = GeneratedWeights(generate, {"a": operator})
    call = weights.make()
    packed = [weights.pack(tensor) for tensor in (call["one"].T, call["two"][2:4], torch.ones(6))]
    assert [isinstance(one, Tensor) for one in packed] == [False, False, True]
    one, two, other = (weights.unpack(each) for each in packed)
    assert torch.equal(one, call["one"].T)
    assert torch.equal(two, call["two"][2:4])
    assert torch.equal(other, torch.ones(6))
    (call["one"].sum() + 2 * call["two"].sum()).backward()
    assert operator.grad == sum(range(6)) + 2 * sum(range(6, 12))
    assert len(made) == 2, "once for the call, once for all that the backward pass asks for"
