"""AdamW as engines build it: fused on GPUs, and a state that goes on where another ended."""

from __future__ import annotations

import pytest
import torch

from engines import SETTINGS
from ligo_dist.engine import ADAM_MOMENTS, build_adamw, set_steps

DEVICES = [torch.device("cpu"), torch.device("cuda")]


def stepped(weights: torch.Tensor, device: torch.device, steps: int) -> torch.optim.AdamW:
    """An optimizer of the weights, for ranks on a device, that has taken some steps with gradients of their own."""
    optimizer = build_adamw([{"params": [weights], "weight_decay": 0.1}], SETTINGS, device)
    take_steps(optimizer, weights, 0, steps)
    return optimizer


def take_steps(optimizer: torch.optim.Optimizer, weights: torch.Tensor, first: int, steps: int) -> None:
    for step in range(first, first + steps):
        weights.grad = torch.randn(weights.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()


def random_weights() -> torch.Tensor:
    return torch.randn(101, generator=torch.Generator().manual_seed(7)).requires_grad_()


def test_it_is_fused_for_ranks_on_gpus_alone():
    optimizers = [build_adamw([{"params": [random_weights()]}], SETTINGS, device) for device in DEVICES]
    assert [optimizer.param_groups[0]["fused"] for optimizer in optimizers] == [False, True]


def test_on_processors_it_is_the_plain_loop_to_the_last_digit():
    mine, plain = random_weights(), random_weights()
    stepped(mine, torch.device("cpu"), 5)
    take_steps(torch.optim.AdamW([plain], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1), plain, 0, 5)
    assert torch.equal(mine, plain)


def test_fused_weights_in_the_processors_memory_take_the_same_steps():
    fused, plain = random_weights(), random_weights()
    for device, weights in zip(DEVICES, (plain, fused), strict=True):
        stepped(weights, device, 5)
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_steps_go_on_where_they_ended(device: torch.device):
    whole, parts = random_weights(), random_weights()
    stepped(whole, device, 5)
    state = stepped(parts, device, 3).state[parts]
    other = build_adamw([{"params": [parts], "weight_decay": 0.1}], SETTINGS, device)
    set_steps(other, parts, 3)
    for moment in ADAM_MOMENTS:
        other.state[parts][moment].copy_(state[moment])
    take_steps(other, parts, 3, 2)
    assert torch.equal(parts, whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_the_count_of_the_steps_lies_beside_the_weights():
    cuda = torch.device("cuda")
    weights = torch.randn(101, device=cuda, requires_grad=True)
    optimizer = build_adamw([{"params": [weights]}], SETTINGS, cuda)
    set_steps(optimizer, weights, 3)
    weights.grad = torch.randn_like(weights)
    optimizer.step()
    assert optimizer.state[weights]["step"].item() == 4
