"""Methods are pairs: any way to grow in depth goes with any way to grow in width."""

from __future__ import annotations

import pytest

from ligo_dist.growth.registry import DEPTHS, WIDTHS
from pairs import method_named, pair_of, source_weights, start
from small_models import small_shape


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "bert"])
@pytest.mark.parametrize("depth", DEPTHS)
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
