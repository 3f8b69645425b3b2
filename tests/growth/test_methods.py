"""Methods are pairs: any way to grow in depth goes with any way to grow in width."""

from __future__ import annotations

import pytest
import torch

from ligo_dist.engine import World, shard_of
from ligo_dist.growth import DAMPED, DEPTHS, WIDTHS, initial_operator, initial_operator_shards, transfer
from pairs import method_named, pair_of, source_weights, start
from ranks import run_ranks
from small_models import small_shape


@pytest.mark.parametrize(
    ("family", "depth"),
    # Behind norms on the residual stream damped copies are refused: tests/growth/test_claims.py.
    [(f, depth) for f in ("gpt2", "qwen3", "bert") for depth in DEPTHS if f != "bert" or depth not in DAMPED],
)
def test_any_depth_goes_with_any_width(family: str, depth: str):
    source, target = (small_shape(family, *size, head_size=4, ffn=5 * size[1]) for size in ((2, 3), (5, 6)))
    for width in WIDTHS:
        method = method_named("lossless", depth=depth, width=width)
        growth = pair_of(family, source, target, method)
        grown = growth.grow_dense(source_weights(growth), start(growth, method))
        assert {name: tuple(weight.shape) for name, weight in grown.items()} == {
            spec.name: spec.shape for spec in growth.target_parameters
        }
        for name, weight in grown.items():
            assert weight.isfinite().all(), (width, name)


def test_each_growth_of_a_run_draws_by_its_own_stream_and_once(monkeypatch: pytest.MonkeyPatch):
    """Correlated starts would repeat one stage's new units in the next; what all blocks ask for is made once."""
    growth = pair_of("gpt2", *(small_shape("gpt2", layers, layers) for layers in (3, 6)), "lossless-dense")
    method, world = method_named("lossless-dense"), World(0, 1, torch.device("cpu"))
    made: list[str] = []
    make = transfer.initial_value
    monkeypatch.setattr(transfer, "initial_value", lambda *of: (made.append(of[2].name), make(*of))[1])
    starts = [initial_operator(growth, method, f"0/{stage}", world) for stage in ("medium", "large")]
    for name in ("hidden.out", "layers.1.ffn.out"):
        first, second = (start(name)[growth.source.width :].flatten() for start in starts)
        assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.7
        assert torch.equal(starts[0](name)[growth.source.width :].flatten(), first)
    assert made.count("hidden.out") == 2


def started(world: World) -> tuple[list[str], bool]:
    """What a rank has made of an operator's start, and whether the partitions are those of the whole start."""
    growth = pair_of("gpt2", *(small_shape("gpt2", layers, layers) for layers in (3, 5)), "lossless-dense")
    method, made, make = method_named("lossless-dense"), [], transfer.initial_value
    transfer.initial_value = lambda *of: (made.append(of[2].name), make(*of))[1]
    try:
        shards = dict(initial_operator_shards(growth, method, "0/large", world))
    finally:
        transfer.initial_value = make
    whole = initial_operator(growth, method, "0/large", world)
    equal = (
        torch.equal(shards[parameter.name], shard_of(whole(parameter.name), world.rank, world.size))
        for parameter in growth.operator_parameters
    )
    return made, all(equal)


@pytest.mark.parametrize("world_size", [1, 3])
def test_each_matrix_of_a_start_is_made_by_one_rank(world_size: int):
    made, are_right = zip(*run_ranks(started, world_size), strict=True)
    assert all(are_right)
    names = [name for of_rank in made for name in of_rank]
    assert len(names) == len(set(names))
    assert max(map(len, made)) - min(map(len, made)) <= 1
