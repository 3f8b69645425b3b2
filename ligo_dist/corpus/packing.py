"""Documents to flat token files, one per split, in parallel and in the documents' order; and those files as blocks of
the sequence length."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligo_dist.corpus.order import SPLITS, is_validation, refuse_empty_split
from ligo_dist.corpus.text_files import document_line
from ligo_dist.corpus.text_tokenizer import TextTokenizer
from ligo_dist.runtime.errors import DataError

VALIDATION_DOCUMENTS = "validation.jsonl"
"""The validation documents as they are, for whoever wants to measure an exported model by other means."""

_CHUNK_BYTES = 1 << 20
_CHUNK_DOCUMENTS = 4096
_CHUNKS_IN_FLIGHT_PER_WORKER = 3

_UNKNOWN_TOLD, _UNKNOWN_REFUSED = 0.01, 0.5
"""Parts of the tokens."""

_MOST_BYTES_PER_TOKEN = 100
"""Four or five are usual. Some tokenizers leave out what they do not know."""

_JUDGED_BYTES = 64 << 20
"""So much of a corpus decides whether the rest is tokenized."""


@dataclass(frozen=True)
class SplitStatistics:
    """What one split's token file holds. `tokens` counts the EOS after each document, `bytes` the text
    alone, `unknown` the tokens that stand for text of which the tokenizer knows nothing."""

    documents: int
    tokens: int
    bytes: int
    sha256: str
    unknown: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Packed:
    """One split's part of a chunk of documents; `lines` is the documents themselves, of validation only."""

    tokens: bytes
    lines: bytes
    documents: int
    bytes: int
    unknown: int


def token_dtype(vocab_size: int) -> str:
    """The smallest of uint16 and uint32 that holds the ids."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def pack(
    documents: Iterable[bytes],
    tokenizer: TextTokenizer,
    validation_fraction: float,
    directory: Path,
    workers: int,
    advance: Callable[[int], None] = lambda documents: None,
) -> dict[str, SplitStatistics]:
    """Writes `train.bin` and `validation.bin` in `directory`: each document's tokens, then EOS.

    And `validation.jsonl`: the documents of `validation.bin` in their order, see `plain_documents`.

    The files do not depend on the number of workers. A few chunks of documents per worker are in memory at
    any time.

    Args:
        workers: processes that tokenize; with 1, this process does it.
        advance: called with the number of documents that were done since the last call.

    Raises:
        DataError: a worker was killed; or the tokenizer makes nothing of the text, see `check_known`.
    """
    itemsize = np.dtype(token_dtype(tokenizer.vocab_size)).itemsize
    judge_after: float = _JUDGED_BYTES
    writers = {split: _Writer(directory / f"{split}.bin") for split in SPLITS}
    try:
        with (directory / VALIDATION_DOCUMENTS).open("wb") as plain:
            for packed in _packed_chunks(_chunks(documents), tokenizer, validation_fraction, workers):
                for split, part in zip(SPLITS, packed, strict=True):
                    writers[split].write(part)
                    plain.write(part.lines)
                advance(sum(part.documents for part in packed))
                judge_after -= sum(part.bytes for part in packed)
                if judge_after <= 0:  # not only when all of a large corpus is done
                    check_known(
                        [writer.statistics(itemsize) for writer in writers.values()], tokenizer.origin
                    )
                    judge_after = float("inf")
    finally:
        for writer in writers.values():
            writer.close()
    statistics = {split: writer.statistics(itemsize) for split, writer in writers.items()}
    check_known(statistics.values(), tokenizer.origin)
    return statistics


def check_known(statistics: Iterable[SplitStatistics], origin: str) -> str | None:
    """Whether a tokenizer knows the text that it was given: what should be said of it, or None.

    Args:
        origin: how messages name the tokenizer.

    Raises:
        DataError: nearly all of the text is unknown to it, or it makes no tokens of it.
    """
    total = summed(statistics)
    if total.bytes == 0:
        return None
    tokens = total.tokens - total.documents
    other = (
        "name a tokenizer of this language or kind of text, or have one trained: tokenizer.vocab_size alone"
    )
    if tokens == 0 or total.bytes > _MOST_BYTES_PER_TOKEN * tokens:
        raise DataError(
            f"{origin} makes {tokens:,} tokens of {total.bytes:,} bytes of text: it does not know most of it; {other}"
        )
    part = total.unknown / tokens
    said = f"{part:.1%} of the tokens stand for text that {origin} does not know"
    if part > _UNKNOWN_REFUSED:
        raise DataError(f"{said}; {other}")
    return said if part > _UNKNOWN_TOLD else None


def summed(statistics: Iterable[SplitStatistics]) -> SplitStatistics:
    """All splits as one."""
    parts = list(statistics)
    documents, tokens, size, unknown = (
        sum(getattr(part, name) for part in parts) for name in ("documents", "tokens", "bytes", "unknown")
    )
    return SplitStatistics(documents, tokens, size, "", unknown)


def check_split(documents: Iterable[bytes], validation_fraction: float) -> None:
    """See that both splits get a document. Reads no further than to where they have one.

    Raises:
        DataError: they do not.
    """
    counts, first, alike = [0, 0], None, True
    for document in filter(None, documents):
        counts[is_validation(document, validation_fraction)] += 1
        if all(counts):
            return
        first = first or document
        alike = alike and document == first
    total = sum(counts)
    if total == 0:
        raise DataError("data: the corpus is empty: not one document with text in it")
    if alike:
        what = "one document" if total == 1 else f"{total} documents that are all the same"
        raise DataError(
            f"data: the corpus is {what}, which cannot be trained on and held back for validation; give further"
            " documents, or make them smaller (data.document: paragraph or line, for text)"
        )
    remedy = "read more documents, or make them smaller (data.document)"
    refuse_empty_split(counts, validation_fraction, "documents", remedy)


def _chunks(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Documents in groups worth sending to a worker. Documents without text are left out."""
    chunk: list[bytes] = []
    size = 0
    for document in documents:
        if not document:
            continue
        chunk.append(document)
        size += len(document)
        if size >= _CHUNK_BYTES or len(chunk) >= _CHUNK_DOCUMENTS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _packed_chunks(
    chunks: Iterator[list[bytes]], tokenizer: TextTokenizer, validation_fraction: float, workers: int
) -> Iterator[tuple[_Packed, ...]]:
    """The packed chunks in their order. Workers are spawned, as forking a process with threads may hang
    it."""
    if workers == 1:
        for chunk in chunks:
            yield _pack_chunk(chunk, tokenizer, validation_fraction)
        return
    pending: deque[Future[tuple[_Packed, ...]]] = deque()
    context = multiprocessing.get_context("spawn")
    arguments = (tokenizer, validation_fraction)
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=arguments) as pool:
        try:
            for chunk in chunks:
                pending.append(pool.submit(_pack_in_worker, chunk))
                if len(pending) >= workers * _CHUNKS_IN_FLIGHT_PER_WORKER:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                f"data.workers: {workers}; a tokenizing process was killed, most likely for want of memory; "
                "use fewer"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker_state: tuple[TextTokenizer, float]


def _start_worker(tokenizer: TextTokenizer, validation_fraction: float) -> None:
    global _worker_state
    # An interrupt reaches all processes of a terminal; the parent ends, and this one with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker_state = tokenizer, validation_fraction
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed leaves its workers waiting for more work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _pack_in_worker(chunk: list[bytes]) -> tuple[_Packed, ...]:
    return _pack_chunk(chunk, *_worker_state)


def _pack_chunk(
    chunk: list[bytes], tokenizer: TextTokenizer, validation_fraction: float
) -> tuple[_Packed, ...]:
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    for document in chunk:
        sides[is_validation(document, validation_fraction)].append(document)
    dtype = token_dtype(tokenizer.vocab_size)
    packed = []
    for split, documents in zip(SPLITS, sides, strict=True):
        tokens, unknown = [], 0
        for document in documents:
            ids = tokenizer.encode(document)
            unknown += ids.count(tokenizer.unk_id) if tokenizer.unk_id is not None else 0
            tokens.append(np.array([*ids, tokenizer.eos_id], dtype=dtype).tobytes())
        lines = b"".join(map(document_line, documents)) if split == "validation" else b""
        packed.append(_Packed(b"".join(tokens), lines, len(documents), sum(map(len, documents)), unknown))
    return tuple(packed)


class _Writer:
    """A token file being written, with its checksum."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._hash = hashlib.sha256()
        self._size = self._documents = self._bytes = self._unknown = 0

    def write(self, part: _Packed) -> None:
        self._file.write(part.tokens)
        self._hash.update(part.tokens)
        self._size += len(part.tokens)
        self._documents += part.documents
        self._bytes += part.bytes
        self._unknown += part.unknown

    def statistics(self, itemsize: int) -> SplitStatistics:
        tokens, checksum = self._size // itemsize, self._hash.hexdigest()
        return SplitStatistics(self._documents, tokens, self._bytes, checksum, self._unknown)

    def close(self) -> None:
        self._file.close()


class Blocks(Protocol):
    """The documents of a split, one after the other, cut into blocks: block i holds their tokens [i * sequence_length,
    (i + 1) * sequence_length). The tokens behind the last whole block are not used."""

    @property
    def sequence_length(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The blocks with these indices: [len(indices), sequence_length]."""
        ...


def number_of_blocks(num_tokens: int, sequence_length: int, split: str) -> int:
    """Whole blocks of so many tokens.

    Raises:
        DataError: there is not one.
    """
    if num_tokens < sequence_length:
        raise DataError(
            f"data.sequence_length: {sequence_length} tokens, but the {split} split holds only "
            f"{num_tokens}; give it more documents (data.files, data.validation_fraction) or use "
            "shorter sequences"
        )
    return num_tokens // sequence_length


class PackedBlocks:
    """A token file, memory-mapped, as blocks; each document is ended by EOS. See `Blocks`.

    Raises:
        DataError: the file holds less than one block.
    """

    def __init__(self, path: Path, dtype: str, sequence_length: int) -> None:
        self.path = Path(path)
        self.sequence_length = sequence_length
        self.num_tokens = self.path.stat().st_size // np.dtype(dtype).itemsize
        num_blocks = number_of_blocks(self.num_tokens, sequence_length, self.path.stem)
        tokens = np.memmap(self.path, dtype=dtype, mode="r")
        self._blocks = tokens[: num_blocks * sequence_length].reshape(num_blocks, sequence_length)

    def __len__(self) -> int:
        return len(self._blocks)

    def read(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The blocks with these indices: [len(indices), sequence_length]."""
        return self._blocks[np.asarray(indices, dtype=np.int64)].astype(np.int64)
