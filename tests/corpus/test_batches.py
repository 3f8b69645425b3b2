"""The same samples whatever the number of ranks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ligo_dist.corpus import Batches, CausalSamples, MicroBatch, PackedBlocks, fixed_batches
from ligo_dist.runtime.errors import DataError


@pytest.fixture
def blocks(tmp_path: Path) -> PackedBlocks:
    """29 blocks of 5 tokens and 3 tokens more; token t of the file is t."""
    np.arange(148, dtype="uint16").tofile(tmp_path / "train.bin")
    return PackedBlocks(tmp_path / "train.bin", "uint16", 5)


@pytest.fixture
def samples(blocks: PackedBlocks) -> CausalSamples:
    return CausalSamples(blocks)


def ids(micro_batches: Iterable[MicroBatch]) -> list[Tensor]:
    return [inputs["input_ids"] for inputs, _ in micro_batches]


def test_blocks_are_consecutive_tokens(blocks: PackedBlocks) -> None:
    assert len(blocks) == 29
    assert blocks.num_tokens == 148
    np.testing.assert_array_equal(blocks.read([28, 0]), [[140, 141, 142, 143, 144], [0, 1, 2, 3, 4]])
    assert blocks.read([0]).dtype == np.int64


def test_blocks_hold_large_ids(tmp_path: Path) -> None:
    np.array([70000, 1, 2, 3], dtype="uint32").tofile(tmp_path / "train.bin")
    assert PackedBlocks(tmp_path / "train.bin", "uint32", 2).read([0]).tolist() == [[70000, 1]]


@pytest.mark.parametrize("tokens", [0, 4])
def test_a_corpus_smaller_than_a_sequence_is_refused(tmp_path: Path, tokens: int) -> None:
    np.zeros(tokens, dtype="uint16").tofile(tmp_path / "validation.bin")
    with pytest.raises(
        DataError, match=rf"data.sequence_length: 5 tokens, but the validation split holds only {tokens}"
    ):
        PackedBlocks(tmp_path / "validation.bin", "uint16", 5)


@pytest.mark.parametrize("step", [0, 1, 2, 7])  # a batch of 12 crosses the end of the epoch of 29 at step 2
def test_ranks_share_the_batch(samples: CausalSamples, step: int) -> None:
    batches = Batches(samples, seed=4, batch_size=12)
    alone = torch.cat(ids(batches.micro_batches(step, 0, 1, 12)))
    assert alone.shape == (12, 5)
    assert alone.dtype == torch.int64
    for world_size in (1, 2, 3, 4):
        for micro_batch_size in (1, 12 // world_size):
            parts = [
                micro_batch
                for rank in range(world_size)
                for micro_batch in ids(batches.micro_batches(step, rank, world_size, micro_batch_size))
            ]
            assert all(len(part) == micro_batch_size for part in parts)
            assert torch.equal(torch.cat(parts), alone)


def test_steps_walk_through_the_epoch(samples: CausalSamples) -> None:
    batches = Batches(samples, seed=4, batch_size=1)
    firsts = [ids(batches.micro_batches(step, 0, 1, 1))[0][0, 0].item() for step in range(29)]
    assert sorted(firsts) == list(range(0, 145, 5))


def test_a_stage_goes_on_where_another_ended(samples: CausalSamples) -> None:
    before = Batches(samples, seed=4, batch_size=4)
    after = Batches(samples, seed=4, batch_size=2, first_sample=8)
    joined = torch.cat([ids(after.micro_batches(step, 0, 1, 2))[0] for step in (0, 1)])
    assert torch.equal(joined, ids(before.micro_batches(2, 0, 1, 4))[0])


@pytest.mark.parametrize("batch_size", [1, 7, 12, 13, 24])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 5, 40])
def test_each_sample_counts_once_whatever_divides(
    samples: CausalSamples, batch_size: int, micro_batch_size: int
) -> None:
    batches = Batches(samples, seed=4, batch_size=batch_size, first_sample=20)
    expected = torch.cat(ids(batches.micro_batches(1, 0, 1, batch_size)))
    for world_size in (1, 2, 3, 4, 5):
        ranks = [
            list(batches.micro_batches(1, rank, world_size, micro_batch_size)) for rank in range(world_size)
        ]
        assert len({len(parts) for parts in ranks}) == 1, "collectives must meet"
        parts = [part for parts in ranks for part in parts]
        (shape,) = {part.inputs["input_ids"].shape for part in parts}
        assert shape[0] <= micro_batch_size
        counted = [inputs["input_ids"][:num_valid] for inputs, num_valid in parts]
        assert torch.equal(torch.cat(counted), expected), "the same samples in the same order"
        for inputs, num_valid in parts:
            assert torch.equal(
                inputs["labels"][: num_valid or None], inputs["input_ids"][: num_valid or None]
            )
            assert not num_valid or (inputs["labels"][num_valid:] == -100).all()


@pytest.mark.parametrize("num_sequences", [1, 2, 7, 29, 1000])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_fixed_set_is_the_same_for_every_world_size(
    samples: CausalSamples, num_sequences: int, micro_batch_size: int
) -> None:
    expected = set(np.unique(np.arange(min(num_sequences, 29)) * 29 // min(num_sequences, 29)).tolist())
    for world_size in (1, 2, 3, 4):
        ranks = [
            list(fixed_batches(samples, num_sequences, rank, world_size, micro_batch_size))
            for rank in range(world_size)
        ]
        assert len({len(batches) for batches in ranks}) == 1
        assert all(
            batch.inputs["input_ids"].shape == (micro_batch_size, 5) for batches in ranks for batch in batches
        )
        rows = [
            row[0].item() // 5
            for batches in ranks
            for inputs, valid in batches
            for row in inputs["input_ids"][:valid]
        ]
        assert len(rows) == len(set(rows))
        assert set(rows) == expected
        for inputs, valid in (batch for batches in ranks for batch in batches):
            assert torch.equal(inputs["labels"][: valid or None], inputs["input_ids"][: valid or None])
            assert not valid or (inputs["labels"][valid:] == -100).all()
