"""Batches for training and validation, each rank's part of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ligo_dist.corpus.order import sample_indices
from ligo_dist.corpus.samples import NOT_PREDICTED, Samples


@dataclass(frozen=True)
class Batches:
    """The training batches: step s holds the samples first_sample + s * batch_size and the batch_size - 1
    after it.

    Attributes:
        seed: of the order of samples.
        batch_size: samples per optimizer step, over all ranks.
        first_sample: global number of step 0's first sample; a stage that goes on where another ended sets it
            to the number of samples seen before.
    """

    samples: Samples
    seed: int
    batch_size: int
    first_sample: int = 0

    def micro_batches(
        self, step: int, rank: int, world_size: int, micro_batch_size: int
    ) -> Iterator[dict[str, Tensor]]:
        """This rank's part of the step's batch: the model's inputs by name, micro_batch_size rows each.

        Raises:
            ValueError: the batch does not divide into micro-batches over the ranks.
        """
        if self.batch_size % (world_size * micro_batch_size):
            raise ValueError(
                f"a batch of {self.batch_size} samples does not divide into micro-batches of "
                f"{micro_batch_size} on {world_size} ranks"
            )
        per_rank = self.batch_size // world_size
        start = self.first_sample + step * self.batch_size + rank * per_rank
        indices = sample_indices(self.seed, start, per_rank, len(self.samples))
        for first in range(0, per_rank, micro_batch_size):
            draws = range(start + first, start + first + micro_batch_size)
            yield self.samples.read(indices[first : first + micro_batch_size], draws)


class FixedBatch(NamedTuple):
    """A micro-batch of the fixed validation set.

    Attributes:
        inputs: the model's inputs by name, micro_batch_size rows each; rows from `num_valid` on are padding that
            must not be counted, their labels -100 (unless all are padding: then there would be no loss at all).
        num_valid: rows that count; 0 in a micro-batch that only keeps this rank in step with the others.
    """

    inputs: dict[str, Tensor]
    num_valid: int


def fixed_batches(
    samples: Samples, num_samples: int, rank: int, world_size: int, micro_batch_size: int
) -> Iterator[FixedBatch]:
    """This rank's part of the fixed set: `num_samples` samples (or all, if there are fewer), evenly spaced.

    The set is the same for every world size, and every rank gets the same number of equally shaped
    micro-batches, so that collectives match; a sum over the valid rows of all ranks counts each sample
    once. What is random about a sample is drawn with its index, so it is always the same.
    """
    num_samples = min(num_samples, len(samples))
    chosen = np.arange(num_samples, dtype=np.int64) * len(samples) // num_samples
    mine = chosen[rank::world_size]
    longest = -(-num_samples // world_size)
    for first in range(0, longest, micro_batch_size):
        valid = mine[first : first + micro_batch_size]
        padding = np.full(micro_batch_size - len(valid), chosen[0])
        indices = np.concatenate([valid, padding])
        inputs = samples.read(indices, indices.tolist())
        if "labels" in inputs and len(valid):
            inputs["labels"][len(valid) :] = NOT_PREDICTED
        yield FixedBatch(inputs, len(valid))
