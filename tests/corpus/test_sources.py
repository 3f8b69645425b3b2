"""Every kind of source, memory-mapped and streaming: the same documents, byte for byte."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ligo_dist.corpus import DataSource, find_source, text_files
from ligo_dist.runtime.errors import DataError

TEXTS = [
    "plain\n",
    "  \u010de\u0161tina \u2581 \u6f22\r\n\0",
    "",
    "<s> third </s>",
    "\U0001f469\u200d\U0001f467",
]
BYTES = [text.encode() for text in TEXTS]
KINDS = [
    "text",
    "json",
    "parquet",
    "parquet binary",
    "arrow",
    "hub",
    "hub saved",
    "hub saved splits",
    "stdlib",
]


def _write_table(path: Path, column: str, values: list[Any]) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"number": range(len(values)), column: values}), path)


def _make(kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DataSource, list[bytes]]:
    """A source of that kind and what must come out of it."""
    if kind in ("text", "stdlib"):
        documents = [*BYTES[:2], b"\xff\x80\xfe\r\n", *BYTES[3:]]
        for number, document in enumerate(documents):
            (directory / f"{number}.py").write_bytes(document)
        (directory / "site-packages").mkdir()
        (directory / "site-packages" / "other.py").write_text("not ours")
        monkeypatch.setattr(text_files.sysconfig, "get_path", lambda name: str(directory))
        return find_source(kind, [f"{directory}/*.py"]), documents
    if kind == "json":
        rows = "".join(json.dumps({"id": 1, "body": text}) + "\n" for text in TEXTS)
        (directory / "a.jsonl").write_text(rows)
        return find_source("json", [str(directory / "a.jsonl")], text_column="body"), BYTES
    if kind.startswith("parquet"):
        values = [b"\xff\x00", *BYTES] if "binary" in kind else TEXTS
        _write_table(directory / "a.parquet", "body", values)
        expected = [value if isinstance(value, bytes) else value.encode() for value in values]
        return find_source("parquet", [f"{directory}/*.parquet"], text_column="body"), expected
    dataset = datasets.Dataset.from_dict({"number": range(len(TEXTS)), "text": TEXTS})
    if kind == "arrow":
        dataset.save_to_disk(directory / "saved")
        return find_source("arrow", [f"{directory}/saved/*.arrow"]), BYTES
    if kind == "hub":
        (directory / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        return find_source("hub", [], name=str(directory)), BYTES
    saved = datasets.DatasetDict(train=dataset) if kind == "hub saved splits" else dataset
    saved.save_to_disk(directory / "saved")
    return find_source("hub", [], name=str(directory / "saved")), BYTES


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streaming"])
@pytest.mark.parametrize("kind", KINDS)
def test_documents_come_out_as_they_are(
    kind: str, streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    source, expected = _make(kind, tmp_path / "source", monkeypatch)
    documents = source.open(streaming, tmp_path / "arrow")
    assert list(documents) == expected
    assert list(documents) == expected  # again, from the start
    assert documents.count == (None if streaming else len(expected))


@pytest.mark.parametrize("streaming", [False, True])
def test_max_documents(streaming: bool, text_dir: Path, documents: list[bytes], tmp_path: Path) -> None:
    source = find_source("text", [f"{text_dir}/*.txt"], max_documents=7)
    assert list(source.open(streaming, tmp_path / "copy")) == documents[:7]
    assert not (tmp_path / "copy").exists(), "no copy of the rest"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["text", "json", "parquet"])
def test_a_part_of_each_file(kind: str, streaming: bool, tmp_path: Path) -> None:
    """Of a corpus that is too large; as many bytes of each, whatever the order of names."""
    for name in "abc":
        texts = [f"{name}{number:09}" for number in range(300)]
        path = tmp_path / f"{name}.data"
        if kind == "parquet":
            _write_table(path, "text", texts)
        else:
            lines = texts if kind == "text" else [json.dumps({"text": text}) for text in texts]
            path.write_text("\n".join(lines))
    source = find_source(kind, [f"{tmp_path}/*.data"], document="line")
    documents = source.open(streaming, tmp_path / "arrow")
    part = [text.decode() for text in documents.spread(300)]
    assert part == [f"{name}{number:09}" for name in "abc" for number in range(10)]
    assert list(documents.spread(1 << 20)) == list(documents)


def test_a_changed_file_is_another_corpus_and_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    before = find_source("text", [str(path)]).identity()
    assert before == find_source("text", [str(path)]).identity()
    stat = path.stat()
    path.write_text("after!")  # as long as before
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert find_source("text", [str(path)]).identity() != before


@pytest.mark.parametrize(
    "changes",
    [{"document": "line"}, {"max_documents": 3}, {"kind": "json"}, {"kind": "json", "text_column": "b"}],
)
def test_identity_covers_the_settings(text_dir: Path, changes: dict[str, Any]) -> None:
    files = [f"{text_dir}/*.txt"]
    first = find_source("text", files).identity()
    assert first != find_source(**({"kind": "text", "files": files} | changes)).identity()
    assert "python" in find_source("stdlib", []).identity()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_column_is_named(streaming: bool, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "id": 1}\n')
    source = find_source("json", [str(tmp_path / "a.jsonl")], text_column="texts")
    message = (
        r"data.text_column: 'texts' is no column of data.files: .*; did you mean 'text'\?; columns: id, text"
    )
    with pytest.raises(DataError, match=message):
        list(source.open(streaming, tmp_path / "arrow"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_without_text_is_refused(streaming: bool, tmp_path: Path) -> None:
    _write_table(tmp_path / "a.parquet", "text", [1, 2])
    source = find_source("parquet", [str(tmp_path / "a.parquet")])
    with pytest.raises(
        DataError, match=r"data.text_column: 'text' holds int, not text, .*source: module:FUNCTION"
    ):
        list(source.open(streaming, tmp_path / "arrow"))


def test_missing_texts_are_empty_documents(tmp_path: Path) -> None:
    _write_table(tmp_path / "a.parquet", "text", ["a", None, "b"])
    assert list(find_source("parquet", [f"{tmp_path}/a.parquet"]).open(True, tmp_path)) == [b"a", b"", b"b"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("kind", "content"), [("json", b'{"text": "a"}\n{"text": \n'), ("parquet", b"not parquet")]
)
def test_a_damaged_file_is_named(kind: str, content: bytes, streaming: bool, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"data.files: '.*damaged'.*: cannot be read as {kind}: "):
        list(find_source(kind, [str(path)]).open(streaming, tmp_path / "arrow"))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["text", "json", "hub"])
def test_a_compressed_file_that_is_cut_is_named(kind: str, streaming: bool, tmp_path: Path) -> None:
    texts = np.random.default_rng(0).integers(0, 1 << 60, 4000).tolist()
    whole = "".join(json.dumps({"text": f"{text}"}) + "\n" for text in texts)
    name = "a.csv.gz" if kind == "hub" else "a.gz"  # which `datasets` reads, not this project
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / name
    path.write_bytes(gzip.compress(("text\n" + whole.replace(",", " ")).encode())[:-2000])
    source = find_source(kind, [] if kind == "hub" else [str(path)], name=str(path.parent))
    with pytest.raises(DataError, match=r"data\.(files|name): .*source"):
        list(source.open(streaming, tmp_path / "arrow"))


def test_links_to_a_saved_data_set(tmp_path: Path) -> None:
    """As the hub's own cache has them, whose files have other names."""
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    (tmp_path / "links").mkdir()
    (tmp_path / "blobs").mkdir()
    for number, path in enumerate(sorted((tmp_path / "saved").iterdir())):
        path.rename(tmp_path / "blobs" / f"{number}")
        (tmp_path / "links" / path.name).symlink_to(tmp_path / "blobs" / f"{number}")
    source = find_source("hub", [], name=str(tmp_path / "links"))
    assert list(source.open(False, tmp_path / "arrow")) == BYTES


@pytest.mark.parametrize("kind", ["text", "json", "parquet", "arrow"])
def test_files_without_a_byte_are_an_empty_corpus(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"data.files: '.*a' and 1 more: the corpus is empty"):
        find_source(kind, [f"{tmp_path}/*"])


@pytest.mark.parametrize("error", [ConnectionError("no route to host"), TimeoutError("timed out")])
def test_an_unreachable_hub_is_named(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: Any, **keywords: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    source = find_source("hub", [], name="someone/something")
    message = rf"data.name: 'someone/something': the Hugging Face hub cannot be reached \({error}\); check"
    with pytest.raises(DataError, match=message):
        source.open(True, tmp_path)
    with pytest.raises(DataError, match=message):
        source.identity()


def test_an_unknown_data_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: Any, **keywords: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("it does not exist")

    monkeypatch.setattr(datasets, "load_dataset_builder", unknown)
    with pytest.raises(
        DataError, match=r"data.name: 'nobody/nothing': no such data set, or no access to it \(it does"
    ):
        find_source("hub", [], name="nobody/nothing").open(True, tmp_path)


def test_a_hub_name_or_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.name: null; source 'hub' needs the name"):
        find_source("hub", [])
    with pytest.raises(
        DataError, match=r"data.name: '.*nowhere' is a directory without files, or does not exist"
    ):
        find_source("hub", [], name=str(tmp_path / "nowhere"))


def test_a_split_or_subset_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    directory = tmp_path / "a"
    directory.mkdir()
    (directory / "train.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r'data.name: .*cannot be read as hub: Unknown split "tran"'):
        find_source("hub", [], name=str(directory), split="tran").open(False, tmp_path / "arrow")
    with pytest.raises(DataError, match=r"data.name: .*cannot be read as hub: BuilderConfig 'sub' not found"):
        find_source("hub", [], name=str(directory), subset="sub").open(True, tmp_path / "arrow")
    saved = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]}))
    saved.save_to_disk(tmp_path / "saved")
    with pytest.raises(
        DataError, match=r"data.split: 'trian' is no split of .*; did you mean 'train'.*splits: train"
    ):
        find_source("hub", [], name=str(tmp_path / "saved"), split="trian").open(True, tmp_path / "arrow")


@pytest.fixture
def own_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a user's, with a function that yields documents and one that does not."""
    module = tmp_path / "own_source.py"
    module.write_text(
        "def paragraphs(files):\n"
        "    for path in files:\n"
        "        yield from open(path, 'rb').read().split(b'\\n\\n')\n"
        "    yield 'the end'\n"
        "def numbers(files):\n"
        "    return [1, 2]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_source", raising=False)
    return module


@pytest.mark.parametrize("streaming", [False, True])
def test_a_function_of_ones_own(tmp_path: Path, own_source: Path, streaming: bool):
    (tmp_path / "a.txt").write_bytes(b"one\n\ntwo")
    (tmp_path / "b.txt").write_bytes("drei \u00fc".encode())
    source = find_source("own_source:paragraphs", [f"{tmp_path}/*.txt"])
    documents = source.open(streaming, tmp_path / "cache")
    expected = [b"one", b"two", "drei \u00fc".encode(), b"the end"]
    assert [list(documents), list(documents)] == [expected] * 2
    before = source.identity()
    own_source.write_text(own_source.read_text() + "# changed\n")
    assert source.identity() != before
    limited = find_source("own_source:paragraphs", [f"{tmp_path}/a.txt"], max_documents=1)
    assert list(limited.open(streaming, tmp_path / "cache")) == [b"one"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_source:paragraph", "has no 'paragraph'; did you mean 'paragraphs'?"),
        ("own_sauce:x", "own_sauce cannot be imported: ModuleNotFoundError"),
        ("own_source:__name__", "is of type str, not a function that yields documents"),
    ],
)
def test_what_is_no_function_is_named(own_source: Path, name: str, said: str):
    with pytest.raises(DataError, match=re.escape(said)):
        find_source(name, [])


def test_documents_that_are_no_text_are_named(tmp_path: Path, own_source: Path):
    with pytest.raises(DataError, match="yields int, not text"):
        list(find_source("own_source:numbers", []).open(False, tmp_path / "cache"))
