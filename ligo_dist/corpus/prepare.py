"""From a source to a packed corpus in the cache: the tokenizer, both splits' tokens, and an index of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import sentencepiece

from ligo_dist.corpus.cache import cache_key, make_once
from ligo_dist.corpus.packing import SPLITS, VALIDATION_DOCUMENTS, SplitStatistics, pack, token_dtype
from ligo_dist.corpus.progress_bar import progress_bar
from ligo_dist.corpus.sources import Documents, Source
from ligo_dist.corpus.splitting import is_validation
from ligo_dist.corpus.tokenizer import Tokenizer
from ligo_dist.corpus.tokenizer_training import SAMPLE_BYTES, train_tokenizer
from ligo_dist.errors import DataError

_FORMAT = 2
"""Raise it with every change of the code that changes what is made from the same inputs."""

_CHECKSUM_BYTES = 4 << 30
"""Files up to this size are checked by their checksum, larger ones by their size alone."""


@dataclass(frozen=True)
class PackedCorpus:
    """A directory of the cache: `tokenizer.model`, `train.bin`, `validation.bin`, `validation.jsonl`,
    `index.json`.

    Attributes:
        fingerprint: of everything that the corpus is made from; equal fingerprints, equal tokens.
        dtype: of the token files.
        statistics: per split.
    """

    directory: Path
    fingerprint: str
    tokenizer: Tokenizer
    dtype: str
    statistics: dict[str, SplitStatistics]

    def token_file(self, split: str) -> Path:
        return self.directory / f"{split}.bin"


def prepare_corpus(
    source: Source,
    streaming: bool,
    validation_fraction: float,
    tokenizer_file: str | None,
    vocab_size: int | None,
    model_type: str,
    workers: int | None,
    cache_dir: Path,
    show_progress: bool,
) -> PackedCorpus:
    """Reads, splits, tokenizes and packs a source, or finds that this has been done.

    Any number of processes may call it at the same time: one does the work, the others wait for it.

    Args:
        streaming: read the source as a stream, with no Arrow copy of it; the result is the same.
        tokenizer_file: a sentencepiece model; None: one is trained on the train split.
        vocab_size: of the tokenizer to train; with a file, None or what the file has.
        model_type: bpe | unigram, of the tokenizer to train.
        workers: processes that tokenize; None: one per core.
        show_progress: a bar on standard error, in the process that does the work.

    Raises:
        DataError: see `Source.open`, `Tokenizer`, `train_tokenizer` and `pack`; or the cache cannot be
            written.
    """
    given = Tokenizer.from_file(tokenizer_file, vocab_size) if tokenizer_file is not None else None
    inputs: dict[str, Any] = {
        "format": _FORMAT,
        "source": source.identity(),
        "validation_fraction": validation_fraction,
        "tokenizer": given.fingerprint if given else [vocab_size, model_type, SAMPLE_BYTES[model_type]],
        "libraries": {library.__name__: library.__version__ for library in (datasets, sentencepiece)},
    }
    fingerprint = cache_key(inputs)

    def make(directory: Path) -> None:
        with _progress_of_datasets(show_progress):
            documents = source.open(streaming, cache_dir / "documents" / cache_key(inputs["source"]))
            tokenizer = given or _train(documents, validation_fraction, vocab_size, model_type, show_progress)
            with progress_bar("tokenizing", documents.count, show_progress) as advance:
                statistics = pack(
                    documents, tokenizer, validation_fraction, directory, workers or _num_cores(), advance
                )
        (directory / "tokenizer.model").write_bytes(tokenizer.model_bytes)
        _write_index(directory, fingerprint, tokenizer, statistics, inputs)

    directory = Path(cache_dir).absolute() / fingerprint
    make_once(directory, make, lambda made: _fault(made, fingerprint))
    return _open(directory)


def _train(
    documents: Documents,
    validation_fraction: float,
    vocab_size: int | None,
    model_type: str,
    show_progress: bool,
) -> Tokenizer:
    if vocab_size is None:
        raise DataError(
            "tokenizer.vocab_size: null, and tokenizer.file too; give the one to train, or the other"
        )
    with progress_bar("training the tokenizer", documents.count, show_progress) as advance:
        model = train_tokenizer(_train_split(documents, validation_fraction, advance), vocab_size, model_type)
    return Tokenizer(model)


def _train_split(documents: Documents, validation_fraction: float, advance: Any) -> Iterator[bytes]:
    for document in documents:
        advance(1)
        if not is_validation(document, validation_fraction):
            yield document


def _write_index(
    directory: Path,
    fingerprint: str,
    tokenizer: Tokenizer,
    statistics: dict[str, SplitStatistics],
    inputs: dict[str, Any],
) -> None:
    index = {
        "fingerprint": fingerprint,
        "tokenizer": {
            "sha256": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "eos_id": tokenizer.eos_id,
        },
        "dtype": token_dtype(tokenizer.vocab_size),
        "splits": {split: statistics[split].as_dict() for split in SPLITS},
        "documents": _size_and_checksum(directory / VALIDATION_DOCUMENTS),
        "inputs": inputs,
    }
    (directory / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _open(directory: Path) -> PackedCorpus:
    index = json.loads((directory / "index.json").read_text(encoding="utf-8"))
    return PackedCorpus(
        directory=directory,
        fingerprint=index["fingerprint"],
        tokenizer=Tokenizer((directory / "tokenizer.model").read_bytes(), str(directory / "tokenizer.model")),
        dtype=index["dtype"],
        statistics={split: SplitStatistics(**index["splits"][split]) for split in SPLITS},
    )


def _fault(directory: Path, fingerprint: str) -> str | None:
    """What is wrong with a directory of the cache, or None."""
    try:
        index = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        model = (directory / "tokenizer.model").read_bytes()
        if index["fingerprint"] != fingerprint:
            return "index.json belongs to another corpus"
        if hashlib.sha256(model).hexdigest() != index["tokenizer"]["sha256"]:
            return "tokenizer.model is not the one that made the tokens"
        for split in SPLITS:
            recorded = index["splits"][split]
            size = recorded["tokens"] * np.dtype(index["dtype"]).itemsize
            what = _file_fault(directory / f"{split}.bin", size, recorded["sha256"])
            if what is not None:
                return what
        return _file_fault(directory / VALIDATION_DOCUMENTS, **index["documents"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)


def _file_fault(path: Path, size: int, sha256: str) -> str | None:
    if path.stat().st_size != size:
        return f"{path.name} has another size"
    if size <= _CHECKSUM_BYTES and _sha256(path) != sha256:
        return f"{path.name} has another checksum"
    return None


def _size_and_checksum(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress_of_datasets(show: bool) -> Iterator[None]:
    """Keeps the bars that `datasets` shows while it copies documents, or hides them too."""
    if show or not datasets.utils.is_progress_bar_enabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
