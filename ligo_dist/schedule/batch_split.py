"""How a batch of any size is split over any number of ranks. Nothing here knows of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchSplit:
    """One batch over ranks and micro-steps.

    Ranks have consecutive parts of the batch that differ by at most one sample. All of them take the same number of
    micro-steps, because their collectives must meet, with micro-batches of equally many rows; rows that a rank has no
    sample for are padding. Where the batch divides there is none.

    Attributes:
        batch_size: samples per optimizer step, over all ranks.
        micro_batch_size: the most samples that a rank takes in one forward pass.
        world_size: number of ranks.
    """

    batch_size: int
    micro_batch_size: int
    world_size: int

    @property
    def micro_steps(self) -> int:
        """Forward passes of each rank: as few as `micro_batch_size` allows."""
        return -(-self.batch_size // (self.micro_batch_size * self.world_size))

    @property
    def rows(self) -> int:
        """Rows of each micro-batch: as few as do in these micro-steps, never more than `micro_batch_size`."""
        return -(-self.batch_size // (self.micro_steps * self.world_size))

    @property
    def padding(self) -> float:
        """Part of all rows that are padding."""
        return 1 - self.batch_size / (self.rows * self.micro_steps * self.world_size)

    def part(self, rank: int) -> range:
        """Which samples of the batch a rank has."""
        share, left = divmod(self.batch_size, self.world_size)
        first = rank * share + min(rank, left)
        return range(first, first + share + (rank < left))
