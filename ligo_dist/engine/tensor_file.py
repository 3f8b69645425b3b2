"""Tensors to a safetensors file, so that one sees how far they have come: the library writes them in one call, which a
disk that hangs never ends, and into a file that only its owner can read."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

_CHUNK_BYTES = 1 << 24
_FLUSH_BYTES = 1 << 28
"""So much at a time is made to reach the disk: what the system holds back says nothing about the disk."""

_ALIGNMENT = 8
"""The format's own: the tensors begin at a multiple of so many bytes."""


class WrittenFile(NamedTuple):
    """A file that is on disk: its bytes and their crc32."""

    size: int
    checksum: int


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> WrittenFile:
    """Write fp32 tensors of the processor's memory and have them on disk; whoever the umask allows can read them.

    Args:
        path: of the file.
        tensors: by name.
        metadata: what the file says beside them.
        advance: called each time the disk has taken some more.

    Raises:
        OSError: a full disk, say.
    """
    size = checksum = unflushed = 0
    with path.open("wb") as file:
        for chunk in _chunks(tensors, metadata):
            file.write(chunk)
            checksum = zlib.crc32(chunk, checksum)
            size, unflushed = size + len(chunk), unflushed + len(chunk)
            if unflushed >= _FLUSH_BYTES:
                _flush(file)
                unflushed = 0
            advance()
        _flush(file)
        advance()
    return WrittenFile(size, checksum)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _chunks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> Iterator[memoryview]:
    """The file's bytes: the length of the header, the header, and the tensors one after the other."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float32, (name, tensor.dtype)
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        content = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data
        for start in range(0, len(content), _CHUNK_BYTES):
            yield content[start : start + _CHUNK_BYTES]
