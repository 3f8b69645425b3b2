"""Images with their classes from anywhere, as arrays of one size."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray

from ligo_dist.corpus.hub_data import open_dataset
from ligo_dist.corpus.image_folders import find_classes
from ligo_dist.corpus.sources import DataSource, explained, find_source
from ligo_dist.corpus.tables import missing_column, table_rows, table_schema
from ligo_dist.corpus.unpacking import read_faults
from ligo_dist.runtime.errors import DataError, shortened
from ligo_dist.runtime.imported import ImportedLater

if TYPE_CHECKING:
    import datasets
else:
    # When it is used: with its pandas it takes a second, and ranks whose corpus is prepared have no use for it.
    datasets = ImportedLater("datasets")

MODES = {1: "L", 3: "RGB"}
"""Pillow's names of images with so many channels."""

DIGITS_LARGEST = 16
"""Value of full ink in scikit-learn's digits."""


class LabelledImage(NamedTuple):
    """One image: pixels [channels, size, size] uint8, and its class."""

    pixels: NDArray[np.uint8]
    label: int


_Rows = tuple[Callable[[], Iterable[tuple[Any, Any]]], list[str] | None, int | None]
"""Pairs of an image and a label; names of the classes; how many pairs. Each of the latter None where it is unknown."""

_IN_FLIGHT_PER_WORKER = 4
"""Images that wait for their turn, so that a large one holds nobody up."""

_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}
"""Modes of pillow with no more than 8 bits a channel, which it converts itself; transparency is dropped."""


@dataclass(frozen=True)
class Images:
    """The images of a source in its own order; can be iterated over any number of times.

    Attributes:
        source: where they come from.
        rows: gives pairs of an image and a label, each time from the start.
        names: of the classes, where the source knows them.
        count: how many, where it is known before reading.
        workers: threads that decode.
    """

    source: DataSource
    rows: Callable[[], Iterable[tuple[Any, Any]]]
    image_column: str
    label_column: str
    size: int
    channels: int
    names: list[str] | None
    count: int | None
    workers: int

    def __iter__(self) -> Iterator[LabelledImage]:
        """Raises DataError for an image that cannot be decoded and a label that is no number from 0 on."""
        pending: deque[Future[LabelledImage]] = deque()
        # Pillow decodes and resizes without holding the interpreter, so that threads do it side by side.
        with explained(self.source), ThreadPoolExecutor(self.workers) as pool:
            rows = itertools.islice(self.rows(), self.source.max_documents)
            for number, (image, label) in enumerate(rows):
                pending.append(pool.submit(self._labelled, image, label, number))
                if len(pending) >= self.workers * _IN_FLIGHT_PER_WORKER:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _labelled(self, image: Any, label: Any, number: int) -> LabelledImage:
        return LabelledImage(self._pixels(image, number), self._label(label, number))

    def _pixels(self, value: Any, number: int) -> NDArray[np.uint8]:
        path = None
        try:
            path = value if isinstance(value, str) else value.get("path") if isinstance(value, dict) else None
            image = _in_eight_bits(_decoded(value)).convert(MODES[self.channels])
        except Exception as error:  # decoders raise anything
            file = f" ({path})" if path else ""
            raise DataError(
                f"data.image_column: {self.image_column!r}: row {number}{file} of {self.source.origin()} holds no "
                f"image that can be read: {error}"
            ) from error
        if image.size != (self.size, self.size):
            from PIL import Image

            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.uint8).reshape(self.size, self.size, self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _label(self, value: Any, number: int) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise DataError(
            f"data.label_column: {self.label_column!r}: row {number} of {self.source.origin()} has the label "
            f"{value!r}; classes are whole numbers from 0 on"
        )


def find_images(
    kind: str,
    files: list[str],
    name: str | None,
    subset: str | None,
    split: str,
    image_column: str,
    max_documents: int | None,
) -> DataSource:
    """Finds what is to be read.

    Raises:
        DataError: names the key, the value and what would be right; or an optional package is missing.
    """
    _check_packages(kind)
    if kind == "digits":
        return DataSource(kind, max_documents=max_documents)
    if kind == "images":
        assert name is not None, "a checked configuration has it"
        classes = find_classes(name).values()
        found = list(itertools.chain.from_iterable(classes))
        if max_documents is not None:  # of all classes by turns: the first images would be of one class
            turns = itertools.zip_longest(*classes)
            found = [path for path in itertools.chain.from_iterable(turns) if path is not None]
        return DataSource(kind, tuple(found), name, max_documents=max_documents)
    return find_source(kind, files, name, subset, split, image_column, max_documents=max_documents)


def open_images(
    source: DataSource,
    image_column: str,
    label_column: str,
    size: int,
    channels: int,
    streaming: bool,
    cache_dir: Path,
    workers: int = 1,
) -> Images:
    """Opens the images of a source.

    Args:
        size: side of the square they are resized to, whatever their shape.
        channels: 1: as grey values; 3: as colours.
        streaming: read those of the hub from where they are; other ones always are.
        cache_dir: of the Arrow cache.
        workers: threads that decode; the images and their order do not depend on them.

    Raises:
        DataError: unreachable, unreadable, or without the columns.
    """
    with explained(source):
        if source.kind in ("digits", "images"):
            image_column, label_column = "image", "label"
        if source.kind == "digits":
            rows, names, count = _digits()
        elif source.kind == "images":
            rows, names, count = _folders(source)
        elif source.kind == "hub":
            dataset = open_dataset(source, streaming, str(cache_dir))
            rows, names, count = _dataset(dataset, image_column, label_column, source)
        else:
            rows, names, count = _tables(source, image_column, label_column)
        if count is not None and source.max_documents is not None:
            count = min(count, source.max_documents)
        return Images(source, rows, image_column, label_column, size, channels, names, count, workers)


def _decoded(value: Any) -> Any:
    """An image of pillow's.

    Args:
        value: an image; a file's path or bytes, also as `{"path": ..., "bytes": ...}`; or lists of pixels.
    """
    if isinstance(value, list):
        from PIL import Image

        return Image.fromarray(np.array(value, dtype=np.uint8))
    if isinstance(value, str):
        value = {"path": value}
    elif isinstance(value, bytes):
        value = {"bytes": value}
    if isinstance(value, dict):
        value = {"path": None, "bytes": None, **value}
    elif value is None:
        raise ValueError("there is nothing")
    return datasets.Image().decode_example(value)


def _in_eight_bits(image: Any) -> Any:
    """An image of at most 8 bits a channel.

    Raises:
        ValueError: what is white in it is not known, or pillow has no conversion.
    """
    from PIL import Image

    if image.mode in _EIGHT_BITS:
        return image
    # Pillow opens portable grey maps of 16 bits as 32-bit numbers.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    raise ValueError(
        f"its pixels are of pillow's mode {image.mode}, of which no range from black to white is known; "
        "convert it to 8 or 16 bits first"
    )


def _check_packages(kind: str) -> None:
    needed = {"PIL": "pillow", **({"sklearn": "scikit-learn"} if kind == "digits" else {})}
    for module, package in needed.items():
        try:
            __import__(module)
        except ImportError as error:
            raise DataError(
                f"data.source: {kind!r} needs {package}, which is not installed: pip install 'ligo_dist[vision]'"
            ) from error


def _digits() -> _Rows:
    """The 1797 handwritten digits of 8 x 8 grey values that scikit-learn ships (Alpaydin and Kaynak 1998)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / DIGITS_LARGEST)).astype(np.uint8)
    labels = digits.target.tolist()
    return (
        lambda: zip(map(Image.fromarray, pixels), labels, strict=True),
        [str(digit) for digit in range(10)],
        len(labels),
    )


def _folders(source: DataSource) -> _Rows:
    names = sorted({Path(path).parent.name for path in source.files})
    classes = {name: number for number, name in enumerate(names)}
    return (
        lambda: ((path, classes[Path(path).parent.name]) for path in source.files),
        names,
        len(source.files),
    )


def _tables(source: DataSource, image_column: str, label_column: str) -> _Rows:
    """Parquet and Arrow files, of which only the two columns are read."""
    columns = {"image_column": image_column, "label_column": label_column}

    def checked(path: str) -> list[str] | None:
        schema = table_schema(source.kind, path)
        for key, column in columns.items():
            if column not in schema.names:
                raise missing_column(key, column, source.origin(), schema.names)
        _check_image_type(schema.field(image_column).type, image_column, source)
        return _class_names(schema, label_column)

    with read_faults("data.files", source.files[0], source.kind):
        names = checked(source.files[0])

    def rows() -> Iterator[tuple[Any, Any]]:
        for path in source.files:
            with read_faults("data.files", path, source.kind):
                others = checked(path)
                if others != names:
                    raise DataError(
                        f"data.label_column: {label_column!r}: the classes of {path!r} are {_told(others)}, but "
                        f"those of {source.files[0]!r} are {_told(names)}"
                    )
                yield from table_rows(source.kind, path, columns)

    return rows, names, None


def _class_names(schema: pyarrow.Schema, label_column: str) -> list[str] | None:
    """Those that `datasets` has written into a file; None: it has written none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return list(features[label_column]["names"])
    except (TypeError, KeyError, ValueError):
        return None


def _told(names: list[str] | None) -> str:
    return "not named" if names is None else shortened(names)


def _check_image_type(kind: pyarrow.DataType, column: str, source: DataSource) -> None:
    if pyarrow.types.is_struct(kind):
        fits = bool({"bytes", "path"} & {kind.field(number).name for number in range(kind.num_fields)})
    else:
        fits = not pyarrow.types.is_primitive(kind)
    if not fits:
        raise DataError(f"data.image_column: {column!r} of {source.origin()} holds no images: {kind}")


def _dataset(dataset: Any, image_column: str, label_column: str, source: DataSource) -> _Rows:
    """What `datasets` has opened, with its images as files or bytes, which are decoded one by one, so that a fault has
    a place."""
    for key, column in (("image_column", image_column), ("label_column", label_column)):
        columns = dataset.column_names or list(next(iter(dataset), {}))
        if column not in columns:
            raise missing_column(key, column, source.origin(), columns)
    dataset = _undecoded(dataset.select_columns([image_column, label_column]), image_column, source)
    label = (dataset.features or {}).get(label_column)
    names = list(label.names) if isinstance(label, datasets.ClassLabel) else None
    count = len(dataset) if isinstance(dataset, datasets.Dataset) else None
    return lambda: ((row[image_column], row[label_column]) for row in dataset), names, count


def _undecoded(dataset: Any, column: str, source: DataSource) -> Any:
    """The data set with its images as files or bytes, which are decoded one by one, so that a fault has a place."""
    try:
        return dataset.cast_column(column, datasets.Image(decode=False))
    except (TypeError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data.image_column: {column!r} of {source.origin()} holds no images: {error}"
        ) from error
