"""The sizes by which ZeRO-3 gathers and reduces follow the model; a user's keys win."""

from __future__ import annotations

from typing import Any

import pytest

from ligo_dist.runtime.zero3 import Zero3

SMALL = [(64, 256), (64,), (256, 64)]
LARGE = [(4096, 14336), (4096, 4096), (4096,), (14336,)]


@pytest.mark.parametrize(
    ("block", "keys", "sizes"),
    [
        ([], {}, (5_000_000, 5_000_000, 10_000)),
        (SMALL, {}, (5_000_000, 5_000_000, 10_000)),
        (LARGE, {}, (4096 * 14336, 4096 * (14336 + 4096 + 1) + 14336, 14336)),
        (LARGE, {"reduce_bucket_size": 7}, (7, 4096 * (14336 + 4096 + 1) + 14336, 14336)),
        (LARGE, {"stage3_param_persistence_threshold": 0}, (4096 * 14336, 4096 * 18433 + 14336, 0)),
    ],
)
def test_sizes_follow_a_block(block: list[tuple[int, ...]], keys: dict[str, Any], sizes: tuple[int, ...]):
    found = Zero3.from_keys({"zero_optimization": keys}, block)
    assert (found.reduce_bucket, found.prefetch_bucket, found.persistence_threshold) == sizes
