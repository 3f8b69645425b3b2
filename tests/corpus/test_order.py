"""Every epoch is a permutation, and any part of the order can be computed alone; the split is a matter of content."""

from __future__ import annotations

import numpy as np
import pytest

from ligo_dist.corpus import is_validation, sample_indices


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 1000, 4097])
@pytest.mark.parametrize("epoch", [0, 1, 1000])
def test_every_epoch_visits_each_sample_once(size: int, epoch: int) -> None:
    indices = sample_indices(3, epoch * size, size, size)
    assert sorted(indices.tolist()) == list(range(size))


def test_any_part_equals_that_part_of_the_whole() -> None:
    whole = sample_indices(11, 0, 500, 97)  # five epochs and a bit
    for start, count in [(0, 1), (96, 1), (96, 2), (97, 97), (250, 250), (499, 1), (42, 0)]:
        np.testing.assert_array_equal(sample_indices(11, start, count, 97), whole[start : start + count])


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(sample_indices(seed, epoch * 50, 50, 50)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == len(orders)


def test_the_order_is_the_same_for_ever() -> None:
    """A change of these numbers would make resumed runs see samples twice."""
    assert sample_indices(0, 0, 8, 10).tolist() == [1, 3, 9, 4, 5, 2, 7, 6]


def test_positions_are_spread_evenly() -> None:
    """Over many epochs, each sample is equally often in each tenth of the epoch (chi-squared, 81 degrees)."""
    size, epochs = 100, 400
    orders = sample_indices(5, 0, size * epochs, size).reshape(epochs, size)
    counts = np.zeros((10, 10))
    for position in range(size):
        np.add.at(counts[position // 10], orders[:, position] // 10, 1)
    expected = size * epochs / 100
    assert ((counts - expected) ** 2 / expected).sum() < 140


def test_a_large_data_set_needs_no_memory() -> None:
    indices = sample_indices(1, 10**12 * 3 + 5, 4, 10**12)
    assert len(set(indices.tolist())) == 4
    assert indices.max() < 10**12
    assert indices.min() >= 0


def test_the_fraction_is_about_right_and_smaller_sets_are_contained() -> None:
    documents = [f"document {number}".encode() for number in range(4000)]
    chosen = {f: {d for d in documents if is_validation(d, f)} for f in (0.0, 0.02, 0.5, 1.0)}
    assert not chosen[0.0]
    assert 40 < len(chosen[0.02]) < 130
    assert 1900 < len(chosen[0.5]) < 2100
    assert len(chosen[1.0]) == 4000
    assert chosen[0.02] < chosen[0.5]


@pytest.mark.parametrize(
    ("document", "side"), [(b"a", False), (b"layer", True), (b"\xff\x00", False), (b"head", True)]
)
def test_the_split_is_the_same_for_ever(document: bytes, side: bool) -> None:
    assert is_validation(document, 0.3) is side
