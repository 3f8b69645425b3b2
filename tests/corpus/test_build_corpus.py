"""From the configuration to batches, on the default corpus."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ligo_dist.corpus import build_corpus
from ligo_dist.corpus.text_files import standard_library_files
from ligo_dist.errors import DataError


def _config(cache_dir: Path, **data: Any) -> Any:
    defaults = {
        "source": "stdlib",
        "files": [],
        "name": None,
        "subset": None,
        "split": "train",
        "text_column": "text",
        "document": "file",
        "include_tests": False,
        "streaming": False,
        "max_documents": 150,
        "validation_fraction": 0.1,
        "sequence_length": 64,
        "workers": 2,
        "cache_dir": str(cache_dir),
    }
    tokenizer = SimpleNamespace(file=None, vocab_size=600, model_type="bpe")
    return SimpleNamespace(data=SimpleNamespace(**(defaults | data)), tokenizer=tokenizer)


def test_the_standard_library_as_a_corpus(tmp_path: Path) -> None:
    corpus = build_corpus(_config(tmp_path), show_progress=False)
    statistics = corpus.statistics
    assert 130 < statistics["train"].documents + statistics["validation"].documents <= 150
    assert len(corpus.train) == statistics["train"].tokens // 64
    assert len(corpus.validation) == statistics["validation"].tokens // 64
    files = {Path(path).read_bytes() for path in standard_library_files(False)[:150]}
    samples = corpus.sample_documents(3)
    assert len(samples) == 3
    assert set(samples) <= files
    longer = build_corpus(_config(tmp_path, sequence_length=128), show_progress=False)
    assert longer.fingerprint == corpus.fingerprint
    assert len(longer.train) == statistics["train"].tokens // 128


def test_too_little_text_for_one_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data.sequence_length: 100000000 tokens, but the train split holds only"
    ):
        build_corpus(_config(tmp_path, sequence_length=100_000_000), show_progress=False)


def test_the_package_and_its_workers_do_not_import_torch() -> None:
    """The launcher imports it, and so does every tokenizing process."""
    code = (
        "import sys, ligo_dist.corpus.packing; sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
