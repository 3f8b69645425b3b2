"""Documents whose tokens lie in files, as blocks of the sequence length; nothing is copied before it is read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligo_dist.corpus.packing import number_of_blocks
from ligo_dist.corpus.token_files import Run


class MappedTokens:
    """Runs of tokens as one array that is never put together; files are mapped when they are first read."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._ends = np.cumsum([run.tokens for run in runs], dtype=np.int64)
        self._map = functools.cache(lambda path: np.memmap(path, dtype=np.uint8, mode="r"))

    def view(self, start: int, count: int) -> NDArray[Any]:
        """Tokens that lie in one run, as they are there; nothing is copied."""
        number = int(np.searchsorted(self._ends, start, side="right"))
        run = self._runs[number]
        size = np.dtype(run.dtype).itemsize
        first = run.offset + (start - int(self._ends[number]) + run.tokens) * size
        return self._map(run.path)[first : first + count * size].view(run.dtype)


class TokenBlocks:
    """The documents of a split, one after the other, as blocks; see `Blocks`.

    Args:
        tokens: of all documents.
        starts: [documents], where each document of the split begins in them.
        ends: [documents], where each ends in the split.
    """

    def __init__(
        self,
        split: str,
        tokens: MappedTokens,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        sequence_length: int,
    ) -> None:
        self.sequence_length = sequence_length
        self._tokens, self._starts, self._ends = tokens, starts, ends
        self._num_blocks = number_of_blocks(int(ends[-1]), sequence_length, split)

    def __len__(self) -> int:
        return self._num_blocks

    def read(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The blocks with these indices: [len(indices), sequence_length]."""
        indices = np.asarray(indices, dtype=np.int64)
        blocks = np.empty((len(indices), self.sequence_length), dtype=np.int64)
        for block, index in zip(blocks, indices.tolist(), strict=True):
            self._fill(block, index * self.sequence_length)
        return blocks

    def _fill(self, block: NDArray[np.int64], position: int) -> None:
        document = int(np.searchsorted(self._ends, position, side="right"))
        filled = 0
        while filled < len(block):
            begin = int(self._ends[document - 1]) if document else 0
            count = min(int(self._ends[document]) - position, len(block) - filled)
            place = int(self._starts[document]) + position - begin
            block[filled : filled + count] = self._tokens.view(place, count)
            filled, position, document = filled + count, position + count, document + 1
