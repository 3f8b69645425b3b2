"""Finding text files and reading them byte for byte."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ligo_dist.corpus import find_files, standard_library_files, text_documents, text_files
from ligo_dist.runtime.errors import DataError


def _read(path: Path, document: str) -> list[bytes]:
    return list(text_documents(str(path), document))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("file", [b"a\r\nb \n\n\n\xff\0c\n  \nd\r\n\r\n\te"]),
        ("paragraph", [b"a\r\nb ", b"\xff\0c\n  \nd", b"\te"]),
        ("line", [b"a", b"b ", b"\xff\0c", b"  ", b"d", b"\te"]),
    ],
)
def test_documents_keep_their_bytes(tmp_path: Path, document: str, expected: list[bytes]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\r\nb \n\n\n\xff\0c\n  \nd\r\n\r\n\te")
    assert _read(path, document) == expected
    compressed = tmp_path / "a.txt.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert _read(compressed, document) == expected


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\n\n\r\n")
    assert _read(tmp_path / "a.txt", "line") == _read(tmp_path / "a.txt", "paragraph") == []


def test_globs_paths_and_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "deep/x[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)

    def found(*patterns: str) -> list[str]:
        return [str(Path(path).relative_to(tmp_path)) for path in find_files(list(patterns), "text")]

    assert found("*.txt", "a.txt") == ["a.txt", "b.txt"]
    assert found("**/*.txt") == ["a.txt", "b.txt", "deep/er/c.txt", "deep/x[1].txt"]
    assert found("deep/x[1].txt") == ["deep/x[1].txt"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([], r"data.files: \[\] names no file; source 'text' needs at least one path or glob"),
        (["corpsu.txt"], "data.files: no such file: 'corpsu.txt' .*; did you mean 'corpus.txt'"),
        (["nowhere/corpus.txt"], r"data.files: no such file: 'nowhere/corpus.txt' \(from .*\)$"),
        (["*.jsonl"], r"data.files: no file matches '\*.jsonl'"),
        (["folder"], "data.files: 'folder' is a directory; name its files"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patterns: list[str], message: str
) -> None:
    (tmp_path / "corpus.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        find_files(patterns, "text")


def test_standard_library_without_and_with_tests() -> None:
    without, with_tests = (standard_library_files(include_tests) for include_tests in (False, True))
    assert set(without) < set(with_tests)
    assert any(path.endswith("/ast.py") for path in without)
    assert any(path.endswith("/asyncio/events.py") for path in without)
    assert not any("site-packages" in path or "/tests/" in path or "/test/" in path for path in without)
    assert not any("site-packages" in path for path in with_tests)


def test_an_interpreter_without_sources_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"data.source: 'stdlib' finds no Python sources in .*source 'text'"):
        standard_library_files(False)
