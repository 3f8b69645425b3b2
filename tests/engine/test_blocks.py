"""Compiled blocks compute what the others do, stage after stage in one process."""

from __future__ import annotations

from functools import partial
from unittest import mock

import pytest
import torch

from engines import build_engine, causal, train_on
from ligo_dist.engine import World
from ranks import run_ranks
from small_models import library_model, model_shape, token_ids, weights_of

pytestmark = pytest.mark.slow

SIZES = {"gpt2": [(2, 24, 2, 2, 60), (3, 36, 3, 3, 77)], "llama": [(2, 24, 3, 1, 41), (3, 32, 4, 2, 41)]}


def losses(world: World, family: str, compiled: bool, stages: int = 2) -> list[float]:
    """Of a small and a grown model, each evaluated before and after two steps; the second one is checkpointed."""
    found = []
    for index, size in enumerate(SIZES[family][:stages]):
        shape = model_shape(size, family == "gpt2")
        weights = weights_of(library_model(family, shape))
        engine = build_engine(
            world, family, shape, weights, compiled=compiled, checkpointed=index == 1, accumulation=2
        )
        evaluated = [(causal(token_ids(3, seed=9)), 3)]
        found.append(engine.evaluate(evaluated).loss)
        for step in range(2):
            mine = token_ids(8, seed=step).chunk(world.size)[world.rank].chunk(2)
            result = train_on(engine, map(causal, mine), {"model": 1e-2})
            found += [result.loss, result.gradient_norm]
        found.append(engine.evaluate(evaluated).loss)
        engine.release()
    return found


def graphs(world: World, family: str) -> tuple[list[float], int, int]:
    """The losses, the graphs that were captured, and the places at which one broke. The graphs are run as they are:
    making machine code of them takes a minute."""
    counters = torch._dynamo.utils.counters
    counters.clear()
    with mock.patch("torch.compile", partial(torch.compile, backend="aot_eager")):
        found = losses(world, family, compiled=True)
    return found, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def test_compiled_blocks_compute_the_same():
    expected = run_ranks(losses, 1, "gpt2", False, 1)[0]
    assert run_ranks(losses, 1, "gpt2", True, 1)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", SIZES)
def test_blocks_are_graphs_before_and_after_growing(family: str):
    expected = run_ranks(losses, 2, family, False)[0]
    for found, compiled, broken in run_ranks(graphs, 2, family):
        assert found == pytest.approx(expected, rel=1e-4)
        assert broken == 0
        assert 0 < compiled < 8, "blocks that are alike share a graph"
