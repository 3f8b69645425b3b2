"""Only the column with the text is read; whatever the other columns are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from ligo_dist.corpus import Documents, find_source
from ligo_dist.runtime.errors import DataError

Values = dict[str, Any]
OTHERS: dict[str, tuple[Values, Values]] = {
    "different types": ({"id": [1, 2]}, {"id": ["a", "b"]}),
    "different names": ({"id": [1, 2]}, {"url": ["a", "b"]}),
    "null in the first file": ({"id": [None, None]}, {"id": [{"deep": [1]}, None]}),
    "different structures": ({"meta": [{"a": 1}, {"a": 2}]}, {"meta": [{"b": "x"}, {"b": "y"}]}),
    "mixed in one file": ({"id": [1, 2]}, {"meta": [[1], [2]]}),
}
TABLES: dict[str, pyarrow.Array] = {
    "map": pyarrow.array([[("k", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    "large binary": pyarrow.array([b"\xff" * 1_000_000, b"\0" * 1_000_000], pyarrow.large_binary()),
    "month_day_nano_interval": pyarrow.array([(1, 2, 3), None], pyarrow.month_day_nano_interval()),
    "union": pyarrow.UnionArray.from_dense(
        pyarrow.array([0, 1], pyarrow.int8()),
        pyarrow.array([0, 0], pyarrow.int32()),
        [pyarrow.array([1]), pyarrow.array(["a"])],
    ),
    "run ends": pyarrow.RunEndEncodedArray.from_arrays([2], [7]),
    "dates": pyarrow.array([1, 2], pyarrow.date32()),
}


def _write(kind: str, path: Path, table: pyarrow.Table) -> None:
    if kind == "json":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    elif kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        new = pyarrow.ipc.new_file if "file" in kind else pyarrow.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table)


def _open(kind: str, directory: Path, streaming: bool, hub: bool = False, **more: Any) -> Documents:
    if hub:
        source = find_source("hub", [], name=str(directory), **more)
    else:
        source = find_source(kind.split()[0], [f"{directory}/*"], **more)
    return source.open(streaming, directory.parent / "arrow")


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streaming"])
@pytest.mark.parametrize("hub", [False, True], ids=["files", "hub"])
@pytest.mark.parametrize("kind", ["json", "parquet"])
@pytest.mark.parametrize("others", OTHERS)
def test_other_columns_may_differ(others: str, kind: str, hub: bool, streaming: bool, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    for number, other in enumerate(OTHERS[others]):
        texts = {"text": [f"{number} a\n\u6f22", f"{number} b"]}
        suffix = "jsonl" if kind == "json" else kind
        _write(kind, directory / f"train-{number}.{suffix}", pyarrow.table(other | texts))
    assert list(_open(kind, directory, streaming, hub)) == [
        "0 a\n\u6f22".encode(), b"0 b", "1 a\n\u6f22".encode(), b"1 b",
    ]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streaming"])
@pytest.mark.parametrize("kind", ["parquet", "arrow stream", "arrow file"])
def test_other_columns_of_any_type_are_neither_read_nor_copied(
    kind: str, streaming: bool, tmp_path: Path
) -> None:
    texts = pyarrow.array(["a", "\u6f22"])
    written = []
    (tmp_path / "data").mkdir()
    for name, values in TABLES.items():
        table = pyarrow.table({"other": values, "text": texts})
        try:
            _write(kind, tmp_path / "data" / name, table)
        except pyarrow.ArrowNotImplementedError:  # Parquet cannot hold some of them
            (tmp_path / "data" / name).unlink(missing_ok=True)
            continue
        written.append(name)
    assert {"map", "large binary", "dates"} <= set(written)
    assert list(_open(kind, tmp_path / "data", streaming)) == [b"a", "\u6f22".encode()] * len(written)
    copied = sum(path.stat().st_size for path in (tmp_path / "arrow").rglob("*") if path.is_file())
    assert copied < 100_000


@pytest.mark.parametrize(
    "texts",
    [
        pyarrow.array(["a", "b"]).dictionary_encode(),
        pyarrow.array(["a", "b"], pyarrow.large_string()),
        pyarrow.array([b"a", b"b"]),
        pyarrow.chunked_array([["a"], ["b"]]),
    ],
)
def test_every_way_to_store_a_text(texts: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for kind in ("parquet", "arrow file"):
        _write(kind, tmp_path / "data" / "a", pyarrow.table({"a.b": [1, 2], "text": texts}))
        assert list(_open(kind, tmp_path / "data", True)) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}', [b"a", b"b"]),
        (b'[{"text": "a"}, {"id": 1, "text": "b"}]', [b"a", b"b"]),
        (b'[\n"a",\n"b"\n]\n', [b"a", b"b"]),
        (b'{\n "text": "a"\n}\n{\n "text": "b"}', [b"a", b"b"]),
        (b'{"text": "a"}{"text": "b"}\n', [b"a", b"b"]),
        (b'{"text": "tab\there", "n": NaN}\n{"n": 1e999}\n{"text": null}\n', [b"tab\there", b"", b""]),
        ('{"text": "\u2028\x85 one line"}\n'.encode(), ["\u2028\x85 one line".encode()]),
        ('{"text": "\u6f22"}\n'.encode("utf-16"), ["\u6f22".encode()]),
        (gzip.compress(b'{"text": "a"}\n{"text": "b"}\n', mtime=0), [b"a", b"b"]),
        (b'{"text": "2020-01-01"}\n{"text": "2020-01-02"}\n', [b"2020-01-01", b"2020-01-02"]),
    ],
)
def test_json_as_it_is_written(content: bytes, expected: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.json").write_bytes(content)
    assert list(_open("json", tmp_path / "data", True)) == expected


BROKEN = {
    "cut off": (b'{"text": "a"}\n{"text": "b\n{"text": "c"}\n', 2, "Unterminated string"),
    "the first": (b'{"text": "a\n{"text": "b"}\n{"text": "c"}\n', 1, "Unterminated string"),
    "no UTF-8": (b'{"text": "a"}\n\n{"text": "caf\xe9"}\n{"text": "c"}\n', 3, "'utf-8' codec can't decode"),
    "no object": (b'{"text": "a"}\n{"text": "c"}\n"alone"\n', 3, "str in the place of an object"),
    "not JSON": (b'{"text": "a"}\n{"text": "c"}\n<html>\n', 3, "Expecting value"),
}


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streaming"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_line_ends_the_run_or_is_left_out_and_counted(
    case: str, streaming: bool, tmp_path: Path
) -> None:
    content, number, cause = BROKEN[case]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_bytes(b'{"text": "0"}\n')
    (tmp_path / "data" / "b.jsonl").write_bytes(content)
    place = rf"'.*b.jsonl', line {number}: cannot be read as json: {cause}"
    with pytest.raises(DataError, match=rf"data.files: {place}.*; data.broken_lines: skip leaves such"):
        list(_open("json", tmp_path / "data", streaming))
    documents = _open("json", tmp_path / "data", streaming, broken_lines="skip")
    for _ in range(2):
        assert len(list(documents)) == 3
        assert documents.num_broken == 1
        assert documents.first_broken.startswith(f"'{tmp_path}/data/b.jsonl', line {number}: ")


def test_left_out_lines_are_told_and_kept(
    tmp_path: Path, prepare: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    lines = [json.dumps({"text": f"def grow_{n}(width): return width * {n}\n" * 9}) for n in range(90)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines[:50], "<broken>", *lines[50:], "{"]))
    source = find_source("json", [str(tmp_path / "a.jsonl")], broken_lines="skip")
    sound = find_source("json", [str(tmp_path / "a.jsonl")])
    assert source.identity() != sound.identity()
    for _ in range(2):
        corpus = prepare(source=source, vocab_size=300)
        assert corpus.broken_lines == 2
        assert sum(split.documents for split in corpus.statistics.values()) == 90
    assert "2 broken line(s) left out; the first: '" in caplog.text
    assert "a.jsonl', line 51: cannot be read as json" in caplog.text


def test_a_file_without_the_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    _write("parquet", tmp_path / "data" / "a", pyarrow.table({"text": ["a"]}))
    _write("parquet", tmp_path / "data" / "b", pyarrow.table({"texts": ["a"], "id": [1]}))
    message = r"data.text_column: 'text' is no column of '.*/b'; did you mean 'texts'\?; columns: id, texts"
    with pytest.raises(DataError, match=message):
        list(_open("parquet", tmp_path / "data", True))
    columns = {f"column_{number:02}": [1] for number in range(14)}
    _write("parquet", tmp_path / "data" / "a", pyarrow.table(columns))
    with pytest.raises(DataError, match=r"columns: column_00, .*, column_09, and 4 more$"):
        list(_open("parquet", tmp_path / "data", True))


@pytest.mark.parametrize("name", ["plain", "with [brackets]", "a::b", "question?", "star*", "100% #1 {x}"])
@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streaming"])
def test_paths_are_paths(name: str, streaming: bool, tmp_path: Path) -> None:
    directory = tmp_path / name
    directory.mkdir()
    (directory / f"train-{name}.jsonl").write_text('{"text": "a"}\n')
    (directory / f"train-{name}.txt").write_text("a")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), directory / f"train-{name}.parquet")
    sources = [
        find_source(kind, [f"{pattern}.{suffix}"])
        for pattern in (f"{directory}/*", f"{directory}/train-{name}", f"{tmp_path}/**/train*")
        for kind, suffix in (("text", "txt"), ("json", "jsonl"), ("parquet", "parquet"))
    ]
    (tmp_path / "hub" / name / name).mkdir(parents=True)
    (tmp_path / "hub" / name / name / f"train-{name}.jsonl").write_text('{"text": "a"}\n')
    sources.append(find_source("hub", [], name=str(tmp_path / "hub" / name)))
    for number, source in enumerate(sources):
        assert list(source.open(streaming, tmp_path / "arrow" / str(number))) == [b"a"]


def test_data_of_the_hub_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` finds on the hub are addresses."""
    import fsspec

    for number, rows in enumerate(('{"text": "a", "id": 1}\n', '{"text": "b", "id": [2]}\n')):
        with fsspec.open(f"memory://hub/train-{number}.jsonl", "wb") as file:
            file.write(gzip.compress(rows.encode()))
    addresses = [f"memory://hub/train-{number}.jsonl" for number in range(2)]

    class Builder:
        name = "json"
        config = SimpleNamespace(data_files={"train": addresses})

    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name, subset: Builder)
    source = find_source("hub", [], name="someone/something")
    assert list(source.open(True, tmp_path)) == [b"a", b"b"]
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))
    assert list(source.open(False, tmp_path)) == [b"a", b"b"]
