"""Where documents end in blocks of the sequence length, and so what of a block belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ENDS_DIRECTORY = "documents"
"""In a directory of the cache: where the documents of a packed corpus end, once somebody has asked."""

_TOKENS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Boundaries:
    """The documents of a split cut into blocks. The part of a document that lies in a block counts as a document.

    Attributes:
        ends: [documents], where each ends in the split's tokens; rising, the last one is their number.
        sequence_length: tokens of a block.
    """

    ends: NDArray[np.int64]
    sequence_length: int

    def positions(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """[len(indices), sequence_length], the place of each token in its document, from 0 on."""
        length = self.sequence_length
        begins, first, last = self._inner(indices)
        positions = np.tile(np.arange(length), (len(begins), 1))
        for row, begin, one, other in zip(positions, begins, first, last, strict=True):
            starts = np.concatenate([[0], self.ends[one:other] - begin])
            row -= np.repeat(starts, np.diff(starts, append=length))
        return positions

    def counts(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """[len(indices)], documents in each block."""
        _, first, last = self._inner(indices)
        return 1 + last - first

    def attended(self) -> int:
        """Pairs of positions of one document in a block, each with each: their mean over all blocks, rounded.

        Each epoch takes every block once, so over an epoch the mean is what there is.
        """
        length = self.sequence_length
        blocks = int(self.ends[-1]) // length
        whole = blocks * length
        cuts = np.union1d(self.ends[self.ends < whole], np.arange(0, whole + 1, length))
        return round(int((np.diff(cuts) ** 2).sum()) / blocks)

    def _inner(
        self, indices: Sequence[int] | NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Where blocks begin, and the first and behind the last of the documents that end within each of them."""
        begins = np.asarray(indices, dtype=np.int64) * self.sequence_length
        first = np.searchsorted(self.ends, begins, side="right")
        return begins, first, np.searchsorted(self.ends, begins + self.sequence_length, side="left")


def write_ends(tokens: Path, dtype: str, eos_id: int, file: Path) -> None:
    """Finds the ends of documents in a file of tokens, where each has one `eos_id`, and writes them (int64)."""
    read = np.memmap(tokens, dtype=dtype, mode="r")
    with file.open("wb") as written:
        for start in range(0, len(read), _TOKENS_AT_ONCE):
            found = np.flatnonzero(read[start : start + _TOKENS_AT_ONCE] == eos_id)
            (found + start + 1).astype("<i8").tofile(written)


def ends_file(directory: Path, split: str) -> Path:
    """Where a directory of the cache has the ends of a split's documents, if it has them."""
    own = directory / f"{split}.ends.bin"
    return own if own.is_file() else directory / ENDS_DIRECTORY / own.name


def last_end(file: Path) -> int:
    """The last one in a file of ends; 0: there is none."""
    ends = np.fromfile(file, dtype="<i8", offset=max(0, file.stat().st_size - 8))
    return int(ends[-1]) if len(ends) else 0


def read_ends(directory: Path, split: str) -> NDArray[np.int64]:
    """Those ends, memory-mapped."""
    return np.memmap(ends_file(directory, split), dtype="<i8", mode="r")


def mean_attended(attended: Sequence[int | None], weights: Sequence[float]) -> int | None:
    """Of several sources by their weights; None if it is not known of one."""
    known = [count for count in attended if count is not None]
    if len(known) < len(attended):
        return None
    return round(sum(w * count for w, count in zip(weights, known, strict=True)) / sum(weights))
