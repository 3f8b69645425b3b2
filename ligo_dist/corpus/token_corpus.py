"""Tokens that exist, as a corpus: they stay where they are, memory-mapped, and the cache has an index of them alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ligo_dist.corpus.boundaries import read_ends
from ligo_dist.corpus.cache import (
    Check,
    cache_key,
    file_states,
    make_cached,
    progress_bar,
    read_index,
    recall,
)
from ligo_dist.corpus.order import SPLITS, is_validation, refuse_empty_split
from ligo_dist.corpus.packing import SplitStatistics, token_dtype
from ligo_dist.corpus.prepare import check_tokenizer, keep_tokenizer, kept_tokenizer
from ligo_dist.corpus.text_files import find_files, index_of
from ligo_dist.corpus.text_tokenizer import TextTokenizer
from ligo_dist.corpus.token_blocks import MappedTokens, TokenBlocks
from ligo_dist.corpus.token_files import Found, Run, find_tokens
from ligo_dist.runtime.errors import DataError
from ligo_dist.runtime.machine import available_cores

if TYPE_CHECKING:
    from ligo_dist.config import Config

logger = logging.getLogger(__name__)

_COPY = "tokens.bin"
"""In the cache: what was compressed, and could not be mapped as it is."""

_FORMAT = 1
"""Raise it with every change of the code that changes what is made from the same inputs."""

_DOCUMENTS_AT_ONCE = 4096


@dataclass(frozen=True)
class TokenSource:
    """Files of tokens, found but not yet opened.

    Attributes:
        kind: megatron | datatrove | parquet | arrow.
        files: absolute paths, sorted.
        column: of a table.
        max_documents: only the first so many are taken.
    """

    kind: str
    files: tuple[str, ...]
    column: str | None = None
    max_documents: int | None = None

    @classmethod
    def find(
        cls, kind: str, files: list[str], column: str | None = None, max_documents: int | None = None
    ) -> TokenSource:
        """Raises DataError: a file, or the index beside it, is missing."""
        return cls(kind, tuple(find_files(files, kind)), column, max_documents)

    def identity(self) -> dict[str, Any]:
        """Everything that decides which tokens come out and in which order, as JSON values."""
        beside = [index_of(self.kind, path) for path in self.files] if self.column is None else []
        states = {"files": file_states(self.files), "indices": file_states(beside)}
        return {
            "tokens": self.kind,
            "column": self.column,
            "max_documents": self.max_documents,
            **states,
        }


@dataclass(frozen=True)
class TokenCorpus:
    """A directory of the cache that says where the documents of both splits lie: `train.starts.bin`,
    `train.ends.bin`, the same of `validation`, `index.json`, and the tokenizer; of compressed files `tokens.bin` too.

    Attributes:
        tokenizer: the one that is said to have made them.
        statistics: per split; there are no bytes of text.
        runs: where tokens lie; a document's place is counted through all of them.
        note: what a user should know; empty: nothing.
    """

    directory: Path
    tokenizer: TextTokenizer
    statistics: dict[str, SplitStatistics]
    runs: tuple[Run, ...]
    broken_lines: int = 0
    note: str = ""

    def checksum(self) -> str:
        """Of the tokens, and of the tokenizer: nothing in them says which one it was."""
        tokenizer = self.tokenizer
        of_tokenizer = [tokenizer.vocab_size, tokenizer.mask_id, sorted(tokenizer.special_ids)]
        return cache_key(
            {
                "tokens": [self.statistics[split].sha256 for split in SPLITS],
                "tokenizer": [*of_tokenizer, tokenizer.fingerprint],
            }
        )

    def blocks(self, split: str, sequence_length: int) -> TokenBlocks:
        """A split cut into sequences."""
        starts = np.memmap(self.directory / f"{split}.starts.bin", dtype="<i8", mode="r")
        return TokenBlocks(split, MappedTokens(self.runs), starts, self.ends(split), sequence_length)

    def ends(self, split: str) -> NDArray[np.int64]:
        """Where the documents of a split end, in its own tokens."""
        return read_ends(self.directory, split)


def prepare_tokens(
    source: TokenSource,
    validation_fraction: float,
    tokenizer: TextTokenizer,
    workers: int | None,
    cache_dir: Path,
    show_progress: bool,
    identity: dict[str, Any] | None = None,
) -> TokenCorpus:
    """Reads all tokens once: which split each document belongs to, by a hash of its tokens, and the largest id.

    Any number of processes may call it at the same time: one does the work, the others wait for it.

    Args:
        tokenizer: that made the tokens.
        workers: threads that read; None: one per core.
        identity: of the source, where it is known already.

    Raises:
        DataError: as `find_tokens`; ids that are none of the tokenizer's; a split without a document; or the cache
            cannot be written.
    """
    inputs = {
        "format": _FORMAT,
        "source": source.identity() if identity is None else identity,
        "validation_fraction": validation_fraction,
        "tokenizer": tokenizer.fingerprint,
    }

    def make(directory: Path) -> dict[str, Any]:
        runs, starts, lengths = _collect(source, tokenizer, directory)
        mapped = MappedTokens([_placed(run, directory) for run in runs])
        with progress_bar("reading the tokens", len(lengths), show_progress) as advance:
            read = _read(mapped, starts, lengths, tokenizer, validation_fraction, workers, advance)
        counts = np.bincount(read.sides, minlength=len(SPLITS)).tolist()
        remedy = "or take more documents (data.files, data.max_documents)"
        refuse_empty_split(counts, validation_fraction, "documents", remedy)
        if not read.ended:
            logger.warning(
                "%s: no document ends in the end-of-text token %d of the tokenizer: what is trained on them will not"
                " learn to end, or another tokenizer made them",
                source.files[0],
                tokenizer.eos_id,
            )
        keep_tokenizer(tokenizer, directory)
        return {
            "tokenizer": {
                "sha256": tokenizer.fingerprint,
                "vocab_size": tokenizer.vocab_size,
                "eos_id": tokenizer.eos_id,
            },
            "splits": _write_splits(starts, lengths, read, directory),
            "runs": runs,
            "files": file_states(source.files),
        }

    return _open(make_cached(cache_dir, inputs, make, _check(tokenizer)), tokenizer)


def recall_tokens(config: Config, missing: DataError) -> TokenCorpus:
    """See `recall`: the tokens have to be where they were; their tokenizer is kept."""
    directory, note = recall(config, missing, _check(None))
    return replace(_open(directory, None), note=note)


def _open(directory: Path, tokenizer: TextTokenizer | None) -> TokenCorpus:
    index = read_index(directory)
    return TokenCorpus(
        directory=directory,
        tokenizer=tokenizer or kept_tokenizer(directory),
        statistics={split: SplitStatistics(**index["splits"][split]) for split in SPLITS},
        runs=tuple(_placed(Run(*run), directory) for run in index["runs"]),
    )


def _placed(run: Run, directory: Path) -> Run:
    return run._replace(path=str(directory / _COPY)) if run.path == _COPY else run


def _collect(
    source: TokenSource, tokenizer: TextTokenizer, directory: Path
) -> tuple[list[Run], NDArray[np.int64], NDArray[np.int64]]:
    """Where the tokens are, and [documents] where in them each document begins and how many it has; what has to be
    unpacked is written into the directory."""
    dtype = np.dtype(token_dtype(tokenizer.vocab_size)).newbyteorder("<")
    runs: list[Run] = []
    found_lengths: list[NDArray[np.int64]] = []
    with (directory / _COPY).open("wb") as copy:
        for path, (tokens, of_documents) in _found(source):
            if not isinstance(tokens, Run):
                _check_ids(tokens, tokenizer, path)
                tokens = _append(copy, tokens.astype(dtype))
            if runs and tokens.path == runs[-1].path == _COPY:
                runs[-1] = runs[-1]._replace(tokens=runs[-1].tokens + tokens.tokens)
            elif tokens.tokens:
                runs.append(tokens)
            found_lengths.append(of_documents)
    if not (directory / _COPY).stat().st_size:
        (directory / _COPY).unlink()
    lengths = np.concatenate(found_lengths)
    starts, there = np.cumsum(lengths) - lengths, np.flatnonzero(lengths)[: source.max_documents]
    if not len(there):
        raise DataError(f"data.files: {source.files[0]!r}: the corpus is empty: not one token")
    return runs, starts[there], lengths[there]


def _found(source: TokenSource) -> Iterator[tuple[str, Found]]:
    """Up to where there are enough documents."""
    left = float("inf") if source.max_documents is None else source.max_documents
    for path in source.files:
        for found in find_tokens(source.kind, path, source.column):
            yield path, found
            left -= int(np.count_nonzero(found.lengths))
            if left <= 0:
                return


def _append(copy: BinaryIO, tokens: NDArray[Any]) -> Run:
    run = Run(_COPY, copy.tell(), tokens.dtype.str, len(tokens))
    copy.write(tokens.tobytes())
    return run


class _Read(NamedTuple):
    """What reading has shown: [documents] the split of each; a checksum of each split's tokens; and how many documents
    end in the end-of-text token."""

    sides: NDArray[np.intp]
    checksums: list[str]
    ended: int


def _read(
    tokens: MappedTokens,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    tokenizer: TextTokenizer,
    validation_fraction: float,
    workers: int | None,
    advance: Callable[[int], None],
) -> _Read:
    """Reads all documents once, a few thousand at a time in each thread."""
    sides, hashes, ended = [], [hashlib.sha256() for _ in SPLITS], 0
    bounds = pairwise([*range(0, len(lengths), _DOCUMENTS_AT_ONCE), len(lengths)])

    def read(part: tuple[int, int]) -> tuple[list[bytes], int]:
        first, last = part
        return _digests(tokens, starts[first:last], lengths[first:last], tokenizer)

    with ThreadPoolExecutor(workers or available_cores()) as pool:
        for digests, ends_well in pool.map(read, bounds):
            for digest in digests:
                sides.append(is_validation(digest, validation_fraction))
                hashes[sides[-1]].update(digest)
            ended += ends_well
            advance(len(digests))
    return _Read(np.array(sides, dtype=np.intp), [each.hexdigest() for each in hashes], ended)


def _digests(
    tokens: MappedTokens, starts: NDArray[np.int64], lengths: NDArray[np.int64], tokenizer: TextTokenizer
) -> tuple[list[bytes], int]:
    """A hash of each document, and how many end in the end-of-text token. It is of the ids, whatever their dtype: the
    same tokens in another format are the same corpus."""
    digests, ended = [], 0
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        ids = tokens.view(start, length)
        _check_ids(ids, tokenizer)
        digests.append(
            hashlib.blake2b(ids.astype("<u4").tobytes(), digest_size=16, person=b"tokens").digest()
        )
        ended += int(ids[-1]) == tokenizer.eos_id
    return digests, ended


def _write_splits(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], read: _Read, directory: Path
) -> dict[str, dict[str, Any]]:
    """Writes the index of each split; what there is of each."""
    splits = {}
    for number, split in enumerate(SPLITS):
        mine = read.sides == number
        ends = np.cumsum(lengths[mine])
        starts[mine].astype("<i8").tofile(directory / f"{split}.starts.bin")
        ends.astype("<i8").tofile(directory / f"{split}.ends.bin")
        splits[split] = SplitStatistics(len(ends), int(ends[-1]), 0, read.checksums[number]).as_dict()
    return splits


def _check_ids(ids: NDArray[Any], tokenizer: TextTokenizer, path: str = "") -> None:
    if not len(ids):
        return
    for extreme in (int(ids.max()), 0 if ids.dtype.kind == "u" else int(ids.min())):
        if not 0 <= extreme < tokenizer.vocab_size:
            where = f" in {path!r}" if path else ""
            raise DataError(
                f"{tokenizer.origin} has {tokenizer.vocab_size:,} pieces, and there is a token of the id {extreme:,}"
                f"{where}; name the tokenizer that made the tokens of data.files"
            )


def _check(tokenizer: TextTokenizer | None) -> Check:
    """What is wrong with a directory of the cache, or with the tokens that it is an index of; None: nothing."""

    def fault(directory: Path, index: dict[str, Any]) -> str | None:
        if (what := check_tokenizer(directory, index, tokenizer)) is not None:
            return what
        for split in SPLITS:
            for name in (f"{split}.starts.bin", f"{split}.ends.bin"):
                if (directory / name).stat().st_size != 8 * index["splits"][split]["documents"]:
                    return f"{name} has another size"
        copied = [Run(*run) for run in index["runs"] if run[0] == _COPY]
        size = sum(run.tokens * np.dtype(run.dtype).itemsize for run in copied)
        if copied and (directory / _COPY).stat().st_size != size:
            return f"{_COPY} has another size"
        if file_states([path for path, *_ in index["files"]]) != index["files"]:
            return "the tokens have changed since"
        return None

    return fault
