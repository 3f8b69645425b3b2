"""Documents become tokens, and the tokens become the documents again."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ligo_dist.corpus import (
    SentencePieceTokenizer,
    check_known,
    check_split,
    is_validation,
    pack,
    packing,
    token_dtype,
)
from ligo_dist.runtime.errors import DataError


def test_the_dtype_holds_every_id() -> None:
    assert [token_dtype(size) for size in (256, 65536, 65537)] == ["uint16", "uint16", "uint32"]


def test_documents_come_back_in_their_order(
    documents: list[bytes], bpe: SentencePieceTokenizer, tmp_path: Path
) -> None:
    done: list[int] = []
    statistics = pack(iter([b"", *documents, b""]), bpe, 0.2, tmp_path, 1, done.append)
    assert sum(done) == len(documents)
    for split, side in (("train", False), ("validation", True)):
        expected = [document for document in documents if is_validation(document, 0.2) is side]
        tokens = np.fromfile(tmp_path / f"{split}.bin", dtype="uint16")
        ends = (tokens == bpe.eos_id).nonzero()[0]
        assert tokens[-1] == bpe.eos_id
        assert [bpe.decode(part[:-1]) for part in np.split(tokens, ends + 1) if len(part)] == expected
        assert (statistics[split].documents, statistics[split].tokens) == (len(expected), len(tokens))
        assert statistics[split].bytes == sum(map(len, expected))


def test_the_validation_documents_are_kept_as_they_are(
    documents: list[bytes], bpe: SentencePieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_CHUNK_DOCUMENTS", 7)
    pack(documents, bpe, 0.2, tmp_path, 2)
    lines = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_bytes().splitlines()]
    assert {key for line in lines for key in line} == {"text", "base64"}
    kept = [line["text"].encode() if "text" in line else base64.b64decode(line["base64"]) for line in lines]
    assert kept == [document for document in documents if is_validation(document, 0.2)]
    tokens = np.fromfile(tmp_path / "validation.bin", dtype="uint16").tolist()
    assert tokens == [token for document in kept for token in (*bpe.encode(document), bpe.eos_id)]


def test_the_split_depends_on_no_order(
    documents: list[bytes], bpe: SentencePieceTokenizer, tmp_path: Path
) -> None:
    for name, order in (("a", documents), ("b", documents[::-1])):
        (tmp_path / name).mkdir()
        pack(order, bpe, 0.2, tmp_path / name, 1)
    first, second = (np.fromfile(tmp_path / name / "validation.bin", dtype="uint16") for name in "ab")
    assert sorted(first) == sorted(second)
    assert not np.array_equal(first, second)


def test_any_number_of_workers_gives_the_same_files(
    documents: list[bytes], bpe: SentencePieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_CHUNK_DOCUMENTS", 7)
    for workers in (1, 2, 3):
        (tmp_path / str(workers)).mkdir()
        pack(documents, bpe, 0.2, tmp_path / str(workers), workers)
    for name in ("train.bin", "validation.bin", "validation.jsonl"):
        assert len({(tmp_path / str(workers) / name).read_bytes() for workers in (1, 2, 3)}) == 1


def test_documents_are_read_no_further_than_the_workers_need(
    documents: list[bytes], bpe: SentencePieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_CHUNK_DOCUMENTS", 5)
    read = done = ahead = 0

    def counted() -> Iterator[bytes]:
        nonlocal read, ahead
        for document in documents:
            read += 1
            ahead = max(ahead, read - done)
            yield document

    def advance(count: int) -> None:
        nonlocal done
        done += count

    pack(counted(), bpe, 0.2, tmp_path, 2, advance)
    assert done == len(documents)
    assert ahead <= 5 * (2 * packing._CHUNKS_IN_FLIGHT_PER_WORKER + 1)


@pytest.mark.parametrize(
    ("documents_read", "fraction", "message"),
    [
        ([], 0.2, "data: the corpus is empty"),
        ([b"", b""], 0.2, "data: the corpus is empty"),
        ([b"one"], 0.2, "data: the corpus is one document, which cannot be trained on and held back"),
        ([b"one", b""] * 50, 0.2, "data: the corpus is 50 documents that are all the same"),
        ([b"one"] * 2, 1.0, "data: the corpus is 2 documents that are all the same"),
        (
            [b"one", b"two", b"one"],
            1e-9,
            "data.validation_fraction: 1e-09 of 3 documents leaves the validation split empty",
        ),
        ([b"one", b"two"], 1.0, "data.validation_fraction: 1.0 of 2 documents leaves the train split empty"),
    ],
)
def test_a_split_without_documents_is_refused(
    documents_read: list[bytes], fraction: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check_split(documents_read, fraction)


def test_documents_are_read_until_both_splits_have_one() -> None:
    read = iter([b"%d" % number for number in range(100)])
    check_split(read, 0.5)
    assert len(list(read)) > 80


def test_an_interrupt_is_left_to_the_parent(
    documents: list[bytes], bpe: SentencePieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = packing.multiprocessing.active_children()  # other tests' ranks, which stay warm

    def interrupting() -> Iterator[bytes]:
        yield from documents
        for worker in set(packing.multiprocessing.active_children()) - set(before):
            assert worker.pid is not None
            while not _ignores(worker.pid, signal.SIGINT):
                time.sleep(0.01)
            os.kill(worker.pid, signal.SIGINT)
        yield from documents

    monkeypatch.setattr(packing, "_CHUNK_DOCUMENTS", 20)
    statistics = pack(interrupting(), bpe, 0.2, tmp_path, 2)
    assert sum(split.documents for split in statistics.values()) == 2 * len(documents)


def _ignores(pid: int, signum: int) -> bool:
    (mask,) = re.findall(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (signum - 1) & 1)


def test_a_killed_worker_is_an_error(
    documents: list[bytes], bpe: SentencePieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killing() -> Iterator[bytes]:
        yield from documents
        for worker in packing.multiprocessing.active_children():
            worker.kill()
        yield from documents

    monkeypatch.setattr(packing, "_CHUNK_DOCUMENTS", 20)
    with pytest.raises(DataError, match=r"data.workers: 2; a tokenizing process was killed"):
        pack(killing(), bpe, 0.2, tmp_path, 2)


class _Forgetful:
    """A tokenizer that knows the letters a to e alone."""

    eos_id, unk_id, vocab_size, origin = 0, 1, 10, "tokenizer.huggingface: 'letters'"

    def __init__(self, tells: bool) -> None:
        self.tells = tells

    def encode(self, data: bytes) -> list[int]:
        known = b"abcde"
        ids = [2 + known.index(letter) if letter in known else self.unk_id for letter in data]
        return ids if self.tells else [number for number in ids if number != self.unk_id]


@pytest.mark.parametrize(
    ("text", "tells", "said"),
    [
        (b"abcde" * 20, True, None),
        (
            b"abcde" * 19 + b"xyz",
            True,
            r"3.1% of the tokens stand for text that tokenizer.huggingface: 'letters'",
        ),
        (b"abcde" + b"xyz" * 19, True, DataError),
        (b"abcde" * 20, False, None),
        (b"xyz" * 19, False, DataError),
        (b"a" + b"xyz" * 190, False, DataError),
    ],
)
def test_a_tokenizer_that_does_not_know_the_text(text: bytes, tells: bool, said: Any, tmp_path: Path) -> None:
    documents = [text + b"e" * number if tells else text for number in range(3)]
    if said is DataError:
        with pytest.raises(DataError, match=r"'letters'.*does not know.*tokenizer.vocab_size alone"):
            pack(documents, _Forgetful(tells), 0.2, tmp_path, 1)
        return
    statistics = pack([text], _Forgetful(tells), 0.2, tmp_path, 1)
    warning = check_known(statistics.values(), _Forgetful.origin)
    assert warning is None if said is None else re.match(said, str(warning))


def test_a_corpus_that_nobody_knows_is_not_tokenized_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while read < 200:
            read += 1
            yield b"xyz" * 200_000

    monkeypatch.setattr(packing, "_JUDGED_BYTES", 4 << 20)
    with pytest.raises(DataError, match="does not know"):
        pack(endless(), _Forgetful(True), 0.2, tmp_path, 1)
    assert read < 20
