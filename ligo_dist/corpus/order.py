"""Which documents are for validation, and the order of samples: pure functions, the same on any number of ranks.

Epoch e visits the samples in the order of a pseudo-random permutation keyed by (seed, e): a Feistel network
over the next power of four, walked along its cycle until the value falls below the number of samples (Black
and Rogaway 2002, "Ciphers with arbitrary finite domains"). It takes no memory, and any position is computed
without those before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ligo_dist.runtime.errors import DataError

SPLITS = ("train", "validation")


def is_validation(document: bytes, fraction: float) -> bool:
    """Whether a document belongs to the validation split, which gets about `fraction` of all documents.

    A hash of the content decides, so the answer depends on no order and no number of processes, and two
    copies of a document never end on different sides.
    """
    digest = hashlib.blake2b(document, digest_size=8, person=b"split").digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def refuse_empty_split(counts: Sequence[int], fraction: float, what: str, remedy: str) -> None:
    """See that neither split is empty.

    Args:
        counts: what is in each of `SPLITS`.
        fraction: the part that is for validation.
        what: is counted: `documents`.
        remedy: what to choose, or to do.

    Raises:
        DataError: one is.
    """
    if all(counts):
        return
    empty = SPLITS[list(counts).index(0)]
    raise DataError(
        f"data.validation_fraction: {fraction} of {sum(counts):,} {what} leaves the {empty} split empty; choose another"
        f" fraction, {remedy}"
    )


_ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of splitmix64
_OF_SOURCES = 0xD1342543DE82EF95  # odd, and no multiple of the one above


def sample_indices(seed: int, start: int, count: int, num_samples: int) -> NDArray[np.int64]:
    """The samples with the global numbers start .. start + count - 1.

    Args:
        seed: each seed has its own order in every epoch.
        start: global number of the first sample; number g belongs to epoch g // num_samples.
        num_samples: samples per epoch.

    Returns:
        [count] indices below `num_samples`; every epoch holds each of them exactly once.
    """
    numbers = np.arange(start, start + count, dtype=np.int64)
    epochs, positions = np.divmod(numbers, np.int64(num_samples))
    seed_key = _mix(np.full(1, (seed + _GOLDEN) % 2**64, dtype=np.uint64))
    keys = _mix(seed_key + epochs.astype(np.uint64) * np.uint64(_GOLDEN))
    return _permute(positions.astype(np.uint64), keys, num_samples).astype(np.int64)


def mixed_indices(
    seed: int, sources: NDArray[np.int64], numbers: NDArray[np.int64], sizes: Sequence[int]
) -> NDArray[np.int64]:
    """The samples of a mixture, each source gone through in epochs of its own, in an order of its own.

    Args:
        seed: each seed has its own order; the first source's is that of `sample_indices`.
        sources: of which source each sample is.
        numbers: its number among all that are taken of this source; consecutive for each source.
        sizes: samples of each source.

    Returns:
        [len(sources)] indices; those of a source follow those of the sources before it.
    """
    indices = np.empty(len(sources), dtype=np.int64)
    offset = 0
    for source, size in enumerate(sizes):
        rows = (sources == source).nonzero()[0]
        if len(rows):
            first, own_seed = int(numbers[rows[0]]), (seed + source * _OF_SOURCES) % 2**64
            indices[rows] = offset + sample_indices(own_seed, first, len(rows), size)
        offset += size
    return indices


def _permute(values: NDArray[np.uint64], keys: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    permuted = _feistel(values, keys, half_bits)
    while (outside := permuted >= np.uint64(size)).any():
        permuted[outside] = _feistel(permuted[outside], keys[outside], half_bits)
    return permuted


def _feistel(values: NDArray[np.uint64], keys: NDArray[np.uint64], half_bits: int) -> NDArray[np.uint64]:
    mask, shift = np.uint64(2**half_bits - 1), np.uint64(half_bits)
    left, right = values >> shift, values & mask
    for round_number in range(1, _ROUNDS + 1):
        round_keys = keys + np.uint64(round_number * _GOLDEN % 2**64)
        left, right = right, left ^ (_mix(right ^ round_keys) & mask)
    return (left << shift) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
    generators")."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
