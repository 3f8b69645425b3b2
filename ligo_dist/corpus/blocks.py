"""Packed tokens as blocks of the sequence length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligo_dist.errors import DataError


class PackedBlocks:
    """A token file, memory-mapped, as blocks: block i holds tokens [i * sequence_length, (i + 1) *
    sequence_length).

    The tokens behind the last whole block are not used. Documents follow each other, each ended by EOS.

    Raises:
        DataError: the file holds less than one block.
    """

    def __init__(self, path: Path, dtype: str, sequence_length: int) -> None:
        self.path = Path(path)
        self.sequence_length = sequence_length
        self.num_tokens = self.path.stat().st_size // np.dtype(dtype).itemsize
        num_blocks = self.num_tokens // sequence_length
        if num_blocks == 0:
            raise DataError(
                f"data.sequence_length: {sequence_length} tokens, but the {self.path.stem} split holds only "
                f"{self.num_tokens}; give it more documents (data.files, data.validation_fraction) or use "
                "shorter sequences"
            )
        tokens = np.memmap(self.path, dtype=dtype, mode="r")
        self._blocks = tokens[: num_blocks * sequence_length].reshape(num_blocks, sequence_length)

    def __len__(self) -> int:
        return len(self._blocks)

    def read(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The blocks with these indices: [len(indices), sequence_length]."""
        return self._blocks[np.asarray(indices, dtype=np.int64)].astype(np.int64)
