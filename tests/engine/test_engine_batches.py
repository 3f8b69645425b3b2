"""The engine's step on batches that do not divide, against plain torch; and on those that do, bit by bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engines import SETTINGS, build_engine, partitions, train_on, whole
from ligo_dist.corpus import Batches
from ligo_dist.engine import Engine, World
from ligo_dist.schedule import BatchSplit
from ranks import run_ranks
from small_models import GivenSamples, library_model, random_batch, small_shape, weights_of

BATCH_SIZE = 7
RATE = 0.01
BETA = SETTINGS.betas[0]
NOT_CLIPPED = replace(SETTINGS, gradient_clipping=0.0)
FAMILIES = ["gpt2", "bert", "roberta", "vit", "deit"]


@dataclass(frozen=True)
class Numbers:
    """What a step came to: `gradients` are those that AdamW got."""

    loss: float
    gradient_norm: float
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


def engine_step(world: World, family: str, micro_batch_size: int) -> Numbers:
    """A step on one epoch of seven samples, read as a run reads them."""
    shape = small_shape(family)
    split = BatchSplit(BATCH_SIZE, micro_batch_size, world.size)
    engine = build_engine(
        world,
        family,
        shape,
        weights_of(library_model(family, shape)),
        settings=NOT_CLIPPED,
        micro_batch_size=split.rows,
        accumulation=split.micro_steps,
    )
    samples = GivenSamples(random_batch(family, shape, BATCH_SIZE))
    batches = Batches(samples, seed=5, batch_size=BATCH_SIZE)
    parts = batches.micro_batches(3, world.rank, world.size, micro_batch_size)
    result = engine.train_step(parts, BATCH_SIZE, {"model": RATE})
    moments = whole(world, family, shape, engine.read_moments()["exp_avg"])
    gradients = {name: moment / (1 - BETA) for name, moment in moments.items()}
    weights = whole(world, family, shape, engine.read_shards())
    engine.release()
    return Numbers(result.loss, result.gradient_norm, gradients, weights)


def plain_step(family: str) -> Numbers:
    """The same with torch.optim.AdamW on one process, the loss the mean over the samples, one by one."""
    shape = small_shape(family)
    model = library_model(family, shape).train()
    batch = random_batch(family, shape, BATCH_SIZE)
    samples = [{name: tensor[row : row + 1] for name, tensor in batch.items()} for row in range(BATCH_SIZE)]
    loss = torch.stack([model(**sample).loss for sample in samples]).mean()
    loss.backward()
    parameters = dict(model.named_parameters())
    gradients = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    groups = [
        {"params": [p for p in parameters.values() if p.dim() > 1], "weight_decay": SETTINGS.weight_decay},
        {"params": [p for p in parameters.values() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=RATE, betas=SETTINGS.betas, eps=SETTINGS.epsilon).step()
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    return Numbers(loss.item(), norm.item(), gradients, weights_of(model))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("world_size", "micro_batch_size"),
    [(1, 2), (2, 2), (3, 2), (3, 1), (2, 5)],
    ids=["one rank", "half is padding", "all is padding", "single rows", "fewer rows than allowed"],
)
def test_a_step_is_along_the_gradient_of_the_mean_over_the_batch(
    family: str, world_size: int, micro_batch_size: int
):
    expected = plain_step(family)
    largest = max(gradient.abs().max().item() for gradient in expected.gradients.values())
    for numbers in run_ranks(engine_step, world_size, family, micro_batch_size):
        assert numbers.loss == pytest.approx(expected.loss, rel=1e-5)
        assert numbers.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-4)
        for name, gradient in expected.gradients.items():
            assert (numbers.gradients[name] - gradient).abs().max() < 1e-5 * largest, name
            # Where the gradient is more than rounding, AdamW's first step is the learning rate's size.
            clear = gradient.abs() > 1e-3 * largest
            difference = (numbers.weights[name] - expected.weights[name]).abs()
            assert (difference[clear] < 0.02 * RATE).all(), name


# --- where the batch divides ---


def train_plainly(engine: Engine, micro_batches: list[dict[str, Tensor]]) -> float:
    """DeepSpeed's own mean over micro-batches and ranks, nothing weighed."""
    inner, losses = engine._engine, []
    for group in inner.optimizer.param_groups:
        group["lr"] = RATE
    inner.train()
    for inputs in micro_batches:
        loss = inner(**inputs).loss
        inner.backward(loss)
        inner.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def both_ways(world: World, precision: str) -> tuple[bool, bool, float, float]:
    shape = small_shape("gpt2")
    weights = weights_of(library_model("gpt2", shape))
    mine = {
        name: tensor.chunk(world.size)[world.rank] for name, tensor in random_batch("gpt2", shape, 12).items()
    }
    split = BatchSplit(12, 2, world.size)
    parts = [
        {name: tensor[first : first + 2] for name, tensor in mine.items()}
        for first in range(0, len(mine["labels"]), 2)
    ]
    engine = build_engine(world, "gpt2", shape, weights, accumulation=split.micro_steps, precision=precision)
    result = train_on(engine, parts, {"model": RATE})
    weighed = engine.read_shards()
    engine.release()
    engine = build_engine(world, "gpt2", shape, weights, accumulation=split.micro_steps, precision=precision)
    loss = train_plainly(engine, parts)
    plain = engine.read_shards()
    engine.release()
    start = partitions(world, weights)
    same = all(torch.equal(weighed[name], shard) for name, shard in plain.items())
    moved = any(not torch.equal(plain[name], shard) for name, shard in start.items())
    return same, moved, result.loss, loss


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_batch_that_divides_is_not_touched_by_weights(world_size: int, precision: str):
    """Three micro-steps on two ranks: neither a power of two."""
    results = run_ranks(both_ways, world_size, precision)
    for same, moved, _, _ in results:
        assert same
        assert moved
    mean = sum(loss for *_, loss in results) / world_size
    assert [loss for *_, loss, _ in results] == [pytest.approx(mean, rel=1e-12)] * world_size
