"""Model FLOPs know no recomputation, hardware FLOPs do: savings are stated in those, time is that of these."""

from __future__ import annotations

import dataclasses

import pytest

from ligo_dist.architectures import ModelShape, every_parameter, get_architecture, no_block_matrix
from ligo_dist.growth import GrowthLayout, get_method
from ligo_dist.schedule import (
    BatchSplit,
    PhaseCost,
    forward_flops,
    growing_cost,
    growing_flops,
    learning_cost,
    learning_step_flops,
    training_cost,
    training_step_flops,
)

GPT2 = ModelShape(layers=3, width=24, heads=3, key_value_heads=3, ffn=96, vocab=50, positions=20, tied=True)
GPT2_LARGE = dataclasses.replace(GPT2, layers=5, width=40, heads=5, key_value_heads=5, ffn=161)
SPLIT = BatchSplit(8, 2, 2)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_training_recomputes_is_work_of_the_hardware_alone(checkpointed: bool) -> None:
    gpt2 = get_architecture("gpt2")
    cost = training_cost(gpt2, GPT2, 3, SPLIT, 16, checkpointed=checkpointed)
    plain, own = (training_step_flops(gpt2, GPT2, 16, 8, checkpointed=each) for each in (False, checkpointed))
    assert (cost.flops_per_step, cost.flops) == (plain, 3 * plain)
    assert (cost.hardware_flops_per_step, cost.hardware_flops) == (own, 3 * own)
    assert (own > plain) == checkpointed


def test_muons_products_are_counted() -> None:
    """Of a block of GPT-2: two matrices of 24 x 96, one of 24 x 72, one of 24 x 24; five times three products each."""
    gpt2 = get_architecture("gpt2")
    plain, own = (
        training_cost(gpt2, GPT2, 3, SPLIT, 16, checkpointed=False, muon=muon) for muon in (False, True)
    )
    block = sum(2 * 2 * 24 * 24 * m + 2 * 24**3 for m in (96, 96, 72, 24))
    assert own.flops_per_step - plain.flops_per_step == 3 * 5 * block
    assert own.hardware_flops - plain.hardware_flops == 3 * 3 * 5 * block


@pytest.mark.parametrize("method", ["ligo", "bert2bert-aki"])
def test_learning_makes_weights_twice_and_activations_again_where_asked(method: str) -> None:
    gpt2 = get_architecture("gpt2")
    layout = GrowthLayout.for_method(gpt2, GPT2, GPT2_LARGE, get_method(method))
    kept, again = (learning_cost(layout, 3, SPLIT, 16, checkpointed=each) for each in (False, True))
    model, hardware = (learning_step_flops(layout, 16, SPLIT, hardware=each) for each in (False, True))
    assert (kept.flops_per_step, kept.flops) == (model, 3 * model)
    assert (kept.hardware_flops_per_step, kept.hardware_flops) == (hardware, 3 * hardware)
    assert hardware > model
    assert again.flops == kept.flops
    assert again.hardware_flops_per_step == hardware + forward_flops(gpt2, GPT2_LARGE, 16, 8)


def test_growing_is_no_step_and_done_once_for_each_state() -> None:
    layout = GrowthLayout(get_architecture("gpt2"), GPT2, GPT2_LARGE, tied=False)
    grown = growing_cost(layout, [every_parameter] * 3)
    assert grown.hardware_flops == grown.flops == 3 * growing_flops(layout) > 0
    assert grown.flops_per_step == grown.hardware_flops_per_step == 0


def test_what_muon_trains_has_no_second_moment_to_grow() -> None:
    layout = GrowthLayout(get_architecture("gpt2"), GPT2, GPT2_LARGE, tied=False)
    parts = [no_block_matrix, lambda spec: spec.is_block_matrix]
    vectors, matrices = (growing_flops(layout, selection) for selection in parts)
    assert vectors + matrices == growing_flops(layout)
    assert matrices > 10 * vectors > 0
    grown = growing_cost(layout, [every_parameter, every_parameter, no_block_matrix])
    assert grown.flops == 3 * vectors + 2 * matrices


def test_costs_add_up_on_their_own() -> None:
    total = PhaseCost(1, 2, 3, 4, padding=0.5) + PhaseCost(10, 20, 30, 40)
    assert total == PhaseCost(11, 22, 33, 44)
