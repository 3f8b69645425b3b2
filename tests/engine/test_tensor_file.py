"""A safetensors file as the library reads it."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ligo_dist.engine import write_tensors

CASES: dict[str, dict[str, Tensor]] = {
    "shapes": {"a": torch.randn(3, 5), "b": torch.randn(7), "scalar": torch.tensor(2.5)},
    "empty": {"a": torch.empty(0), "b": torch.randn(2), "c": torch.empty(0, 4)},
    "none": {},
    "strange names": {'модель/"quoted"': torch.randn(4), "a.b": torch.randn(1)},
    "a view": {"a": torch.randn(4, 6).t(), "b": torch.randn(10)[3:7]},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_library_reads_what_was_written(tmp_path: Path, case: str, metadata: dict[str, str] | None):
    path, tensors = tmp_path / "file.safetensors", CASES[case]
    written = write_tensors(path, tensors, metadata)
    content = path.read_bytes()
    assert written == (len(content), zlib.crc32(content))
    loaded = load_file(path)
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata
