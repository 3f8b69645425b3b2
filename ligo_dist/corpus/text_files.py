"""Text files: found, and cut into documents of raw bytes; and documents as lines of JSON.

The text reader that comes with `datasets` decodes, translates line ends and drops blank lines. A lossless
corpus needs the bytes as they are.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ligo_dist.corpus.unpacking import refuse_other_formats, unpacked
from ligo_dist.runtime.errors import DataError, did_you_mean


def document_line(document: bytes) -> bytes:
    """One document as a line of a JSON-lines file, line end included."""
    try:
        content = {"text": document.decode("utf-8")}
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(document).decode("ascii")}
    return json.dumps(content, ensure_ascii=False).encode("utf-8") + b"\n"


_NOT_OUR_SOURCES = {"site-packages", "dist-packages", "__pycache__"}
_TEST_PACKAGES = {"test", "tests", "idle_test"}


def find_files(patterns: list[str], source: str) -> list[str]:
    """The files that the paths and globs (`**` included) name: absolute, sorted, each once.

    Raises:
        DataError: nothing is named, a path does not exist or is a directory, a glob matches no file, or one that
            should be text is of another kind.
    """
    if not patterns:
        raise DataError(f"data.files: [] names no file; source {source!r} needs at least one path or glob")
    found: set[str] = set()
    for pattern in patterns:
        found.update(_matches(os.path.expanduser(pattern)))
    if source in ("text", "json"):
        refuse_other_formats(found, "data.files", source)
    for path in sorted(found) if source in _INDICES else ():
        index_of(source, path)
    return sorted(found)


_INDICES = {"megatron": (".bin", ".idx"), "datatrove": (".ds", ".ds.index")}
"""Ends of the names of a file of tokens, and of the index beside it."""


def index_of(source: str, path: str) -> str:
    """The index beside a file of tokens, which says where its documents are.

    Raises:
        DataError: it is not there, or the file has another name than those that have one.
    """
    tokens, index = _INDICES[source]
    if not path.endswith(tokens):
        raise DataError(
            f"data.files: {path!r} should end in {tokens}, as tokens of the source {source!r} do; their index, {index},"
            " is found beside them"
        )
    beside = path.removesuffix(tokens) + index
    if not os.path.isfile(beside):
        raise DataError(
            f"data.files: {path!r} has no index beside it ({beside!r}), which says where documents end"
        )
    return beside


def standard_library_files(include_tests: bool) -> list[str]:
    """The Python sources of the running interpreter's standard library, without what is installed beside
    it."""
    root = sysconfig.get_path("stdlib")
    left_out = _NOT_OUR_SOURCES if include_tests else _NOT_OUR_SOURCES | _TEST_PACKAGES
    files = []
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if name not in left_out]
        files += [os.path.join(directory, name) for name in names if name.endswith(".py")]
    if not files:
        raise DataError(
            f"data.source: 'stdlib' finds no Python sources in {root} (a stripped or zipped installation); "
            "name text files instead: source 'text' with data.files"
        )
    return sorted(files)


def text_documents(path: str, document: str) -> Iterator[bytes]:
    """The documents of a file: its whole text, paragraphs, or lines. See `unpacked`.

    A paragraph ends at an empty line; paragraphs and lines lose the line end that separates them from the
    next, and empty ones are left out.
    """
    split = {"file": _whole, "paragraph": _paragraphs, "line": _lines}[document]
    for _, stream in unpacked(path):
        yield from split(stream)


def _matches(pattern: str) -> list[str]:
    if os.path.isdir(pattern):
        raise DataError(
            f"data.files: {pattern!r} is a directory; name its files, e.g. {pattern.rstrip('/')}/**/*.txt"
        )
    if os.path.exists(pattern):
        return [os.path.abspath(pattern)]
    # Directories that are there are meant as they are written, with brackets in their names too.
    folder = Path(pattern).parent
    while not folder.is_dir():
        folder = folder.parent
    rest = os.path.relpath(pattern, folder)
    if glob.has_magic(rest):
        found = (folder / path for path in glob.glob(rest, root_dir=folder, recursive=True))
        files = [os.path.abspath(path) for path in found if path.is_file()]
        if not files:
            raise DataError(f"data.files: no file matches {pattern!r} (from {os.getcwd()})")
        return files
    folder = Path(pattern).parent
    beside = [str(folder / name) for name in os.listdir(folder)] if folder.is_dir() else []
    raise DataError(
        f"data.files: no such file: {pattern!r} (from {os.getcwd()}){did_you_mean(pattern, beside)}"
    )


def _whole(stream: Any) -> Iterator[bytes]:
    yield stream.read()


def _lines(stream: Any) -> Iterator[bytes]:
    for line in stream:
        if text := _without_line_end(line):
            yield text


def _paragraphs(stream: Any) -> Iterator[bytes]:
    paragraph: list[bytes] = []
    for line in stream:
        if _without_line_end(line):
            paragraph.append(line)
        elif paragraph:
            yield _without_line_end(b"".join(paragraph))
            paragraph = []
    if paragraph:
        yield _without_line_end(b"".join(paragraph))


def _without_line_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
