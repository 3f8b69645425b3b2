"""Where documents end in blocks, against counting token by token."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ligo_dist.corpus import (
    Batches,
    Boundaries,
    CausalSamples,
    MixedSamples,
    PackedBlocks,
    UnlabelledSamples,
    fixed_batches,
    mean_attended,
)

LENGTHS = [3, 1, 1, 9, 2, 6, 11, 1, 16, 4, 2, 8, 1]
"""A document that is a block, one that runs over three, one that ends where a block does, and 1 token behind all."""


def documents_of_blocks(length: int) -> list[list[int]]:
    """Lengths of the parts of documents in each block, by numbering tokens."""
    numbers = [number for number, count in enumerate(LENGTHS) for _ in range(count)]
    blocks = [numbers[start : start + length] for start in range(0, len(numbers) - length + 1, length)]
    return [[len(list(part)) for _, part in groupby(block)] for block in blocks]


@pytest.mark.parametrize("length", [1, 4, 5, 8, 65])
def test_positions_and_counts(length: int) -> None:
    boundaries = Boundaries(np.cumsum(LENGTHS), length)
    parts = documents_of_blocks(length)
    order = [*range(len(parts))][::-1]
    expected = [[place for count in parts[block] for place in range(count)] for block in order]
    assert boundaries.positions(order).tolist() == expected
    assert boundaries.counts(order).tolist() == [len(parts[block]) for block in order]
    pairs = sum(count**2 for block in parts for count in block)
    assert boundaries.attended() == round(pairs / len(parts))


def separated(tmp_path: Path, kind: Any = CausalSamples, length: int = 8) -> Any:
    np.arange(100, 100 + sum(LENGTHS), dtype="uint16").tofile(tmp_path / "train.bin")
    blocks = PackedBlocks(tmp_path / "train.bin", "uint16", length)
    return kind(blocks, boundaries=Boundaries(np.cumsum(LENGTHS), length), first_position=2)


def test_the_first_token_of_a_document_is_not_predicted(tmp_path: Path) -> None:
    batch = separated(tmp_path).read([0, 1], [0, 1])
    assert batch["position_ids"].tolist() == [[2, 3, 4, 2, 2, 2, 3, 4], [2, 3, 4, 5, 6, 7, 2, 3]]
    tokens = batch["input_ids"]
    expected = torch.where(batch["position_ids"] == 2, -100, tokens)
    assert torch.equal(batch["labels"], expected)
    assert set(separated(tmp_path, UnlabelledSamples).read([0], [0])) == {"input_ids", "position_ids"}


def test_of_a_mixture_each_sample_counts_as_in_its_source(tmp_path: Path) -> None:
    apart = separated(tmp_path)
    whole = CausalSamples(apart.blocks)
    mixed = MixedSamples([whole, apart])
    order = [len(whole) + 1, 0, len(whole)]
    assert mixed.weights(order).tolist() == [apart.weights([1])[0], 1, apart.weights([0])[0]]


def test_of_a_mixture_pairs_are_the_mean_by_weights() -> None:
    assert mean_attended([16, 64], [3.0, 1.0]) == 28
    assert mean_attended([16, None], [3.0, 1.0]) is None


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_what_ranks_count_are_the_predictions_of_the_batch(tmp_path: Path, world_size: int) -> None:
    batches = Batches(separated(tmp_path), seed=1, batch_size=7, first_sample=3)
    parts = [part for rank in range(world_size) for part in batches.micro_batches(2, rank, world_size, 2)]
    for part in parts:
        predicted = int((part.inputs["labels"][:, 1:] != -100).sum())
        assert part.weight in (predicted, 0)
        assert predicted, "a loss that is a number"
    assert sum(part.weight for part in parts) == batches.weight(2)
    alone = list(batches.micro_batches(2, 0, 1, 7))
    assert batches.weight(2) == int((alone[0].inputs["labels"][:, 1:] != -100).sum()) == alone[0].weight
    fixed = [
        part for rank in range(world_size) for part in fixed_batches(batches.samples, 5, rank, world_size, 2)
    ]
    whole = next(iter(fixed_batches(batches.samples, 5, 0, 1, 5)))
    assert sum(part.weight for part in fixed) == whole.weight


def test_documents_of_one_token_count_nothing_and_leave_a_loss(tmp_path: Path) -> None:
    np.arange(4, dtype="uint16").tofile(tmp_path / "train.bin")
    blocks = PackedBlocks(tmp_path / "train.bin", "uint16", 2)
    samples = CausalSamples(blocks, boundaries=Boundaries(np.arange(1, 5), 2))
    (part,) = Batches(samples, seed=0, batch_size=2).micro_batches(0, 0, 1, 2)
    assert part.weight == 0
    assert (part.inputs["labels"] != -100).all()
