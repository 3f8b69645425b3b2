"""The tensors in a Hugging Face directory, read a few rows at a time: safetensors or torch files, one or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ligo_dist.huggingface.hub import find_weight_files
from ligo_dist.runtime.errors import CheckpointError

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


class StoredTensor(Protocol):
    """A tensor in a file.

    Attributes:
        shape: its shape.
        dtype: its type; None for one that is no type of weights.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype | None: ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of its first dim, as they are stored."""
        ...


@dataclass(frozen=True)
class SafetensorsTensor:
    """A tensor in a safetensors file; only what is asked for is read."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None

    def rows(self, start: int, stop: int) -> Tensor:
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice(self.name)[start:stop]


@dataclass(frozen=True)
class _Mapped:
    """A tensor in a torch file, mapped into memory: the pages that are touched are read."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype | None:
        return self.tensor.dtype if self.tensor.dtype in _FLOATS.values() else None

    def rows(self, start: int, stop: int) -> Tensor:
        return self.tensor[start:stop]


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """All tensors of a directory by the names they have in its files.

    Raises:
        CheckpointError: no weights, or files that cannot be read.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in find_weight_files(directory):
        read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
        try:
            tensors.update(read(path))
        except (OSError, EOFError, RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
    return tensors


def _read_safetensors(path: Path) -> Mapping[str, StoredTensor]:
    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return {
            name: SafetensorsTensor(path, name, tuple(part.get_shape()), _FLOATS.get(part.get_dtype()))
            for name, part in slices.items()
        }


def _read_torch(path: Path) -> Mapping[str, StoredTensor]:
    if not is_zipfile(path):
        raise ValueError(
            "it is no torch file, or one from before torch 1.6, which could only be read whole;"
            " `from_pretrained` and `save_pretrained` of the model's class write it anew"
        )
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    tensors = content if isinstance(content, Mapping) else {}
    wrong = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if wrong or not tensors:
        raise ValueError(f"it should map names to tensors, and does not ({', '.join(map(str, wrong[:5]))})")
    return {name: _Mapped(tensor) for name, tensor in tensors.items()}
