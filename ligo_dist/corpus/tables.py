"""Single columns of JSON lines, Parquet and Arrow files. Whatever else a file holds is not looked at: other columns may
differ from file to file, and be of any type."""

from __future__ import annotations

import codecs
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from ligo_dist.corpus.unpacking import open_file, unpacked
from ligo_dist.runtime.errors import DataError, did_you_mean, shortened

ROWS_AT_ONCE = 64
"""Few enough for rows of large images."""

_ARROW_FILE = b"ARROW1"
"""Begins the format of files; that of streams, which `datasets` writes, has no such mark."""

_DECODER = json.JSONDecoder(strict=False)


class BrokenLine(NamedTuple):
    """A line of a JSON file that cannot be read, and what is wrong with it."""

    file: str
    number: int
    cause: str

    def __str__(self) -> str:
        return f"{self.file!r}, line {self.number}: cannot be read as json: {self.cause}"


def json_rows(path: str) -> Iterator[dict[str, Any] | BrokenLine]:
    """The objects of a file: one a line, or running over lines, or in one array. Strings in an array are objects with
    the one column `text`.

    Raises:
        ValueError: an array that cannot be read.
    """
    for name, stream in unpacked(path):
        rest = enumerate(stream, start=1)
        number, first = next((one for one in rest if one[1].strip()), (1, b""))
        first = first.removeprefix(codecs.BOM_UTF8)
        lines = itertools.chain([(number, first)], rest)
        if first.lstrip().startswith(b"["):
            yield from _array(b"\n" * (number - 1) + b"".join(line for _, line in lines))
        elif first.rstrip().endswith(b"}"):
            for number, line in lines:
                yield from _objects(name, number, line)
        else:
            yield from _spread_objects(name, list(lines))


def table_rows(kind: str, path: str, columns: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    """The values of some columns of a file, row by row.

    Args:
        kind: parquet | arrow.
        columns: keys of the configuration -> the columns that they name.

    Raises:
        DataError: the file lacks one of them.
    """
    with open_table(kind, path, list(columns.values())) as (_, schema, batches):
        for key, column in columns.items():
            if column not in schema.names:
                raise missing_column(key, column, repr(path), schema.names)
        for batch in batches:
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                part = batch.slice(start, ROWS_AT_ONCE)
                yield from zip(*(part.column(column).to_pylist() for column in columns.values()), strict=True)


def table_schema(kind: str, path: str) -> pyarrow.Schema:
    """Names and types of a file's columns, with what was written of them."""
    with open_table(kind, path, []) as (_, schema, _):
        return schema


@contextmanager
def open_table(
    kind: str, path: str, columns: list[str]
) -> Iterator[tuple[Any, pyarrow.Schema, Iterator[pyarrow.RecordBatch]]]:
    """A file, memory-mapped where it is a local one; names and types of all its columns; and batches of rows with those
    that are asked for (and are there)."""
    with _table(path) as file:
        yield file, *{"parquet": _open_parquet, "arrow": _open_arrow}[kind](file, columns)


def missing_column(key: str, column: str, where: str, columns: Iterable[str]) -> DataError:
    """Says which columns there are."""
    return DataError(
        f"data.{key}: {column!r} is no column of {where}{did_you_mean(column, columns)}; columns: "
        f"{shortened(sorted(columns))}"
    )


def _array(content: bytes) -> Iterator[dict[str, Any]]:
    for value in _DECODER.decode(content.decode()):
        yield _as_object({"text": value} if isinstance(value, str) else value)


def _objects(name: str, number: int, line: bytes) -> Iterator[dict[str, Any] | BrokenLine]:
    try:
        for value in _values(line.decode()):
            yield _as_object(value)
    except json.JSONDecodeError as error:
        yield BrokenLine(name, number, f"{error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        yield BrokenLine(name, number, str(error))


def _spread_objects(name: str, lines: list[tuple[int, bytes]]) -> Iterator[dict[str, Any] | BrokenLine]:
    """Objects that run over lines; or, where the whole is none of these, lines of which the first is broken."""
    try:
        values = list(map(_as_object, _values(b"".join(line for _, line in lines).decode())))
    except (ValueError, RecursionError):
        for number, line in lines:
            yield from _objects(name, number, line)
    else:
        yield from values


def _values(text: str) -> Iterator[Any]:
    """The JSON values of a text, with white space between them or nothing."""
    text, position = text.strip(), 0
    while position < len(text):
        value, position = _DECODER.raw_decode(text, position)
        yield value
        while text[position : position + 1].isspace():
            position += 1


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__} in the place of an object")
    return value


@contextmanager
def _table(path: str) -> Iterator[Any]:
    """Local files are memory-mapped, so that nothing but the columns asked for is read."""
    if os.path.exists(path):
        with pyarrow.memory_map(path) as file:
            yield file
    else:
        with open_file(path) as file:
            yield file


def _open_parquet(file: Any, columns: list[str]) -> tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]:
    table = pyarrow.parquet.ParquetFile(file)
    return table.schema_arrow, table.iter_batches(ROWS_AT_ONCE, columns=columns)


def _open_arrow(file: Any, columns: list[str]) -> tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]:
    is_file = bytes(file.read(len(_ARROW_FILE))) == _ARROW_FILE
    open_table = pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream
    file.seek(0)
    schema = open_table(file).schema
    wanted = [schema.get_field_index(column) for column in columns if column in schema.names]
    file.seek(0)
    table = open_table(file, options=pyarrow.ipc.IpcReadOptions(included_fields=wanted))
    if is_file:
        return schema, map(table.get_batch, range(table.num_record_batches))
    return schema, iter(table)
