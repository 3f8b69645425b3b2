"""Documents from anywhere, opened through Hugging Face `datasets`, always as bytes and always lossless."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from huggingface_hub.utils import httpx

from ligo_dist.corpus import text_files
from ligo_dist.runtime.errors import DataError, did_you_mean

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class DataSource:
    """What is read, found but not yet opened. `find_source` makes it.

    Attributes:
        kind: stdlib | text | json | parquet | arrow | hub, or digits | images.
        files: absolute paths, sorted; for `hub` and `images` those of a local directory, else none.
        name, subset, split: the data set on the hub, or a local directory.
        text_column: the column that holds the text, or the images; of no meaning for stdlib and text.
        document: file | paragraph | line; for text.
        max_documents: only the first so many are read.
    """

    kind: str
    files: tuple[str, ...] = ()
    name: str | None = None
    subset: str | None = None
    split: str = "train"
    text_column: str = "text"
    document: str = "file"
    max_documents: int | None = None

    def identity(self) -> dict[str, Any]:
        """Everything that decides which documents come out and in which order, as JSON values.

        Files count with path, size and time of change; a data set on the hub with its commit.
        """
        identity: dict[str, Any] = {"kind": self.kind, "max_documents": self.max_documents}
        identity["files"] = [[path, (stat := os.stat(path)).st_size, stat.st_mtime_ns] for path in self.files]
        if self.kind == "stdlib":
            return identity | {"python": sys.version}
        if self.kind == "text":
            return identity | {"document": self.document}
        identity["text_column"] = self.text_column
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
        if self.kind in ("stdlib", "digits"):
            return f"data.source: {self.kind!r}"
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"data.files: {self.files[0]!r}{more}"

    def open(self, streaming: bool, cache_dir: Path) -> Documents:
        """Opens the documents.

        Args:
            streaming: read them one after the other from where they are; else they are first copied to an
                Arrow file in `cache_dir`, which is memory-mapped and serves later openings.

        Raises:
            DataError: unreachable, unreadable, or without the text column.
        """
        with explained(self):
            dataset = open_dataset(self, streaming, str(cache_dir))
            column = "text" if self.kind in ("stdlib", "text") else self.text_column
            return Documents(self, _select_text(dataset, column, self), column)


class Documents:
    """The documents of a source in its own order, as bytes; can be iterated over any number of times."""

    def __init__(self, source: DataSource, dataset: Any, column: str) -> None:
        self._source, self._dataset, self._column = source, dataset, column

    @property
    def count(self) -> int | None:
        """Number of documents, where it is known before reading (not in streaming mode)."""
        if not isinstance(self._dataset, datasets.Dataset):
            return None
        limit = self._source.max_documents
        return len(self._dataset) if limit is None else min(limit, len(self._dataset))

    def __iter__(self) -> Iterator[bytes]:
        return itertools.islice(self._all(), self._source.max_documents)

    def _all(self) -> Iterator[bytes]:
        with explained(self._source):
            for rows in self._dataset.iter(batch_size=_ROWS_AT_ONCE):
                for value in rows[self._column]:
                    yield _as_bytes(value, self._column)


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
) -> DataSource:
    """Finds what is to be read: resolves paths and globs, and refuses what is missing or holds not one byte.

    Raises:
        DataError: names the key, the value and what would be right.
    """
    if kind == "stdlib":
        return DataSource(
            kind, tuple(text_files.standard_library_files(include_tests)), max_documents=max_documents
        )
    if kind == "hub":
        if name is None:
            raise DataError("data.name: null; source 'hub' needs the name of a data set or a local directory")
        found = tuple(str(path.resolve()) for path in sorted(Path(name).rglob("*")) if path.is_file())
        if not found and (os.path.isdir(name) or name.startswith((".", "/", "~"))):
            raise DataError(f"data.name: {name!r} is a directory without files, or does not exist")
        return DataSource(kind, found, name, subset, split, text_column, max_documents=max_documents)
    source = DataSource(
        kind,
        tuple(text_files.find_files(files, kind)),
        text_column=text_column,
        document=document,
        max_documents=max_documents,
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
        datasets.exceptions.DatasetsError, pyarrow.ArrowException,
    ) as error:  # fmt: skip
        cause = error.__cause__ or error
        raise DataError(
            f"{source.origin()}: cannot be read as {source.kind}: {_first_line(cause)}"
        ) from error


def open_dataset(source: DataSource, streaming: bool, cache_dir: str) -> Any:
    """A source as a data set of `datasets`: a mapping, or an iterable one where it is a stream."""
    if source.kind in ("stdlib", "text"):
        features = datasets.Features({"text": datasets.Value("large_binary")})
        arguments = {"files": list(source.files), "document": source.document}
        if streaming:
            return datasets.IterableDataset.from_generator(
                text_files.read_documents, features=features, gen_kwargs=arguments
            )
        return datasets.Dataset.from_generator(
            text_files.read_documents, features=features, gen_kwargs=arguments, cache_dir=cache_dir
        )
    if source.kind != "hub":
        return datasets.load_dataset(
            source.kind,
            data_files=list(source.files),
            split="train",
            streaming=streaming,
            cache_dir=cache_dir,
        )
    assert source.name is not None
    if {Path(path).name for path in source.files} & {"state.json", "dataset_dict.json"}:
        return _saved_dataset(source.name, source.split, streaming)
    return datasets.load_dataset(
        source.name, source.subset, split=source.split, streaming=streaming, cache_dir=cache_dir
    )


def _saved_dataset(directory: str, split: str, streaming: bool) -> Any:
    """A directory written by `save_to_disk`: Arrow files, memory-mapped as they are."""
    saved = datasets.load_from_disk(directory)
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(
                f"data.split: {split!r} is no split of {directory!r}{did_you_mean(split, saved)}; "
                f"splits: {_listed(saved)}"
            )
        saved = saved[split]
    return saved.to_iterable_dataset() if streaming else saved


def _select_text(dataset: Any, column: str, source: DataSource) -> Any:
    """Only the text column, so that no other (an image, say) is decoded."""
    columns = dataset.column_names
    if columns is None:  # a stream whose schema is not known before its first row
        first = next(iter(dataset), None)
        if first is None:
            raise DataError(f"{source.origin()}: the corpus is empty: not one document")
        columns = list(first)
    if column not in columns:
        raise DataError(
            f"data.text_column: {column!r} is no column of {source.origin()}{did_you_mean(column, columns)}; "
            f"columns: {_listed(columns)}"
        )
    return dataset.select_columns([column])


def _as_bytes(value: Any, column: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    raise DataError(f"data.text_column: {column!r} holds {type(value).__name__}, not text")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
