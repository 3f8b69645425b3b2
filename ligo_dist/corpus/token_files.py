"""Files that hold token ids already: where in them the tokens lie, and how long the documents are.

The formats, as their own writers make them: Megatron-LM's `megatron/core/datasets/indexed_dataset.py`, datatrove's
`pipeline/tokens/tokenizer.py`, and Parquet and Arrow with a column of lists of whole numbers. Nothing is read but the
indices, unless what a file holds is compressed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray

from ligo_dist.corpus.tables import missing_column, open_table
from ligo_dist.corpus.text_files import index_of
from ligo_dist.corpus.unpacking import read_faults
from ligo_dist.runtime.errors import DataError

_MEGATRON, _MEGATRON_OLD = b"MMIDIDX\0\0", b"TNTIDX\0\0"
_MEGATRON_VERSION = 1
_MEGATRON_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""Its codes of whole numbers; 6 and 7 are floating point."""

_LISTS = (pyarrow.ListType, pyarrow.LargeListType)


class Run(NamedTuple):
    """Tokens that lie one behind the other in a file.

    Attributes:
        path: of the file.
        offset: of the first token, in bytes.
        dtype: of a token, as numpy writes it.
        tokens: how many there are.
    """

    path: str
    offset: int
    dtype: str
    tokens: int


class Found(NamedTuple):
    """Documents that follow each other: their tokens, where they lie or (of compressed files) themselves, and how many
    each of them has, [documents] int64, which add up to the tokens."""

    tokens: Run | NDArray[Any]
    lengths: NDArray[np.int64]


def find_tokens(kind: str, path: str, column: str | None) -> Iterator[Found]:
    """All documents of a file, in their order.

    Args:
        kind: megatron | datatrove | parquet | arrow.
        column: of a table.

    Raises:
        DataError: names the file, and what is wrong with it.
    """
    with read_faults("data.files", path, kind):
        if kind == "megatron":
            yield _megatron(path)
        elif kind == "datatrove":
            yield _datatrove(path)
        else:
            assert column is not None, "checked with the configuration"
            yield from _table(kind, path, column)


def _megatron(path: str) -> Found:
    """`.bin`: tokens. `.idx`: a mark, version (uint64), dtype (uint8), numbers of sequences and of documents' bounds
    (uint64), lengths of sequences (int32), where they begin in bytes (int64), and the bounds of documents: numbers of
    sequences (int64), 0 first. A mode for each sequence may follow (int8)."""
    index = index_of("megatron", path)
    data = np.memmap(index, dtype=np.uint8, mode="r") if os.path.getsize(index) else np.empty(0, np.uint8)
    head = data[:34].tobytes()
    if head.startswith(_MEGATRON_OLD):
        raise ValueError(
            f"{index} is of the old implementations `cached` and `lazy`; write it anew with `mmap` (`--dataset-impl "
            "mmap`), which all versions since 2020 know"
        )
    if len(head) < 34 or not head.startswith(_MEGATRON):
        raise ValueError(f"{index} is no index of Megatron-LM")
    version, code, num_sequences, num_bounds = struct.unpack("<QBQQ", head[9:])
    if version != _MEGATRON_VERSION:
        raise ValueError(f"{index} is of version {version}; {_MEGATRON_VERSION} is known")
    if code not in _MEGATRON_DTYPES:
        raise ValueError(f"{index} says the dtype {code}, which is none of token ids: {[*_MEGATRON_DTYPES]}")
    if len(data) < 34 + 12 * num_sequences + 8 * num_bounds:
        raise ValueError(
            f"{index} is cut off: {num_sequences:,} sequences do not fit into {len(data):,} bytes"
        )
    lengths = data[34:][: 4 * num_sequences].view("<i4").astype(np.int64)
    begins = data[34 + 4 * num_sequences :][: 8 * num_sequences].view("<i8")
    bounds = data[34 + 12 * num_sequences :][: 8 * num_bounds].view("<i8").astype(np.int64)
    dtype = _MEGATRON_DTYPES[code]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if (lengths < 0).any() or (begins != ends[:-1] * np.dtype(dtype).itemsize).any():
        raise ValueError(f"{index}: its sequences do not follow each other in the file")
    if num_bounds == 0 or bounds[0] != 0 or bounds[-1] != num_sequences or (np.diff(bounds) < 0).any():
        raise ValueError(f"{index}: its documents are not those of its {num_sequences:,} sequences")
    return Found(_whole_file(path, dtype, int(ends[-1])), np.diff(ends[bounds]))


def _datatrove(path: str) -> Found:
    """`.ds`: tokens (uint16 or uint32). `.ds.index`: where documents end, in tokens (uint64). `.ds.metadata`, which may
    be missing: `TOKENIZER|BYTES`, the number of tokens, the same for people, a line each. `.ds.loss`: a loss mask."""
    index = index_of("datatrove", path)
    if os.path.exists(mask := f"{path}.loss"):
        raise ValueError(
            f"{mask} says which tokens are not to be predicted, which is not followed; remove it, or tokenize without"
        )
    ends = np.fromfile(index, dtype="<u8").astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    if (lengths < 0).any():
        raise ValueError(f"{index}: a document ends before it begins")
    size, count = os.path.getsize(path), int(ends[-1]) if len(ends) else 0
    width = size // count if count else 2
    metadata = Path(f"{path}.metadata")
    if metadata.is_file():
        first_line, *_ = metadata.read_text(encoding="utf-8").split("\n")
        said = first_line.rpartition("|")[2]
        width = int(said) if said.isdecimal() else width
    if width not in (2, 4):
        raise ValueError(f"{size:,} bytes are not the {count:,} tokens of {index}: of 2 or of 4 bytes each")
    return Found(_whole_file(path, f"<u{width}", count), lengths)


def _whole_file(path: str, dtype: str, count: int) -> Run:
    size = np.dtype(dtype).itemsize * count
    if os.path.getsize(path) != size:
        raise ValueError(
            f"has {os.path.getsize(path):,} bytes, and its index says {count:,} tokens, {size:,}"
        )
    return Run(path, 0, dtype, count)


def _table(kind: str, path: str, column: str) -> Iterator[Found]:
    # Of Arrow all columns: what is left out of a mapped file costs a copy of the rest.
    with open_table(kind, path, [column] if kind == "parquet" else []) as (file, schema, batches):
        if column not in schema.names:
            raise missing_column("token_column", column, repr(path), schema.names)
        position = file.tell()  # from where a stream is read on
        file.seek(0)
        whole = file.read_buffer()
        file.seek(position)
        for batch in batches:
            values, lengths = _lists(batch.column(column), column, path)
            yield Found(_mapped(values, path, whole) or values.to_numpy(zero_copy_only=False), lengths)


def _lists(array: Any, column: str, path: str) -> tuple[Any, NDArray[np.int64]]:
    """The numbers of a column of lists, and how many each list has; null is a list of none."""
    kind = array.type
    is_fixed = isinstance(kind, pyarrow.FixedSizeListType)
    if not (is_fixed or isinstance(kind, _LISTS)) or not pyarrow.types.is_integer(kind.value_type):
        raise DataError(
            f"data.token_column: {column!r} holds {kind}, not lists of token ids (list<int32>), in {path!r}"
        )
    values = array.flatten()
    if values.null_count:
        raise DataError(f"data.token_column: {column!r} holds null in the place of a token id, in {path!r}")
    lengths = pyarrow.compute.list_value_length(array).fill_null(0)
    return values, lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _mapped(values: Any, path: str, whole: Any) -> Run | None:
    """Where in a memory-mapped file an array of numbers lies; None: it was unpacked, or put together."""
    dtype, buffer = np.dtype(values.type.to_pandas_dtype()), values.buffers()[1]
    if buffer is None or not len(values):
        return None
    begin = buffer.address + values.offset * dtype.itemsize - whole.address
    if not 0 <= begin <= whole.size - len(values) * dtype.itemsize:
        return None
    return Run(path, begin, dtype.newbyteorder("<").str, len(values))
