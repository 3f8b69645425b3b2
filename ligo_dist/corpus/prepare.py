"""From a source to a packed corpus in the cache: the tokenizer, both splits' tokens, and an index of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ligo_dist.corpus.boundaries import ENDS_DIRECTORY, last_end, read_ends, write_ends
from ligo_dist.corpus.cache import (
    Check,
    cache_key,
    file_fault,
    make_cached,
    make_once,
    progress_bar,
    read_index,
    recall,
    size_and_checksum,
)
from ligo_dist.corpus.order import SPLITS, is_validation
from ligo_dist.corpus.packing import (
    VALIDATION_DOCUMENTS,
    PackedBlocks,
    SplitStatistics,
    check_known,
    check_split,
    pack,
    token_dtype,
)
from ligo_dist.corpus.pretrained_tokenizer import PretrainedTokenizer
from ligo_dist.corpus.sources import DataSource, Documents
from ligo_dist.corpus.text_tokenizer import TextTokenizer
from ligo_dist.corpus.tokenizer import TOKENIZER_FILE, SentencePieceTokenizer
from ligo_dist.corpus.tokenizer_training import SAMPLE_BYTES, WINDOW_BYTES, train_tokenizer
from ligo_dist.runtime.errors import DataError
from ligo_dist.runtime.imported import ImportedLater
from ligo_dist.runtime.machine import available_cores

if TYPE_CHECKING:
    import datasets

    from ligo_dist.config import Config
else:
    # When it is used: with its pandas it takes a second, and ranks whose corpus is prepared have no use for it.
    datasets = ImportedLater("datasets")

logger = logging.getLogger(__name__)

_PRETRAINED = "tokenizer"
"""Directory of a given Hugging Face tokenizer's files."""

_FORMAT = 3
"""Raise it with every change of the code that changes what is made from the same inputs."""


@dataclass(frozen=True)
class PackedCorpus:
    """A directory of the cache: `train.bin`, `validation.bin`, `validation.jsonl`, `index.json`, and the
    sentencepiece model, `tokenizer.model`, if it was trained on them.

    Attributes:
        tokenizer: the given one, or the one that was trained.
        fingerprint: of everything that the corpus is made from; equal fingerprints, equal tokens.
        dtype: of the token files.
        statistics: per split.
        broken_lines: of the source, that were left out.
        note: what was not there of what it is made from; empty: nothing.
    """

    directory: Path
    fingerprint: str
    tokenizer: TextTokenizer
    dtype: str
    statistics: dict[str, SplitStatistics]
    broken_lines: int = 0
    note: str = ""

    def token_file(self, split: str) -> Path:
        return self.directory / f"{split}.bin"

    def blocks(self, split: str, sequence_length: int) -> PackedBlocks:
        """A split cut into sequences."""
        return PackedBlocks(self.token_file(split), self.dtype, sequence_length)

    def ends(self, split: str) -> NDArray[np.int64]:
        """Where the documents of a split end, in its own tokens. They are looked for once.

        Raises:
            DataError: the cache cannot be written to.
        """

        def make(directory: Path) -> None:
            for each in SPLITS:
                write_ends(
                    self.token_file(each), self.dtype, self.tokenizer.eos_id, directory / f"{each}.ends.bin"
                )

        def fault(directory: Path) -> str | None:
            for each in SPLITS:
                file = directory / f"{each}.ends.bin"
                if not file.is_file() or last_end(file) != self.statistics[each].tokens:
                    return f"{file.name} does not end where the tokens do"
            return None

        make_once(self.directory / ENDS_DIRECTORY, make, fault)
        return read_ends(self.directory, split)

    def checksum(self) -> str:
        """Of the tokens, and of what training knows of the tokenizer that made them."""
        tokenizer = self.tokenizer
        of_tokenizer = [tokenizer.vocab_size, tokenizer.mask_id, sorted(tokenizer.special_ids)]
        return cache_key({"tokens": [self.statistics[s].sha256 for s in SPLITS], "tokenizer": of_tokenizer})


def prepare_corpus(
    source: DataSource,
    streaming: bool,
    validation_fraction: float,
    given: TextTokenizer | None,
    vocab_size: int | None,
    model_type: str,
    workers: int | None,
    cache_dir: Path,
    show_progress: bool,
    masked: bool = False,
    identity: dict[str, Any] | None = None,
) -> PackedCorpus:
    """Reads, splits, tokenizes and packs a source, or finds that this has been done.

    Any number of processes may call it at the same time: one does the work, the others wait for it.

    Args:
        streaming: read the source as a stream, with no Arrow copy of it; the result is the same.
        given: the tokenizer; None: a sentencepiece one is trained on the train split.
        vocab_size: of the tokenizer to train.
        model_type: bpe | unigram, of the tokenizer to train.
        workers: processes that tokenize; None: one per core.
        show_progress: a bar on standard error, in the process that does the work.
        masked: the tokenizer to train is for a masked language model.
        identity: of the source, where it is known already.

    Raises:
        DataError: see `Source.open`, `Tokenizer`, `check_split`, `train_tokenizer` and `pack`; or the cache cannot be
            written.
    """
    libraries = ("datasets", "tokenizers" if isinstance(given, PretrainedTokenizer) else "sentencepiece")
    training = [vocab_size, model_type, SAMPLE_BYTES[model_type], *(["masked"] if masked else [])]
    training += ["spread"] if source.is_larger(WINDOW_BYTES) else []
    inputs: dict[str, Any] = {
        "format": _FORMAT,
        "source": source.identity() if identity is None else identity,
        "validation_fraction": validation_fraction,
        "tokenizer": given.fingerprint if given else training,
        "libraries": {library: version(library) for library in libraries},
    }

    def make(directory: Path) -> dict[str, Any]:
        with _progress_of_datasets(show_progress):
            documents = source.open(streaming, cache_dir / "documents" / cache_key(inputs["source"]))
            check_split(documents, validation_fraction)
            tokenizer = given or _train(
                documents, validation_fraction, vocab_size, model_type, masked, show_progress
            )
            with progress_bar("tokenizing", documents.count, show_progress) as advance:
                statistics = pack(
                    documents,
                    tokenizer,
                    validation_fraction,
                    directory,
                    workers or available_cores(),
                    advance,
                )
        keep_tokenizer(tokenizer, directory)
        if (unknown := check_known(statistics.values(), tokenizer.origin)) is not None:
            logger.warning("%s; another tokenizer may fit better", unknown)
        if documents.num_broken:
            logger.warning(
                "%s: %d broken line(s) left out; the first: %s",
                source.origin(),
                documents.num_broken,
                documents.first_broken,
            )
        return {
            "tokenizer": {
                "sha256": tokenizer.fingerprint,
                "vocab_size": tokenizer.vocab_size,
                "eos_id": tokenizer.eos_id,
            },
            "dtype": token_dtype(tokenizer.vocab_size),
            "splits": {split: statistics[split].as_dict() for split in SPLITS},
            "broken_lines": documents.num_broken,
            "documents": size_and_checksum(directory / VALIDATION_DOCUMENTS),
        }

    return _open(make_cached(cache_dir, inputs, make, _check(given)), given)


def recall_corpus(config: Config, missing: DataError) -> PackedCorpus:
    """See `recall`."""
    directory, note = recall(config, missing, _check(None))
    return replace(_open(directory, None), note=note)


def _train(
    documents: Documents,
    validation_fraction: float,
    vocab_size: int | None,
    model_type: str,
    masked: bool,
    show_progress: bool,
) -> SentencePieceTokenizer:
    if vocab_size is None:
        raise DataError(
            "tokenizer.vocab_size: null, and tokenizer.file too; give the one to train, or the other"
        )
    with progress_bar("training the tokenizer", documents.count, show_progress) as advance:
        texts = _train_split(documents, validation_fraction, advance)
        model = train_tokenizer(texts, vocab_size, model_type, masked)
    return SentencePieceTokenizer(model)


def _train_split(documents: Documents, validation_fraction: float, advance: Any) -> Iterator[bytes]:
    for document in documents.spread(WINDOW_BYTES):
        advance(1)
        if not is_validation(document, validation_fraction):
            yield document


def _open(directory: Path, given: TextTokenizer | None) -> PackedCorpus:
    index = read_index(directory)
    return PackedCorpus(
        directory=directory,
        fingerprint=index["fingerprint"],
        # A given one is as it is now: what goes with it in an export is not what tokens depend on.
        tokenizer=given or kept_tokenizer(directory),
        dtype=index["dtype"],
        statistics={split: SplitStatistics(**index["splits"][split]) for split in SPLITS},
        broken_lines=index["broken_lines"],
    )


def keep_tokenizer(tokenizer: TextTokenizer, directory: Path) -> None:
    """What opens the corpus where the tokenizer that made it is not there any more."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        (directory / TOKENIZER_FILE).write_bytes(tokenizer.model_bytes)
    elif isinstance(tokenizer, PretrainedTokenizer):
        tokenizer.copy_to(directory / _PRETRAINED)


def kept_tokenizer(directory: Path) -> TextTokenizer:
    """The tokenizer that was kept in a directory of the cache."""
    pretrained, path = directory / _PRETRAINED, directory / TOKENIZER_FILE
    if pretrained.is_dir():
        return PretrainedTokenizer(pretrained, f"the tokenizer in {pretrained}")
    return SentencePieceTokenizer(path.read_bytes(), str(path))


def _kept_fingerprint(directory: Path) -> str:
    if (directory / _PRETRAINED).is_dir():
        return kept_tokenizer(directory).fingerprint
    return str(size_and_checksum(directory / TOKENIZER_FILE)["sha256"])


def check_tokenizer(directory: Path, index: dict[str, Any], given: TextTokenizer | None) -> str | None:
    """What is wrong with the tokenizer of a directory of the cache, or None; without a given one, its own is looked
    at."""
    made_by = given.fingerprint if given else _kept_fingerprint(directory)
    return (
        None
        if made_by == index["tokenizer"]["sha256"]
        else "its tokenizer is not the one that made the tokens"
    )


def _check(given: TextTokenizer | None) -> Check:
    """What is wrong with a directory of the cache, or None; without a given tokenizer, that of its own is looked at."""

    def fault(directory: Path, index: dict[str, Any]) -> str | None:
        if (what := check_tokenizer(directory, index, given)) is not None:
            return what
        for split in SPLITS:
            recorded = index["splits"][split]
            size = recorded["tokens"] * np.dtype(index["dtype"]).itemsize
            what = file_fault(directory / f"{split}.bin", size, recorded["sha256"])
            if what is not None:
                return what
        return file_fault(directory / VALIDATION_DOCUMENTS, **index["documents"])

    return fault


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
