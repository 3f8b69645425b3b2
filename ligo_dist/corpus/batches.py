"""Batches for training and validation, each rank's part of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ligo_dist.corpus.order import mixed_indices, sample_indices
from ligo_dist.corpus.samples import NOT_PREDICTED, MixedSamples, Samples
from ligo_dist.schedule import BatchSplit, Mixing


class MicroBatch(NamedTuple):
    """What one rank takes in one forward pass.

    Attributes:
        inputs: the model's inputs by name, as many rows in every micro-batch; those behind the samples are padding,
            their labels -100. Where nothing counts there are labels all the same: without them there is no loss at all.
        weight: what its mean loss counts, the samples' `weights` added up: rows, or where these differ in that,
            predictions; 0 in a micro-batch that only keeps this rank in step with the others.
    """

    inputs: dict[str, Tensor]
    weight: int


@dataclass(frozen=True)
class Batches:
    """The training batches: step s holds the samples first_sample + s * batch_size and the batch_size - 1
    after it.

    Attributes:
        seed: of the order of samples.
        batch_size: samples per optimizer step, over all ranks.
        first_sample: global number of step 0's first sample; a stage that goes on where another ended sets it
            to the number of samples seen before.
        mixing: from which source each sample from `first_sample` on is, where the samples are of several.
    """

    samples: Samples
    seed: int
    batch_size: int
    first_sample: int = 0
    mixing: Mixing | None = None

    def micro_batches(
        self, step: int, rank: int, world_size: int, micro_batch_size: int
    ) -> Iterator[MicroBatch]:
        """This rank's part of the step's batch, split as `BatchSplit` says: each sample counts once on one rank."""
        split = BatchSplit(self.batch_size, micro_batch_size, world_size)
        first = self.first_sample + step * self.batch_size
        part = split.part(rank)
        draws = range(first + part.start, first + part.stop)
        indices = self._indices(draws.start, len(draws))
        padding = int(self._indices(first, 1)[0]), first
        for row in range(0, split.micro_steps * split.rows, split.rows):
            rows = slice(row, row + split.rows)
            yield _micro_batch(self.samples, indices[rows], draws[rows], split.rows, padding)

    def finish(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a model takes of a micro-batch's inputs, once these are where the model is."""
        return self.samples.finish(inputs)

    def weight(self, step: int) -> int:
        """What the step's batch counts, all ranks together: its samples' `weights` added up."""
        first = self.first_sample + step * self.batch_size
        return int(self.samples.weights(self._indices(first, self.batch_size)).sum())

    def _indices(self, start: int, count: int) -> NDArray[np.int64]:
        if self.mixing is not None:
            assert isinstance(self.samples, MixedSamples)
            sources, numbers = self.mixing.draw(start - self.first_sample, count)
            return mixed_indices(self.seed, sources, numbers, self.samples.sizes)
        return sample_indices(self.seed, start, count, len(self.samples))


def fixed_batches(
    samples: Samples, num_samples: int, rank: int, world_size: int, micro_batch_size: int
) -> Iterator[MicroBatch]:
    """This rank's part of the fixed set: `num_samples` samples (or all, if there are fewer), evenly spaced.

    The set is the same for every world size, and every rank gets the same number of equally shaped
    micro-batches, so that collectives match; a sum over the rows of all ranks that are no padding counts each sample
    once. What is random about a sample is drawn with its index, so it is always the same.
    """
    num_samples = min(num_samples, len(samples))
    chosen = np.arange(num_samples, dtype=np.int64) * len(samples) // num_samples
    mine = chosen[rank::world_size]
    longest = -(-num_samples // world_size)
    for first in range(0, longest, micro_batch_size):
        valid = mine[first : first + micro_batch_size]
        yield _micro_batch(samples, valid, valid.tolist(), micro_batch_size, (int(chosen[0]), int(chosen[0])))


def _micro_batch(
    samples: Samples, indices: NDArray[np.int64], draws: Sequence[int], rows: int, padding: tuple[int, int]
) -> MicroBatch:
    """These samples, filled up to `rows` rows with the sample `padding`, an (index, draw)."""
    missing = rows - len(indices)
    inputs = samples.read([*indices, *[padding[0]] * missing], [*draws, *[padding[1]] * missing])
    weight = int(samples.weights(indices).sum())
    if samples.labelled and weight:
        inputs["labels"][len(indices) :] = NOT_PREDICTED
    elif samples.labelled and bool((inputs["labels"] == NOT_PREDICTED).all()):  # documents of one token each
        inputs["labels"] = inputs["input_ids"].clone()
    return MicroBatch(inputs, weight)
