"""Documents from anywhere, always as bytes and always lossless.

Of JSON, Parquet and Arrow files, on the hub too, the one column with the text is read and no other; what else there is
on the hub is opened by Hugging Face `datasets`.
"""

from __future__ import annotations

import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
from huggingface_hub.utils import httpx

from ligo_dist.corpus import text_files
from ligo_dist.corpus.cache import file_states, size_and_checksum
from ligo_dist.corpus.documents import as_bytes, read_documents
from ligo_dist.corpus.hub_data import hub_files, open_dataset, select_text
from ligo_dist.corpus.tables import ROWS_AT_ONCE
from ligo_dist.corpus.unpacking import READ_FAULTS
from ligo_dist.runtime.errors import DataError
from ligo_dist.runtime.imported import ImportedLater, import_object

if TYPE_CHECKING:
    import datasets
else:
    # When it is used: with its pandas it takes a second, and ranks whose corpus is prepared have no use for it.
    datasets = ImportedLater("datasets")

_ROWS_WRITTEN, _WRITTEN_BYTES = 1000, 64 << 20
"""Of a copy: written at once, at most."""


@dataclass(frozen=True)
class DataSource:
    """What is read, found but not yet opened. `find_source` makes it.

    Attributes:
        kind: stdlib | text | json | parquet | arrow | hub, or digits | images, or `package.module:FUNCTION`.
        files: absolute paths, sorted; for `hub` and `images` those of a local directory, else none.
        name, subset, split: the data set on the hub, or a local directory.
        text_column: the column that holds the text, or the images; of no meaning for stdlib and text.
        document: file | paragraph | line; for text.
        max_documents: only the first so many are read.
        broken_lines: stop | skip; of JSON lines.
    """

    kind: str
    files: tuple[str, ...] = ()
    name: str | None = None
    subset: str | None = None
    split: str = "train"
    text_column: str = "text"
    document: str = "file"
    max_documents: int | None = None
    broken_lines: str = "stop"

    def identity(self) -> dict[str, Any]:
        """Everything that decides which documents come out and in which order, as JSON values.

        Files count with path, size and time of change; a data set on the hub with its commit.
        """
        identity: dict[str, Any] = {"kind": self.kind, "max_documents": self.max_documents}
        identity["files"] = file_states(self.files)
        if self.kind == "stdlib":
            return identity | {"python": sys.version}
        if self.kind == "text":
            return identity | {"document": self.document}
        if ":" in self.kind:
            return identity | {"code": _code_of(self.kind)}
        identity["text_column"] = self.text_column
        if self.broken_lines != "stop":
            identity["broken_lines"] = self.broken_lines
        if self.kind == "hub":
            identity |= {"name": self.name, "subset": self.subset, "split": self.split}
            if not self.files:
                with explained(self):
                    identity["commit"] = datasets.load_dataset_builder(self.name, self.subset).hash
        return identity

    def origin(self) -> str:
        """The configuration key and value that messages about this source begin with."""
        if self.kind in ("hub", "images"):
            return f"data.name: {self.name!r}"
        if self.kind in ("stdlib", "digits") or not self.files:
            return f"data.source: {self.kind!r}"
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"data.files: {self.files[0]!r}{more}"

    def is_larger(self, num_bytes: int) -> bool:
        """Whether all of its local files together are larger."""
        is_read_by_files = self.max_documents is None and ":" not in self.kind
        return is_read_by_files and sum(map(os.path.getsize, self.files)) > num_bytes

    def open(self, streaming: bool, cache_dir: Path) -> Documents:
        """Opens the documents.

        Args:
            streaming: read them one after the other from where they are, as the first few (`max_documents`) always
                are; else they are first copied to an Arrow file in `cache_dir`, which is memory-mapped and serves later
                openings.

        Raises:
            DataError: unreachable, unreadable, or without the text column.
        """
        with explained(self):
            return _open_documents(self, streaming or self.max_documents is not None, str(cache_dir))


class Documents:
    """The documents of a source in its own order, as bytes; can be iterated over any number of times.

    Attributes:
        count: how many, where it is known before reading (not of a stream).
        num_broken: lines that were left out when it was last iterated over.
        first_broken: where the first of them is, and what is wrong with it.
    """

    num_broken = 0
    first_broken = ""

    def __init__(
        self,
        source: DataSource,
        rows: Callable[[], Iterable[dict[str, Any]]],
        count: int | None,
        of_files: Callable[[float], Iterable[dict[str, Any]]] | None = None,
    ) -> None:
        self._source, self._rows, self._of_files = source, rows, of_files
        self.count = count

    def __iter__(self) -> Iterator[bytes]:
        self.num_broken = 0
        texts = self._texts(self._rows())
        if self._of_files is not None:  # which stop by themselves, and then judge what they have read
            return texts
        return itertools.islice(texts, self._source.max_documents)

    def spread(self, num_bytes: int) -> Iterator[bytes]:
        """About so many bytes of the documents, as many of each file, where the files are larger; else all of them."""
        if self._of_files is None or not self._source.is_larger(num_bytes):
            return iter(self)
        return self._texts(self._of_files(num_bytes / len(self._source.files)))

    def _texts(self, rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
        with explained(self._source):
            for row in rows:
                if row["broken"] is None:
                    yield row["text"]
                    continue
                self.num_broken += 1
                if self.num_broken == 1:
                    self.first_broken = row["broken"]


def find_source(
    kind: str,
    files: list[str],
    name: str | None = None,
    subset: str | None = None,
    split: str = "train",
    text_column: str = "text",
    document: str = "file",
    include_tests: bool = False,
    max_documents: int | None = None,
    broken_lines: str = "stop",
) -> DataSource:
    """Finds what is to be read: resolves paths and globs, and refuses what is missing or holds not one byte.

    Raises:
        DataError: names the key, the value and what would be right.
    """
    if kind == "stdlib":
        return DataSource(
            kind, tuple(text_files.standard_library_files(include_tests)), max_documents=max_documents
        )
    if ":" in kind:
        found = tuple(text_files.find_files(files, kind)) if files else ()
        _documents_of(kind)
        return DataSource(kind, found, max_documents=max_documents)
    if kind == "hub":
        if name is None:
            raise DataError("data.name: null; source 'hub' needs the name of a data set or a local directory")
        found = tuple(str(path.resolve()) for path in sorted(Path(name).rglob("*")) if path.is_file())
        if not found and (os.path.isdir(name) or name.startswith((".", "/", "~"))):
            raise DataError(f"data.name: {name!r} is a directory without files, or does not exist")
        return DataSource(kind, found, name, subset, split, text_column, "file", max_documents, broken_lines)
    source = DataSource(
        kind,
        tuple(text_files.find_files(files, kind)),
        text_column=text_column,
        document=document,
        max_documents=max_documents,
        broken_lines=broken_lines,
    )
    if not any(os.path.getsize(path) for path in source.files):
        raise DataError(f"{source.origin()}: the corpus is empty: not one byte of text")
    return source


@contextmanager
def explained(source: DataSource) -> Iterator[None]:
    """Turns what `datasets` raises while it opens or reads a source into a `DataError` that names the
    source."""
    try:
        yield
    except DataError:
        raise
    except datasets.exceptions.DatasetGenerationError as error:
        with explained(source):
            raise error.__cause__ or ValueError(_first_line(error)) from error
    except (ConnectionError, TimeoutError, httpx.TransportError) as error:
        raise DataError(
            f"{source.origin()}: the Hugging Face hub cannot be reached ({_first_line(error)}); check the "
            "network, or download the data set elsewhere and give its directory as data.name"
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"{source.origin()}: no such data set, or no access to it ({_first_line(error)})"
        ) from error
    except (
        OSError, ValueError, KeyError, TypeError, RuntimeError, StopIteration,
        datasets.exceptions.DatasetsError, pyarrow.ArrowException, *READ_FAULTS,
    ) as error:  # fmt: skip
        cause = error.__cause__ or error
        raise DataError(
            f"{source.origin()}: cannot be read as {source.kind}: {_first_line(cause)}"
        ) from error


def _open_documents(source: DataSource, streaming: bool, cache_dir: str) -> Documents:
    """Where they are, or as a copy of the documents (alone) in `cache_dir`; what a function yields is never copied."""
    if ":" in source.kind:
        return Documents(source, partial(_rows_of_function, source), None)
    read, key = source, "data.files"
    if source.kind == "hub":
        found, key = hub_files(source, streaming), source.origin()
        if found is None:
            dataset = select_text(open_dataset(source, streaming, cache_dir), source)
            count = len(dataset) if isinstance(dataset, datasets.Dataset) else None
            return Documents(source, partial(_texts_of, dataset, source), count)
        read = found
    arguments: dict[str, Any] = {
        "files": read.files,  # not a list: `datasets` would take each file for a corpus of its own
        "kind": read.kind,
        "document": read.document,
        "column": read.text_column,
        "broken_lines": read.broken_lines,
        "max_documents": read.max_documents,
        "key": key,
    }

    def of_files(bytes_per_file: float) -> Iterator[dict[str, Any]]:
        return read_documents(**arguments, bytes_per_file=bytes_per_file)

    if streaming:
        return Documents(source, partial(read_documents, **arguments), None, of_files)
    dataset = datasets.Dataset.from_generator(
        read_documents,
        features=datasets.Features(
            {"text": datasets.Value("large_binary"), "broken": datasets.Value("string")}
        ),
        gen_kwargs=arguments,
        cache_dir=cache_dir,
        writer_batch_size=_rows_to_write(read),
    )
    return Documents(source, partial(_rows_of, dataset), len(dataset), of_files)


def _rows_to_write(source: DataSource) -> int:
    """How many documents are held until they are written: few where each may be as large as a file."""
    if source.document != "file" or source.kind not in ("stdlib", "text"):
        return _ROWS_WRITTEN
    largest = max(map(os.path.getsize, source.files))
    return max(1, min(_ROWS_WRITTEN, _WRITTEN_BYTES // max(1, largest)))


def _documents_of(address: str) -> Callable[[list[str]], Iterable[bytes | str]]:
    """A user's own function that yields documents."""
    function = import_object(address, "data.source: function", DataError)
    if not callable(function):
        kind = type(function).__name__
        raise DataError(f"data.source: {address!r} is of type {kind}, not a function that yields documents")
    return function


def _code_of(address: str) -> str:
    """Tells one state of a user's module from another."""
    module = inspect.getmodule(_documents_of(address))
    path = getattr(module, "__file__", None)
    return address if path is None else str(size_and_checksum(Path(path))["sha256"])


def _rows_of_function(source: DataSource) -> Iterator[dict[str, Any]]:
    for document in _documents_of(source.kind)(list(source.files)):
        if not isinstance(document, bytes | str):
            raise DataError(f"data.source: {source.kind!r} yields {type(document).__name__}, not text")
        yield {"text": as_bytes(document, source.kind, source.origin()), "broken": None}


def _rows_of(dataset: Any) -> Iterator[dict[str, Any]]:
    """Rows as they were written; a few at once are far faster to find than each by itself, and those of a memory map
    are copied one by one."""
    if isinstance(dataset, datasets.Dataset):
        for table in dataset.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
            for values in zip(*table.columns, strict=True):
                yield {name: value.as_py() for name, value in zip(table.column_names, values, strict=True)}
        return
    for rows in dataset.iter(batch_size=ROWS_AT_ONCE):
        for values in zip(*rows.values(), strict=True):
            yield dict(zip(rows, values, strict=True))


def _texts_of(dataset: Any, source: DataSource) -> Iterator[dict[str, Any]]:
    """The same of what `datasets` has opened."""
    for row in _rows_of(dataset):
        text = as_bytes(row[source.text_column], source.text_column, source.origin())
        yield {"text": text, "broken": None}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
