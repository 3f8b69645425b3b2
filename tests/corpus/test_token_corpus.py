"""Tokens that exist: files written here from the formats' descriptions, and what is read of them."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ligo_dist.config import config_from
from ligo_dist.corpus import (
    SentencePieceTokenizer,
    TextCorpus,
    TokenCorpus,
    TokenSource,
    build_corpus,
    describe_prepared,
    prepare_tokens,
    token_corpus,
)
from ligo_dist.runtime.errors import DataError

EOS, PIECES = 2, 350
Documents = list[list[int]]


@pytest.fixture(scope="module")
def tokens() -> Documents:
    """All different, some of them empty, all others ended by the end-of-text token."""
    random = np.random.default_rng(3)
    lengths = [0, 1, 300, *random.integers(1, 40, 60).tolist(), 0]
    return [[*random.integers(3, PIECES, length).tolist(), EOS] if length else [] for length in lengths]


def write_megatron(
    path: Path, documents: Documents, code: int = 8, *, halves: bool = False, modes: bool = False, **head: Any
) -> str:
    """`.bin` and `.idx`; with `halves` a document is two sequences, where it has two tokens."""
    dtype = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}.get(code, "float32")
    sequences, bounds = [], [0]
    for document in documents:
        cut = len(document) // 2 if halves else 0
        sequences += [document[:cut], document[cut:]] if cut else [document]
        bounds.append(len(sequences))
    path.write_bytes(b"".join(np.array(sequence, dtype=dtype).tobytes() for sequence in sequences))
    places = np.cumsum([0, *map(len, sequences)])[:-1] * np.dtype(dtype).itemsize
    index = head.get("mark", b"MMIDIDX\x00\x00") + struct.pack("<Q", head.get("version", 1))
    index += struct.pack("<BQQ", code, len(sequences), len(bounds))
    index += b"".join(struct.pack("<i", len(sequence)) for sequence in sequences)
    index += b"".join(struct.pack("<q", place) for place in places)
    index += b"".join(struct.pack("<q", bound) for bound in bounds)
    index += bytes(len(sequences)) if modes else b""
    path.with_suffix(".idx").write_bytes(index[: head.get("length", len(index))])
    return str(path)


def write_datatrove(path: Path, documents: Documents, width: int = 2, *, metadata: bool = True) -> str:
    letter = {2: "H", 4: "I"}[width]
    path.write_bytes(b"".join(struct.pack(f"<{len(one)}{letter}", *one) for one in documents))
    ends = np.cumsum([len(one) for one in documents]).tolist()
    Path(f"{path}.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    if metadata:
        Path(f"{path}.metadata").write_text(f"some/tokenizer|{width}\n{ends[-1]}\n{ends[-1] / 1e3:.1f}K")
    return str(path)


def write_table(path: Path, documents: Documents, how: str) -> str:
    lists = pyarrow.large_list(pyarrow.int64()) if "large" in how else pyarrow.list_(pyarrow.int32())
    values: list[Any] = [one or (None if "null" in how else []) for one in documents]
    table = pyarrow.table({"number": range(len(documents)), "ids": pyarrow.array(values, lists)})
    if "parquet" in how:
        pyarrow.parquet.write_table(table, path, row_group_size=7)
        return str(path)
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd" if "packed" in how else None)
    opener = pyarrow.ipc.new_stream if "stream" in how else pyarrow.ipc.new_file
    with opener(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=7)
    return str(path)


def save_dataset(path: Path, documents: Documents) -> str:
    datasets.Dataset.from_dict({"ids": documents}).save_to_disk(path)
    (file,) = path.glob("*.arrow")
    return str(file)


FORMATS: dict[str, Callable[[Path, Documents], str]] = {
    "megatron uint16": lambda path, documents: write_megatron(path.with_suffix(".bin"), documents),
    "megatron int16": lambda path, documents: write_megatron(path.with_suffix(".bin"), documents, 3),
    "megatron int32": lambda path, documents: write_megatron(
        path.with_suffix(".bin"), documents, 4, halves=True
    ),
    "megatron int64": lambda path, documents: write_megatron(
        path.with_suffix(".bin"), documents, 5, modes=True
    ),
    "datatrove of 2": lambda path, documents: write_datatrove(path.with_suffix(".ds"), documents),
    "datatrove of 4": lambda path, documents: write_datatrove(
        path.with_suffix(".ds"), documents, 4, metadata=False
    ),
    "arrow file": lambda path, documents: write_table(path, documents, "file"),
    "arrow stream": lambda path, documents: write_table(path, documents, "stream null"),
    "arrow large": lambda path, documents: write_table(path, documents, "file large"),
    "arrow saved": save_dataset,
    "arrow packed": lambda path, documents: write_table(path, documents, "file packed"),
    "parquet": lambda path, documents: write_table(path, documents, "parquet null"),
}
COPIED = ("arrow packed", "parquet")


def source_of(kind: str, files: list[str], **more: Any) -> TokenSource:
    column = "ids" if kind in ("arrow", "parquet") else None
    return TokenSource.find(kind, files, column, **more)


def prepare(source: TokenSource, tokenizer: Any, cache: Path, fraction: float = 0.3) -> TokenCorpus:
    return prepare_tokens(source, fraction, tokenizer, 2, cache, show_progress=False)


def read_split(corpus: TokenCorpus, split: str) -> Documents:
    """The documents of a split, out of its blocks and its ends."""
    ends = corpus.ends(split).tolist()
    flat = corpus.blocks(split, 1).read(range(ends[-1]))[:, 0].tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_corpus(
    name: str, tokens: Documents, bpe: SentencePieceTokenizer, tmp_path: Path
) -> None:
    kind, half = name.split()[0], len(tokens) // 2
    files = [FORMATS[name](tmp_path / "a", tokens[:half]), FORMATS[name](tmp_path / "b", tokens[half:])]
    corpus = prepare(source_of(kind, files), bpe, tmp_path / "cache")
    splits = {split: read_split(corpus, split) for split in ("train", "validation")}
    there = [document for document in tokens if document]
    for documents in splits.values():
        assert documents == [document for document in there if document in documents], "in their order"
    assert sorted(chain(*splits.values())) == sorted(there), "each on one side"
    assert 0.5 < len(splits["train"]) / len(there) < 0.9
    assert [corpus.statistics[split].documents for split in splits] == [len(one) for one in splits.values()]
    flat = list(chain(*splits["train"]))
    expected = [flat[start : start + 16] for start in range(0, len(flat) - 15, 16)]
    blocks = corpus.blocks("train", 16)
    assert blocks.read([*range(len(blocks))][::-1]).tolist() == expected[::-1]
    assert (corpus.directory / "tokens.bin").exists() == (name in COPIED), "in place, unless it is compressed"
    plain = write_megatron(tmp_path / "plain.bin", tokens)
    assert prepare(source_of("megatron", [plain]), bpe, tmp_path / "cache").checksum() == corpus.checksum()


def test_small_ids_in_single_bytes(tmp_path: Path, bpe: SentencePieceTokenizer) -> None:
    documents = [[number, number + 1, EOS] for number in range(3, 120)]
    sums = {
        prepare(
            source_of("megatron", [write_megatron(tmp_path / f"{code}.bin", documents, code)]),
            bpe,
            tmp_path / "cache",
        ).checksum()
        for code in (1, 2, 8)
    }
    assert len(sums) == 1


def test_the_first_documents(tokens: Documents, bpe: SentencePieceTokenizer, tmp_path: Path) -> None:
    files = [write_table(tmp_path / name, tokens, "parquet") for name in ("a", "b")]
    corpus = prepare(source_of("parquet", files, max_documents=20), bpe, tmp_path / "cache")
    found = read_split(corpus, "train") + read_split(corpus, "validation")
    assert sorted(found) == sorted(tokens[1:21])


def cached(tokens: Documents, directory: Path, write: Callable[[Path], str] | None = None) -> dict[str, Any]:
    """A configuration of them, with BERT's tokenizer."""
    path = directory / "a.bin"
    return {
        "run_dir": "runs/x",
        "model": {"family": "gpt2", "max_positions": 64},
        "stages": [
            {
                "name": "small",
                "size": {"layers": 1, "width": 16, "heads": 2},
                "train": {"steps": 1, "batch_size": 1, "micro_batch_size": 1},
            }
        ],
        "data": {
            "source": "megatron",
            "files": [write(path) if write else write_megatron(path, tokens)],
            "validation_fraction": 0.3,
            "sequence_length": 16,
            "cache_dir": str(directory / "cache"),
        },
    }


def test_a_corpus_of_a_configuration(
    tokens: Documents, bpe: SentencePieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared once, found again without its tokenizer, and bound to it by the fingerprint."""
    model = tmp_path / "spm.model"
    model.write_bytes(bpe.model_bytes)
    raw = {**cached(tokens, tmp_path), "tokenizer": {"file": str(model)}}
    corpus = build_corpus(config_from(raw), show_progress=False)
    assert isinstance(corpus, TextCorpus)
    train = corpus.statistics["train"]
    assert (
        f"{train.documents} documents, {train.tokens:,} tokens to train on, where they are"
        in corpus.description
    )
    (told,) = describe_prepared(config_from(raw), {"": len(corpus.train)})
    assert f"{train.tokens:,} tokens to train on, 1.00 epochs" in told
    assert corpus.attended is None
    raw["data"]["separate_documents"] = True
    apart = build_corpus(config_from(raw), show_progress=False)
    assert apart.fingerprint == corpus.fingerprint
    assert 16 < apart.attended < 256
    batch = apart.train.read([0], [0])
    starts = batch["position_ids"][0] == 0
    assert starts[1:].equal((batch["input_ids"][0] == EOS)[:-1]), "each document ends in one"
    (corpus.directory / "index.json").read_text()
    monkeypatch.setattr(token_corpus, "prepare_tokens", None)  # nothing is prepared again
    model.unlink()
    found = build_corpus(config_from(raw), show_progress=False)
    assert found.fingerprint == corpus.fingerprint
    assert "prepared before: tokenizer.file" in found.description
    os.utime(raw["data"]["files"][0])
    with pytest.raises(DataError, match="the tokens have changed since"):
        build_corpus(config_from(raw), show_progress=False)


def test_documents_of_one_token_cannot_be_kept_apart(bpe: SentencePieceTokenizer, tmp_path: Path) -> None:
    (tmp_path / "spm.model").write_bytes(bpe.model_bytes)
    raw = {
        **cached([[number] for number in range(3, 90)], tmp_path),
        "tokenizer": {"file": f"{tmp_path}/spm.model"},
    }
    raw["data"]["separate_documents"] = True
    with pytest.raises(
        DataError, match="separate_documents: true leaves nothing to predict from in the train split"
    ):
        build_corpus(config_from(raw), show_progress=False)


def test_another_tokenizer_is_another_corpus(
    tokens: Documents, bpe: SentencePieceTokenizer, tmp_path: Path
) -> None:
    """Nothing in the tokens says which one made them."""
    source = source_of("megatron", [write_megatron(tmp_path / "a.bin", tokens)])
    one = prepare(source, bpe, tmp_path / "cache")
    monogram = SentencePieceTokenizer(bpe.model_bytes)
    monogram.fingerprint = "another"
    other = prepare(source, monogram, tmp_path / "cache")
    assert one.checksum() != other.checksum()
    assert one.directory != other.directory
    index = json.loads((one.directory / "index.json").read_text())
    assert index["tokenizer"]["sha256"] == index["inputs"]["tokenizer"] == bpe.fingerprint


def test_tokens_without_an_end_are_told(
    tokens: Documents, bpe: SentencePieceTokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endless = [document[:-1] for document in tokens]
    prepare(source_of("megatron", [write_megatron(tmp_path / "a.bin", endless)]), bpe, tmp_path / "cache")
    assert "no document ends in the end-of-text token 2 of the tokenizer" in caplog.text


def _megatron(**head: Any) -> Callable[[Path, Documents], tuple[str, str]]:
    return lambda path, documents: ("megatron", write_megatron(path / "a.bin", documents, **head))


def _without_index(path: Path, documents: Documents) -> tuple[str, str]:
    file = write_datatrove(path / "a.ds", documents)
    Path(f"{file}.index").unlink()
    return "datatrove", file


def _shorter(path: Path, documents: Documents) -> tuple[str, str]:
    file = write_datatrove(path / "a.ds", documents)
    Path(file).write_bytes(Path(file).read_bytes()[:-2])
    return "datatrove", file


def _with_a_mask(path: Path, documents: Documents) -> tuple[str, str]:
    file = write_datatrove(path / "a.ds", documents)
    Path(f"{file}.loss").write_bytes(b"")
    return "datatrove", file


def _of_text(path: Path, documents: Documents) -> tuple[str, str]:
    pyarrow.parquet.write_table(pyarrow.table({"ids": ["some text"]}), path / "a.parquet")
    return "parquet", str(path / "a.parquet")


def _other_column(path: Path, documents: Documents) -> tuple[str, str]:
    pyarrow.parquet.write_table(pyarrow.table({"idss": [[1]]}), path / "a.parquet")
    return "parquet", str(path / "a.parquet")


def _with_nulls(path: Path, documents: Documents) -> tuple[str, str]:
    pyarrow.parquet.write_table(pyarrow.table({"ids": [[1, None]]}), path / "a.parquet")
    return "parquet", str(path / "a.parquet")


WRONG: dict[str, tuple[Callable[[Path, Documents], tuple[str, str]], str]] = {
    "mark": (_megatron(mark=b"SOMETHING"), r"a.idx is no index of Megatron-LM"),
    "old": (
        _megatron(mark=b"TNTIDX\0\0\0"),
        "of the old implementations `cached` and `lazy`; write it anew with `mmap`",
    ),
    "version": (_megatron(version=2), "is of version 2; 1 is known"),
    "dtype": (_megatron(code=7), r"says the dtype 7, which is none of token ids: \[1, 2, 3, 4, 5, 8\]"),
    "cut off": (_megatron(length=500), "is cut off"),
    "no index": (
        _without_index,
        r"a.ds' has no index beside it \(.*a.ds.index'\), which says where documents end",
    ),
    "another size": (_shorter, "has .* bytes, and its index says .* tokens"),
    "loss mask": (_with_a_mask, "says which tokens are not to be predicted, which is not followed"),
    "text": (_of_text, r"data.token_column: 'ids' holds string, not lists of token ids \(list<int32>\)"),
    "column": (_other_column, "data.token_column: 'ids' is no column of .*; did you mean 'idss'"),
    "null": (_with_nulls, "data.token_column: 'ids' holds null in the place of a token id"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_named(
    name: str, tokens: Documents, bpe: SentencePieceTokenizer, tmp_path: Path
) -> None:
    write, message = WRONG[name]
    kind, file = write(tmp_path, tokens)
    with pytest.raises(DataError, match=message) as caught:
        prepare(source_of(kind, [file]), bpe, tmp_path / "cache")
    assert os.path.basename(file) in str(caught.value)
    assert str(caught.value).startswith("data.")


@pytest.mark.parametrize(("kind", "wrong"), [("megatron", -1), ("megatron", PIECES), ("parquet", PIECES)])
def test_ids_that_the_tokenizer_does_not_have(
    kind: str, wrong: int, bpe: SentencePieceTokenizer, tmp_path: Path
) -> None:
    documents = [[5, 6, EOS], [7, wrong, EOS], [8, EOS]]
    file = (
        write_megatron(tmp_path / "a.bin", documents, 4)
        if kind == "megatron"
        else write_table(tmp_path / "a", documents, kind)
    )
    message = (
        rf"has 350 pieces, and there is a token of the id {wrong}.*; name the tokenizer that made the tokens"
    )
    with pytest.raises(DataError, match=message):
        prepare(source_of(kind, [file]), bpe, tmp_path / "cache")


def test_a_corpus_with_nothing_for_one_split(bpe: SentencePieceTokenizer, tmp_path: Path) -> None:
    one = source_of("megatron", [write_megatron(tmp_path / "a.bin", [[5, 6, EOS]])])
    with pytest.raises(
        DataError, match=r"data.validation_fraction: 0.001 of 1 documents leaves the validation split"
    ):
        prepare(one, bpe, tmp_path / "cache", 0.001)
    none = source_of("megatron", [write_megatron(tmp_path / "b.bin", [[], []])])
    with pytest.raises(DataError, match="the corpus is empty: not one token"):
        prepare(none, bpe, tmp_path / "cache")
    with pytest.raises(DataError, match=r"a.idx' should end in .bin"):
        source_of("megatron", [str(tmp_path / "a.idx")])
