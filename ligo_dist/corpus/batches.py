"""Batches for training and validation, each rank's part of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ligo_dist.corpus.blocks import PackedBlocks
from ligo_dist.corpus.order import sample_indices


@dataclass(frozen=True)
class Batches:
    """The training batches: step s holds the samples first_sample + s * batch_size and the batch_size - 1
    after it.

    Attributes:
        seed: of the order of samples.
        batch_size: sequences per optimizer step, over all ranks.
        first_sample: global number of step 0's first sample; a stage that goes on where another ended sets it
            to the number of samples seen before.
    """

    blocks: PackedBlocks
    seed: int
    batch_size: int
    first_sample: int = 0

    def micro_batches(
        self, step: int, rank: int, world_size: int, micro_batch_size: int
    ) -> Iterator[torch.Tensor]:
        """This rank's part of the step's batch, as [micro_batch_size, sequence_length] int64 tensors.

        Raises:
            ValueError: the batch does not divide into micro-batches over the ranks.
        """
        if self.batch_size % (world_size * micro_batch_size):
            raise ValueError(
                f"a batch of {self.batch_size} sequences does not divide into micro-batches of "
                f"{micro_batch_size} on {world_size} ranks"
            )
        per_rank = self.batch_size // world_size
        start = self.first_sample + step * self.batch_size + rank * per_rank
        indices = sample_indices(self.seed, start, per_rank, len(self.blocks))
        for first in range(0, per_rank, micro_batch_size):
            yield torch.from_numpy(self.blocks.read(indices[first : first + micro_batch_size]))


class FixedBatch(NamedTuple):
    """A micro-batch of the fixed validation set.

    Attributes:
        tokens: [micro_batch_size, sequence_length] int64; rows from `num_valid` on are padding that must not
            be counted.
        num_valid: rows that count; 0 in a micro-batch that only keeps this rank in step with the others.
    """

    tokens: torch.Tensor
    num_valid: int


def fixed_batches(
    blocks: PackedBlocks, num_sequences: int, rank: int, world_size: int, micro_batch_size: int
) -> Iterator[FixedBatch]:
    """This rank's part of the fixed set: `num_sequences` blocks (or all, if there are fewer), evenly spaced.

    The set is the same for every world size, and every rank gets the same number of equally shaped
    micro-batches, so that collectives match; a sum over the valid rows of all ranks counts each sequence
    once.
    """
    num_sequences = min(num_sequences, len(blocks))
    chosen = np.arange(num_sequences, dtype=np.int64) * len(blocks) // num_sequences
    mine = chosen[rank::world_size]
    longest = -(-num_sequences // world_size)
    for first in range(0, longest, micro_batch_size):
        valid = mine[first : first + micro_batch_size]
        padding = np.full(micro_batch_size - len(valid), chosen[0])
        yield FixedBatch(torch.from_numpy(blocks.read(np.concatenate([valid, padding]))), len(valid))
