"""Tokens that exist, as a corpus: they stay where they are, memory-mapped, and the cache has an index of them alone."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
from ligo_dist.corpus.order import is_validation
from ligo_dist.corpus.packing import SPLITS, SplitStatistics, number_of_blocks, token_dtype
from ligo_dist.corpus.prepare import check_tokenizer, keep_tokenizer, kept_tokenizer
from ligo_dist.corpus.text_files import find_files, index_of
from ligo_dist.corpus.text_tokenizer import TextTokenizer
from ligo_dist.corpus.token_files import Run, find_tokens
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


class MappedTokens:
    """Runs of tokens as one array that is never put together; files are mapped when they are first read."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._ends = np.cumsum([run.count for run in runs], dtype=np.int64)
        self._map = functools.cache(lambda path: np.memmap(path, dtype=np.uint8, mode="r"))

    def view(self, start: int, count: int) -> NDArray[Any]:
        """Tokens that lie in one run, as they are there; nothing is copied."""
        number = int(np.searchsorted(self._ends, start, side="right"))
        run = self._runs[number]
        size = np.dtype(run.dtype).itemsize
        first = run.offset + (start - int(self._ends[number]) + run.count) * size
        return self._map(run.path)[first : first + count * size].view(run.dtype)


class TokenBlocks:
    """The documents of a split, one after the other, as blocks; see `Blocks`.

    Args:
        tokens: of all documents.
        starts: [documents], where each document of the split begins in them.
        ends: [documents], where each ends in the split.
    """

    def __init__(
        self,
        split: str,
        tokens: MappedTokens,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        sequence_length: int,
    ) -> None:
        self.sequence_length = sequence_length
        self._tokens, self._starts, self._ends = tokens, starts, ends
        self._num_blocks = number_of_blocks(int(ends[-1]), sequence_length, split)

    def __len__(self) -> int:
        return self._num_blocks

    def read(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The blocks with these indices: [len(indices), sequence_length]."""
        indices = np.asarray(indices, dtype=np.int64)
        blocks = np.empty((len(indices), self.sequence_length), dtype=np.int64)
        for block, index in zip(blocks, indices.tolist(), strict=True):
            self._fill(block, index * self.sequence_length)
        return blocks

    def _fill(self, block: NDArray[np.int64], position: int) -> None:
        document = int(np.searchsorted(self._ends, position, side="right"))
        filled = 0
        while filled < len(block):
            begin = int(self._ends[document - 1]) if document else 0
            count = min(int(self._ends[document]) - position, len(block) - filled)
            place = int(self._starts[document]) + position - begin
            block[filled : filled + count] = self._tokens.view(place, count)
            filled, position, document = filled + count, position + count, document + 1


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
        runs, lengths = _collect(source, tokenizer, directory)
        starts = np.cumsum(lengths) - lengths
        starts, lengths = starts[lengths > 0], lengths[lengths > 0]
        starts, lengths = starts[: source.max_documents], lengths[: source.max_documents]
        if not len(lengths):
            raise DataError(f"data.files: {source.files[0]!r}: the corpus is empty: not one token")
        there = MappedTokens([_placed(run, directory) for run in runs])
        reading = functools.partial(_read_documents, there, validation_fraction, tokenizer)
        held_back, hashes, ended = [], [hashlib.sha256() for _ in SPLITS], 0
        bounds = [*range(0, len(lengths), _DOCUMENTS_AT_ONCE), len(lengths)]
        with (
            ThreadPoolExecutor(workers or available_cores()) as pool,
            progress_bar("reading the tokens", len(lengths), show_progress) as advance,
        ):
            parts = ((starts[first:last], lengths[first:last]) for first, last in pairwise(bounds))
            for sides, digests, ends_well in pool.map(lambda part: reading(*part), parts):
                for side, digest in zip(sides, digests, strict=True):
                    hashes[side].update(digest)
                held_back.append(sides)
                ended += ends_well
                advance(len(sides))
        side_of = np.concatenate(held_back)
        _check_split(side_of, validation_fraction)
        if not ended:
            logger.warning(
                "%s: no document ends in the end-of-text token %d of the tokenizer: what is trained on them will not"
                " learn to end, or another tokenizer made them",
                source.files[0],
                tokenizer.eos_id,
            )
        keep_tokenizer(tokenizer, directory)
        statistics = {}
        for number, split in enumerate(SPLITS):
            mine = side_of == number
            ends = np.cumsum(lengths[mine])
            starts[mine].astype("<i8").tofile(directory / f"{split}.starts.bin")
            ends.astype("<i8").tofile(directory / f"{split}.ends.bin")
            statistics[split] = SplitStatistics(len(ends), int(ends[-1]), 0, hashes[number].hexdigest())
        return {
            "tokenizer": {
                "sha256": tokenizer.fingerprint,
                "vocab_size": tokenizer.vocab_size,
                "eos_id": tokenizer.eos_id,
            },
            "splits": {split: statistics[split].as_dict() for split in SPLITS},
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
) -> tuple[list[Run], NDArray[np.int64]]:
    """Where the tokens are, and the documents' lengths; what has to be unpacked is written into the directory."""
    dtype = "<" + np.dtype(token_dtype(tokenizer.vocab_size)).str[1:]
    runs, lengths, num_documents = [], [np.empty(0, dtype=np.int64)], 0
    with (directory / _COPY).open("wb") as copy:
        for path in source.files:
            for tokens, of_documents in find_tokens(source.kind, path, source.column):
                if not isinstance(tokens, Run):
                    _check_ids(tokens, tokenizer, path)
                    tokens = _append(copy, tokens.astype(dtype))
                if runs and tokens.path == runs[-1].path == _COPY:
                    runs[-1] = runs[-1]._replace(count=runs[-1].count + tokens.count)
                elif tokens.count:
                    runs.append(tokens)
                lengths.append(of_documents)
                num_documents += int((of_documents > 0).sum())
                if source.max_documents is not None and num_documents >= source.max_documents:
                    break
    if not (directory / _COPY).stat().st_size:
        (directory / _COPY).unlink()
    return runs, np.concatenate(lengths)


def _append(copy: BinaryIO, tokens: NDArray[Any]) -> Run:
    run = Run(_COPY, copy.tell(), tokens.dtype.str, len(tokens))
    copy.write(tokens.tobytes())
    return run


def _read_documents(
    tokens: MappedTokens,
    validation_fraction: float,
    tokenizer: TextTokenizer,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> tuple[NDArray[np.intp], list[bytes], int]:
    """Of some documents: the split of each, a hash of each, and how many end in the end-of-text token.

    The hash is of the ids, whatever their dtype: the same tokens in another format are the same corpus.
    """
    sides, digests, ended = np.empty(len(starts), dtype=np.intp), [], 0
    for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        ids = tokens.view(start, length)
        _check_ids(ids, tokenizer)
        digest = hashlib.blake2b(ids.astype("<u4").tobytes(), digest_size=16, person=b"tokens").digest()
        sides[number] = is_validation(digest, validation_fraction)
        digests.append(digest)
        ended += int(ids[-1]) == tokenizer.eos_id
    return sides, digests, ended


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


def _check_split(side_of: NDArray[np.intp], validation_fraction: float) -> None:
    counts = np.bincount(side_of, minlength=len(SPLITS))
    if not counts.all():
        empty = SPLITS[int(counts.argmin())]
        raise DataError(
            f"data.validation_fraction: {validation_fraction} of {len(side_of):,} documents leaves the {empty} split "
            "empty; choose another fraction, or take more documents (data.files, data.max_documents)"
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
        for run in (Run(*run) for run in index["runs"] if run[0] == _COPY):
            if (directory / _COPY).stat().st_size != run.count * np.dtype(run.dtype).itemsize:
                return f"{_COPY} has another size"
        if file_states([path for path, *_ in index["files"]]) != index["files"]:
            return "the tokens have changed since"
        return None

    return fault
