"""The documents of files, one after the other, as bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ligo_dist.corpus.tables import BrokenLine, json_rows, missing_column, table_rows
from ligo_dist.corpus.text_files import text_documents
from ligo_dist.corpus.unpacking import read_faults
from ligo_dist.runtime.errors import DataError

_T = TypeVar("_T")

_FIRST_ROWS = 10_000
"""A JSON file may leave a column out of a row; one of these has to have it."""

_JUDGED_BYTES = 64 << 20
"""So much of a corpus decides whether it is text."""

_NO_TEXT = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b")) + b"\x7f"
"""Characters that texts have none of, or few."""


def read_documents(
    files: Iterable[str],
    kind: str,
    document: str,
    column: str,
    broken_lines: str,
    max_documents: int | None,
    key: str,
    bytes_per_file: float = math.inf,
) -> Iterator[dict[str, Any]]:
    """The documents of files as rows: `text`, bytes, and `broken`, None; or, of a broken line that is to be skipped,
    None and what is wrong.

    Args:
        kind: stdlib | text | json | parquet | arrow.
        max_documents: no more than so many; broken lines are none.
        key: that messages begin with.
        bytes_per_file: no further document of a file that has given so much.

    Raises:
        DataError: a file that cannot be read, or lacks the column, with its name; a column that holds no text; bytes
            that are no text, in most of the corpus.
    """
    if kind in ("stdlib", "text"):
        found: Iterator[tuple[str, Any]] = _of_texts(files, document, key, bytes_per_file)
    elif kind == "json":
        found = _of_json(files, column, broken_lines, key, bytes_per_file)
    else:
        found = _of_tables(files, kind, column, key, bytes_per_file)
    count = 0
    judge = _Judge(key)
    for path, value in found:
        if isinstance(value, BrokenLine):
            yield {"text": None, "broken": str(value)}
            continue
        if count == max_documents:
            break
        count += 1
        text = as_bytes(value, column, path)
        judge.hear(path, text)
        yield {"text": text, "broken": None}
    judge.decide()


def as_bytes(value: Any, column: str, where: str) -> bytes:
    """What stands in the text column; nothing counts as an empty document."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    raise DataError(
        f"data.text_column: {column!r} holds {type(value).__name__}, not text, in {where}; a function of yours can make"
        " text of it (data.source: module:FUNCTION)"
    )


def _of_texts(
    files: Iterable[str], document: str, key: str, bytes_per_file: float
) -> Iterator[tuple[str, bytes]]:
    for path in files:
        with read_faults(key, path):
            for text in _first(text_documents(path, document), bytes_per_file, len):
                yield path, text


def _of_tables(
    files: Iterable[str], kind: str, column: str, key: str, bytes_per_file: float
) -> Iterator[tuple[str, Any]]:
    for path in files:
        with read_faults(key, path, kind):
            values = (value for (value,) in table_rows(kind, path, {"text_column": column}))
            for value in _first(values, bytes_per_file, _size):
                yield path, value


def _of_json(
    files: Iterable[str], column: str, broken_lines: str, key: str, bytes_per_file: float
) -> Iterator[tuple[str, Any]]:
    names: set[str] = set()
    without = 0
    path = ""
    for path in files:
        with read_faults(key, path, "json"):
            for row in _first(json_rows(path), bytes_per_file, lambda row: _size_of_row(row, column)):
                if isinstance(row, BrokenLine):
                    if broken_lines == "stop":
                        right = "data.broken_lines: skip leaves such lines out and counts them"
                        raise DataError(f"{key}: {row}; {right}")
                    yield path, row
                    continue
                if column not in names:
                    names.update(row)
                    without += 1
                    if column not in names and without >= _FIRST_ROWS:
                        raise missing_column(
                            "text_column", column, f"the first {without} rows of {key}", names
                        )
                yield path, row.get(column)
    if names and column not in names:
        raise missing_column("text_column", column, f"{key}: {path!r}", names)


def _first(values: Iterable[_T], num_bytes: float, size: Callable[[_T], int]) -> Iterator[_T]:
    """The values up to the one that makes so many bytes full."""
    for value in values:
        yield value
        num_bytes -= size(value)
        if num_bytes <= 0:
            return


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else 0


def _size_of_row(row: dict[str, Any] | BrokenLine, column: str) -> int:
    return 0 if isinstance(row, BrokenLine) else _size(row.get(column))


class _Judge:
    """Whether bytes are text at all. Those of unknown encodings, of encrypted and packed files are trained on like any
    other, and come to nothing."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._heard = self._text = 0
        self._first: str | None = None

    def hear(self, path: str, document: bytes) -> None:
        """Counts what decodes."""
        if self._heard >= _JUDGED_BYTES:
            return
        document = document[:_JUDGED_BYTES]
        text = len(document.decode("utf-8", "ignore").encode().translate(None, _NO_TEXT))
        if 2 * text < len(document):
            self._first = self._first or path
        self._heard += len(document)
        self._text += text
        if self._heard >= _JUDGED_BYTES:
            self.decide()

    def decide(self) -> None:
        """Raises DataError where less than half of the bytes are text."""
        if 2 * self._text < self._heard:
            raise DataError(
                f"{self._key}: {self._first!r}: holds no text: {self._heard - self._text:,} of the first "
                f"{self._heard:,} bytes of the corpus are neither UTF-8 nor UTF-16; convert texts in other encodings "
                "to UTF-8 first, and leave out what is no text"
            )
