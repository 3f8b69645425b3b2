"""Counts held against hand-worked cases, against `transformers` and against torch's own FLOP counter."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.engine import World
from ligo_dist.growth import Growth, GrowthLayout, get_method
from ligo_dist.huggingface import heed_positions
from ligo_dist.schedule import (
    BatchSplit,
    forward_flops,
    growing_flops,
    learning_step_flops,
    parameter_count,
    training_step_flops,
)
from measuring import counted_flops
from ranks import run_ranks
from small_models import library_model, outputs_of, random_batch, random_inputs, small_shape

GPT2 = ModelShape(layers=3, width=24, heads=3, key_value_heads=3, ffn=96, vocab=50, positions=20, tied=True)
LLAMA = ModelShape(layers=2, width=32, heads=4, key_value_heads=2, ffn=88, vocab=50, positions=20, tied=False)
GPT2_LARGE = dataclasses.replace(GPT2, layers=5, width=40, heads=5, key_value_heads=5, ffn=161)
LLAMA_LARGE = dataclasses.replace(LLAMA, layers=5, width=72, heads=9, key_value_heads=3, ffn=190)
MODELS = [
    *((family, small_shape(family, layers=3, ffn=77)) for family in architecture_names()),
    ("gpt2", GPT2),
    ("gpt2", dataclasses.replace(GPT2, tied=False, ffn=77)),
    ("gpt_neox", small_shape("gpt_neox", tied=True)),
    ("llama", LLAMA),
    ("llama", dataclasses.replace(LLAMA, tied=True, key_value_heads=1)),
    ("qwen3", small_shape("qwen3", width=60, head_size=16)),
    ("vit", small_shape("vit", image_size=15, patch_size=5, channels=1, labels=3)),
]
TRAINED = [case for case in MODELS if get_architecture(case[0]).objective != "features"]
GROWTHS = [
    ("gpt2", GPT2, GPT2_LARGE),
    ("llama", LLAMA, LLAMA_LARGE),
    *(
        (family, small_shape(family), small_shape(family, layers=5, heads=9))
        for family in architecture_names()
    ),
    # In depth alone, and where axes of the layers do not grow with the width.
    ("gpt2", GPT2, dataclasses.replace(GPT2, layers=5)),
    ("qwen3", small_shape("qwen3"), small_shape("qwen3", layers=5)),
    ("llama", LLAMA, dataclasses.replace(LLAMA_LARGE, ffn=LLAMA.ffn)),
]
LENGTH = 16


def positions(shape: ModelShape, family: str) -> int:
    """How many positions the blocks work on in these tests."""
    return get_architecture(family).axes["position"].size(shape) if shape.image_size else LENGTH


def counted(function) -> int:
    with counted_flops() as counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize(("family", "shape"), MODELS)
def test_parameters_are_those_of_the_library(family, shape):
    assert parameter_count(get_architecture(family), shape) == library_model(family, shape).num_parameters()


@pytest.mark.parametrize(("family", "shape"), MODELS)
def test_a_forward_pass_is_what_torch_counts(family, shape):
    architecture, length = get_architecture(family), positions(shape, family)
    model, inputs = library_model(family, shape), random_inputs(family, shape, 3, LENGTH)
    expected = forward_flops(architecture, shape, sequence_length=length, sequences=3)
    assert counted(lambda: outputs_of(model, inputs)) == expected


@pytest.mark.parametrize(("family", "shape"), TRAINED)
def test_a_training_step_is_what_torch_counts(family, shape):
    model, batch = library_model(family, shape), random_batch(family, shape, 3, LENGTH)
    step = training_step_flops(
        get_architecture(family), shape, positions(shape, family), 3, checkpointed=False
    )
    assert counted(lambda: model(**batch).loss.backward()) == step


@pytest.mark.parametrize(("family", "shape"), TRAINED)
def test_checkpointing_costs_what_torch_counts(family, shape):
    length = positions(shape, family)
    model, batch = library_model(family, shape), random_batch(family, shape, 2, LENGTH)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    step = training_step_flops(get_architecture(family), shape, length, 2, checkpointed=True)
    measured = counted(lambda: model(**batch).loss.backward())
    # torch stops recomputing at the last value that the backward pass needs. Where nothing follows the last product
    # of a block that is left out; behind it a post-norm block has its norm. The count always has it.
    last = shape.layers * 2 * shape.width * shape.ffn * 2 * length
    assert measured == (step if get_architecture(family).post_norm else step - last)


def test_no_layer_costs_the_embedding_and_the_head():
    gpt2, vit = get_architecture("gpt2"), get_architecture("vit")
    assert forward_flops(gpt2, dataclasses.replace(GPT2, layers=0), 16, 3) == 3 * 16 * 2 * 50 * 24
    shape = small_shape("vit", layers=0, heads=1)
    # Nine patches of 3 x 4 x 4 to a width of 8; seven labels from one token.
    assert forward_flops(vit, shape, 10, 5) == 5 * (9 * 2 * 48 * 8 + 2 * 7 * 8)
    # Three products for each, but none for the gradient of the pixels.
    assert training_step_flops(vit, shape, 10, 5, checkpointed=True) == 5 * (
        2 * 9 * 2 * 48 * 8 + 3 * 2 * 7 * 8
    )


def test_a_step_worked_out_by_hand():
    architecture = get_architecture("gpt2")
    shape = ModelShape(layers=1, width=2, heads=1, key_value_heads=1, ffn=8, vocab=5, positions=4, tied=True)
    # Weights: c_attn 2x6, c_proj 2x2, c_fc 2x8, mlp.c_proj 8x2: 48. Two tokens of one sequence.
    blocks = 2 * (2 * 48 + 4 * 2 * 2)
    head = 2 * (2 * 5 * 2)
    assert forward_flops(architecture, shape, sequence_length=2, sequences=1) == blocks + head == 264
    assert training_step_flops(architecture, shape, 2, 1, checkpointed=False) == 3 * 264
    assert training_step_flops(architecture, shape, 2, 1, checkpointed=True) == 3 * 264 + blocks


def random_tensors(parameters) -> dict[str, torch.Tensor]:
    return {p.name: torch.randn(p.shape) for p in parameters}


@pytest.mark.parametrize(("family", "source", "target"), GROWTHS)
def test_growing_costs_what_torch_counts(family, source, target):
    architecture = get_architecture(family)
    growth = Growth(architecture, source, target, tied=False)
    weights = random_tensors(architecture.parameters(source))
    operator = random_tensors(growth.operator_parameters)
    measured = counted(lambda: growth.grow_dense(weights, operator))
    assert measured == growing_flops(growth)


def test_what_is_made_twice_are_the_blocks():
    """Where new units have depth coefficients of their own; what lies outside the blocks is made once."""
    architecture = get_architecture("gpt2")
    growth = Growth(architecture, GPT2, GPT2_LARGE, tied=False, new_depth=True)
    weights = random_tensors(architecture.parameters(GPT2))
    operator = random_tensors(growth.operator_parameters)
    measured = counted(lambda: growth.grow_dense(weights, operator))
    once, twice = growing_flops(dataclasses.replace(growth, new_depth=False)), growing_flops(growth)
    assert measured == pytest.approx(twice, rel=0.02)  # torch counts what finds the new units, too
    assert 2 * once - twice == 2 * 40 * 24 * (50 + 20 + 2)  # both embeddings, and the last norm


def learning_flops(world: World, family: str, source: ModelShape, target: ModelShape) -> int:
    """What torch counts in a forward and a backward pass of the learner itself, on two samples."""
    from engines import bare_learner

    growth = Growth(get_architecture(family), source, target, tied=False)
    learner = bare_learner(world, growth, torch.float32)
    batch = random_batch(family, target, 2, LENGTH)
    return counted(lambda: learner(**batch).loss.backward())


@pytest.mark.parametrize(
    ("family", "source", "target"),
    [case for case in GROWTHS if get_architecture(case[0]).objective != "features"],
)
def test_learning_costs_what_torch_counts(family, source, target):
    length = positions(target, family)
    layout = GrowthLayout(get_architecture(family), source, target, tied=False)
    step = learning_step_flops(layout, length, BatchSplit(2, 2, 1), hardware=True)
    (measured,) = run_ranks(learning_flops, 1, family, source, target)
    # Not counted by torch: outer products, in the gradients of what grows biases and norms.
    assert measured == pytest.approx(step, rel=0.03)


def test_generation_worked_out_by_hand():
    architecture = get_architecture("gpt2")
    source = ModelShape(layers=1, width=1, heads=1, key_value_heads=1, ffn=1, vocab=3, positions=2, tied=True)
    target = dataclasses.replace(source, layers=2, width=2, heads=2, key_value_heads=2, ffn=2)
    # A block of the source: c_attn 3 + 3, c_proj 1 + 1, c_fc 1 + 1, mlp.c_proj 1 + 1, norms 4.
    mixing = 2 * 2 * 1 * (6 + 2 + 2 + 2 + 4)
    # Per target layer: c_attn 2*(2*1)*3 then 2*(3*2*1)*2; the other three matrices 2*2 then 2*2*2 each; the
    # ten numbers of the vectors (norms 4, biases 3 + 1 + 1 + 1) 2*2 each.
    # Outside: wte 2*3*2, wpe 2*2*2, ln_f 2*4.
    layer = (12 + 24) + 3 * (4 + 8) + 10 * 4
    outside = 12 + 8 + 8
    generated = 12 + outside  # wte is the head too, and generated for either
    layout = GrowthLayout(architecture, source, target, tied=False)
    assert growing_flops(layout) == mixing + 2 * layer + outside

    def learning(batch_size: int, micro_batch_size: int, ranks: int, **how: bool) -> int:
        return learning_step_flops(layout, 2, BatchSplit(batch_size, micro_batch_size, ranks), **how)

    def forward(sequences: int) -> int:
        return forward_flops(architecture, target, sequence_length=2, sequences=sequences)

    # In each micro-step of each rank: made, and two products back, of which the source, which is frozen, needs one.
    expansion = 3 * 2 * layer + (3 - 1) * generated
    step = learning(8, 2, 2)
    assert step == 3 * forward(8) + 2 * (2 * mixing + 2 * expansion)  # two micro-steps of both ranks
    # What is computed again: the weights always, the activations of all modules where they are checkpointed.
    hardware = learning(8, 2, 2, hardware=True)
    assert hardware == step + 2 * (mixing + 2 * (2 * layer + generated))
    assert learning(8, 2, 2, hardware=True, checkpointed=True) == hardware + forward(8)
    assert learning(8, 2, 2, checkpointed=True) == step
    assert learning(8, 8, 1) == 3 * forward(8) + 2 * mixing + expansion
    # Seven samples on three ranks: two micro-steps of each, of which two are padding.
    assert learning(7, 2, 3) == 3 * forward(7) + 2 * (2 * mixing + 3 * expansion)


def test_a_source_of_no_layer_and_columns_that_are_not_its_own():
    gpt2 = get_architecture("gpt2")
    none, one = (dataclasses.replace(GPT2, layers=layers) for layers in (0, 1))

    def pair(source: ModelShape, fresh_layers: int = 0) -> GrowthLayout:
        return GrowthLayout(gpt2, source, GPT2_LARGE, tied=False, fresh_layers=fresh_layers)

    assert growing_flops(pair(one)) == growing_flops(pair(none, 1))
    layer = sum(spec.numel for spec in gpt2.parameters(one) if spec.layer == 0)
    mixing = 2 * GPT2_LARGE.layers * 3 * layer
    assert growing_flops(pair(none, 3)) == growing_flops(pair(none)) + mixing
    alone = BatchSplit(2, 2, 1)
    assert learning_step_flops(pair(none, 3), 16, alone) == (
        learning_step_flops(pair(none), 16, alone) + 2 * mixing
    )


def test_documents_kept_apart_cost_what_they_cost_alone():
    """Model FLOPs, and those of hardware that passes over what is masked; with a mask it computes the rest too."""
    llama, gpt2 = get_architecture("llama"), get_architecture("gpt2")
    lengths = [3, 1, 7, 5]
    pairs = sum(length**2 for length in lengths)
    alone = sum(forward_flops(llama, LLAMA, length, 1) for length in lengths)
    assert forward_flops(llama, LLAMA, LENGTH, 1, pairs) == alone
    assert training_step_flops(llama, LLAMA, LENGTH, 4, checkpointed=False, attended=pairs) == 3 * 4 * alone
    saved = 4 * LLAMA.layers * LLAMA.attention_width * (LENGTH**2 - pairs)
    again = [
        training_step_flops(llama, LLAMA, LENGTH, 4, checkpointed=True, attended=each)
        for each in (None, pairs)
    ]
    assert again[0] - again[1] == 4 * 4 * saved
    layout = GrowthLayout.for_method(gpt2, GPT2, GPT2_LARGE, get_method("ligo"))
    saved = 4 * GPT2_LARGE.layers * GPT2_LARGE.attention_width * (LENGTH**2 - pairs)
    for checkpointed, passes in ((False, 3), (True, 4)):
        how = {"checkpointed": checkpointed, "hardware": True}
        full, apart = (
            learning_step_flops(layout, LENGTH, BatchSplit(4, 2, 1), **how, attended=each)
            for each in (None, pairs)
        )
        assert full - apart == passes * 4 * saved


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_mask_is_computed_in_full(family, attention):
    shape, architecture = small_shape(family), get_architecture(family)
    model, batch = library_model(family, shape), random_batch(family, shape, 3, LENGTH)
    model.config._attn_implementation = attention
    heed_positions(architecture, model, torch.float32)
    batch["position_ids"] = torch.arange(LENGTH).expand(3, -1) % 5
    step = training_step_flops(architecture, shape, LENGTH, 3, checkpointed=False)
    assert counted(lambda: model(**batch).loss.backward()) == step
