"""The sharded path equals the dense oracle: loss, the gradient of every operator parameter, every grown weight.

The oracle is one process of plain maths: `Growth.grow_dense` and the library's model called with the result. The
sharded path is the learner in a ZeRO-3 engine and `grown_shards`, on 1 to 4 ranks, with nothing kept whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from ligo_dist.architectures import get_architecture
from ligo_dist.distributed import World
from ligo_dist.growth.methods import get_method, initial_value
from ligo_dist.growth.operators import Growth
from ligo_dist.growth.sharded import SourceShards, gather_matrix
from ligo_dist.shards import shard_of
from ranks import run_ranks
from small_models import Sizes, library_model, model_shape, token_ids, weights_of

SEQUENCES = 12
NOTHING_WHOLE = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


@dataclass(frozen=True)
class Case:
    family: str
    source: Sizes
    target: Sizes
    tied_embeddings: bool
    tied_operator: bool

    @property
    def growth(self) -> Growth:
        shapes = [model_shape(sizes, self.tied_embeddings) for sizes in (self.source, self.target)]
        return Growth(get_architecture(self.family), *shapes, tied=self.tied_operator)


CASES = {
    "gpt2, all tied": Case("gpt2", (3, 96, 3, 3, 200), (7, 160, 5, 5, 333), True, True),
    "gpt2, nothing tied": Case("gpt2", (2, 36, 3, 3, 77), (3, 60, 5, 5, 111), False, False),
    "llama, all tied": Case("llama", (2, 48, 4, 2, 77), (3, 72, 6, 3, 111), True, True),
    "llama, nothing tied": Case("llama", (3, 128, 4, 2, 200), (5, 192, 6, 3, 333), False, False),
    "llama, larger groups": Case("llama", (2, 48, 4, 2, 77), (3, 72, 6, 2, 111), True, False),
}


@dataclass
class Numbers:
    """What both paths give: loss of the target, gradients of the operator, weights of the target."""

    loss: float
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


def source_weights(case: Case) -> dict[str, Tensor]:
    return weights_of(library_model(case.family, case.growth.source))


def operator_values(growth: Growth) -> dict[str, Tensor]:
    """The paper's start, shaken, so that no coefficient is zero or shared by two sides."""
    generator = torch.Generator().manual_seed(2)
    return {
        p.name: initial_value(growth, get_method("ligo"), p, 0)
        + 0.02 * torch.randn(p.shape, generator=generator)
        for p in growth.operator_parameters
    }


@cache
def dense(name: str) -> Numbers:
    case = CASES[name]
    growth = case.growth
    operator = {key: value.requires_grad_() for key, value in operator_values(growth).items()}
    weights = growth.grow_dense(source_weights(case), operator)
    ids = token_ids(SEQUENCES)
    target = library_model(case.family, growth.target, seed=9)
    inputs = {"input_ids": ids, "labels": ids, "use_cache": False}
    loss = functional_call(target, weights, kwargs=inputs, tie_weights=True).loss
    loss.backward()
    gradients = {}
    for key, value in operator.items():
        assert value.grad is not None, f"{key} has no part in the loss"
        gradients[key] = value.grad
    return Numbers(loss.item(), gradients, {key: value.detach() for key, value in weights.items()})


def sharded(world: World, case: Case) -> Numbers:
    """The same on a rank; the gradients as AdamW got them: its first moment after one step from zero."""
    from ligo_dist.engine import Engine, OptimizerSettings, engine_config
    from ligo_dist.growth.learner import LearnedGrowth, operator_name
    from ligo_dist.growth.transfer import gathered_operator, grown_shards
    from ligo_dist.models import build_meta_model, build_partitioned_model, huggingface_config

    growth, beta = case.growth, 0.5
    source = SourceShards.build(
        growth, {name: shard_of(w, world.rank, world.size) for name, w in source_weights(case).items()}
    )
    operator = {name: shard_of(v, world.rank, world.size) for name, v in operator_values(growth).items()}
    config = huggingface_config(growth.architecture, growth.target, {"bos_token_id": 1, "eos_token_id": 2})
    settings = OptimizerSettings(1e-3, (beta, 0.95), 1e-8, weight_decay=0.0, gradient_clipping=0.0)

    target = build_meta_model(growth.architecture, growth.target, config, world.device)
    learner = LearnedGrowth(growth, source, target, torch.float32, world)
    micro = SEQUENCES // world.size // 2 or 1
    accumulation = SEQUENCES // world.size // micro
    engine_keys = engine_config("fp32", micro, accumulation, 0.0, NOTHING_WHOLE)
    engine = Engine(
        learner, settings, engine_keys, world, learner.external_parameters(), rename=operator_name
    )
    engine.write_shards(operator.items())
    mine = token_ids(SEQUENCES).chunk(world.size)[world.rank]
    result = engine.train_step(mine.split(micro), 1e-3)
    moments = engine.read_moments()["exp_avg"]
    shapes = {p.name: p.shape for p in growth.operator_parameters}
    gradients = {name: gather_matrix(m, shapes[name], world) / (1 - beta) for name, m in moments.items()}
    engine.release()

    model = build_partitioned_model(growth.architecture, growth.target, config, torch.float32)
    grown = Engine(model, settings, engine_config("fp32", 1, 1, 0.0, NOTHING_WHOLE), world)
    grown.write_shards(grown_shards(growth, source, gathered_operator(growth, operator, world), world))
    shapes = {spec.name: spec.shape for spec in growth.target_parameters}
    weights = {name: gather_matrix(s, shapes[name], world) for name, s in grown.read_shards().items()}
    evaluated = grown.evaluate([(mine, len(mine))])
    grown.release()
    assert abs(evaluated - result.loss) < 1e-5, "the grown model is the model that was learned on"
    return Numbers(result.loss, gradients, weights)


def close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < tolerance, f"{name}: off by {error:.1e} of the largest value"


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_sharded_equals_dense(name: str, world_size: int):
    expected = dense(name)
    results = run_ranks(sharded, world_size, CASES[name])
    for numbers in results:
        assert numbers.loss == pytest.approx(expected.loss, rel=1e-6)
        assert set(numbers.gradients) == set(expected.gradients)
        assert set(numbers.weights) == set(expected.weights)
        for key, gradient in expected.gradients.items():
            assert gradient.abs().max() > 0, key
            close(key, numbers.gradients[key], gradient, 1e-4)
        for key, weight in expected.weights.items():
            close(key, numbers.weights[key], weight, 1e-5)
