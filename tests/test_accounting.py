"""Counts held against hand-worked cases, against `transformers` and against torch's own FLOP counter."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from ligo_dist.accounting import (
    evaluation_flops,
    forward_flops,
    growing_flops,
    learning_step_flops,
    parameter_count,
    training_step_flops,
)
from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.distributed import World
from ligo_dist.growth.operators import Growth
from ranks import run_ranks

GPT2 = ModelShape(layers=3, width=24, heads=3, key_value_heads=3, ffn=96, vocab=50, positions=20, tied=True)
LLAMA = ModelShape(layers=2, width=32, heads=4, key_value_heads=2, ffn=88, vocab=50, positions=20, tied=False)
GPT2_LARGE = dataclasses.replace(GPT2, layers=5, width=40, heads=5, key_value_heads=5, ffn=161)
LLAMA_LARGE = dataclasses.replace(LLAMA, layers=5, width=72, heads=9, key_value_heads=3, ffn=190)
MODELS = [
    ("gpt2", GPT2),
    ("gpt2", dataclasses.replace(GPT2, tied=False, ffn=77)),
    ("llama", LLAMA),
    ("llama", dataclasses.replace(LLAMA, tied=True, key_value_heads=1)),
]
GROWTHS = [("gpt2", GPT2, GPT2_LARGE), ("llama", LLAMA, LLAMA_LARGE)]


def build(architecture: Architecture, shape: ModelShape, device: str) -> torch.nn.Module:
    config = getattr(transformers, architecture.config_class)(
        **architecture.library_keys(shape), use_cache=False, attn_implementation="eager"
    )
    with torch.device(device):
        return getattr(transformers, architecture.model_class)(config)


def counted(function) -> int:
    # Matrix-vector products, with which biases are grown, are not among those that torch counts.
    mv = {torch.ops.aten.mv: lambda matrix, vector, **_: 2 * matrix[0] * matrix[1]}
    with FlopCounterMode(display=False, custom_mapping=mv) as counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize(("family", "shape"), MODELS)
def test_parameters_are_those_of_the_library(family, shape):
    architecture = get_architecture(family)
    model = build(architecture, shape, "meta")
    model.tie_weights()
    assert parameter_count(architecture, shape) == sum(p.numel() for p in model.parameters())


def test_parameters_of_gpt2_small_are_the_published_number():
    shape = ModelShape(12, 768, 12, 12, 3072, 50257, 1024, tied=True)
    assert parameter_count(get_architecture("gpt2"), shape) == 124_439_808


@pytest.mark.parametrize(("family", "shape"), MODELS)
def test_forward_and_backward_are_what_torch_counts(family, shape):
    architecture = get_architecture(family)
    model = build(architecture, shape, "cpu")
    tokens = torch.zeros(3, 16, dtype=torch.long)
    expected = forward_flops(architecture, shape, sequence_length=16, sequences=3)
    with torch.no_grad():
        assert counted(lambda: model(tokens)) == expected
    assert evaluation_flops(architecture, shape, 16, 3) == expected
    step = training_step_flops(architecture, shape, 16, 3, checkpointed=False)
    assert counted(lambda: model(tokens, labels=tokens).loss.backward()) == step


@pytest.mark.parametrize(("family", "shape"), MODELS)
def test_checkpointing_costs_what_torch_counts(family, shape):
    architecture = get_architecture(family)
    model = build(architecture, shape, "cpu")
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    tokens = torch.zeros(2, 16, dtype=torch.long)
    step = training_step_flops(architecture, shape, 16, 2, checkpointed=True)
    measured = counted(lambda: model(tokens, labels=tokens).loss.backward())
    # torch stops recomputing at the last value that the backward pass needs. In Llama nothing follows the
    # last product of a block, so that is left out; in GPT-2 a dropout does. The count always has it.
    last = shape.layers * 2 * shape.width * shape.ffn * 2 * 16
    assert measured == (step - last if family == "llama" else step)


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
    assert measured == growing_flops(architecture, source, target)


def learning_flops(world: World, family: str, source: ModelShape, target: ModelShape) -> int:
    """What torch counts in a forward and a backward pass of the learner itself, on two sequences of 16 tokens."""
    from engines import bare_learner

    growth = Growth(get_architecture(family), source, target, tied=False)
    learner = bare_learner(world, growth, torch.float32)
    batch = torch.arange(32).view(2, 16)
    return counted(lambda: learner(input_ids=batch, labels=batch).loss.backward())


@pytest.mark.parametrize(("family", "source", "target"), GROWTHS)
def test_learning_costs_what_torch_counts(family, source, target):
    step = learning_step_flops(get_architecture(family), source, target, 16, 2, micro_batch_size=2)
    (measured,) = run_ranks(learning_flops, 1, family, source, target)
    # Not counted by torch: outer products, in the gradients of what grows biases and norms. Counted here and left
    # out by torch's checkpointing: the last product of what is recomputed.
    assert measured == pytest.approx(step.total, rel=0.03)


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
    assert growing_flops(architecture, source, target) == mixing + 2 * layer + outside
    step = learning_step_flops(architecture, source, target, 2, 8, micro_batch_size=2, world_size=2)
    assert step.model == training_step_flops(architecture, target, 2, 8, checkpointed=True)
    assert step.mixing == 2 * 3 * mixing  # two micro-steps of both ranks
    assert step.expansion == 4 * (
        4 * 2 * layer + (4 - 1) * generated
    )  # four executions; the source is frozen
    assert step.total == step.model + step.mixing + step.expansion
    alone = learning_step_flops(architecture, source, target, 2, 8, micro_batch_size=8)
    assert (alone.mixing, alone.expansion) == (step.mixing // 2, step.expansion // 4)
