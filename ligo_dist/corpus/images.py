"""Images with their classes from anywhere, opened through Hugging Face `datasets`, as arrays of one size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from numpy.typing import NDArray

from ligo_dist.corpus.sources import DataSource, explained, find_source, open_dataset
from ligo_dist.runtime.errors import DataError, did_you_mean

MODES = {1: "L", 3: "RGB"}
"""Pillow's names of images with so many channels."""

DIGITS_LARGEST = 16
"""Value of full ink in scikit-learn's digits."""


class LabelledImage(NamedTuple):
    """One image: pixels [channels, size, size] uint8, and its class."""

    pixels: NDArray[np.uint8]
    label: int


@dataclass(frozen=True)
class Images:
    """The images of a source in its own order; can be iterated over any number of times.

    Attributes:
        source: where they come from.
        names: of the classes, where the source knows them.
        count: how many, where it is known before reading.
    """

    source: DataSource
    dataset: Any
    image_column: str
    label_column: str
    size: int
    channels: int
    names: list[str] | None
    count: int | None

    def __iter__(self) -> Iterator[LabelledImage]:
        """Raises DataError for an image that cannot be decoded and a label that is no number from 0 on."""
        with explained(self.source):
            rows = itertools.islice(self.dataset, self.source.max_documents)
            for number, row in enumerate(rows):
                pixels = self._pixels(row[self.image_column], number)
                yield LabelledImage(pixels, self._label(row[self.label_column], number))

    def _pixels(self, value: Any, number: int) -> NDArray[np.uint8]:
        try:
            image = datasets.Image().decode_example(value).convert(MODES[self.channels])
        except Exception as error:  # decoders raise anything
            path = (value or {}).get("path") if isinstance(value, dict | None) else None
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
        return DataSource(kind, tuple(_image_files(name)), name, max_documents=max_documents)
    return find_source(kind, files, name, subset, split, image_column, max_documents=max_documents)


def open_images(
    source: DataSource,
    image_column: str,
    label_column: str,
    size: int,
    channels: int,
    streaming: bool,
    cache_dir: Path,
) -> Images:
    """Opens the images of a source.

    Args:
        size: side of the square they are resized to, whatever their shape.
        channels: 1: as grey values; 3: as colours.
        streaming: read them from where they are, with no copy in the Arrow cache.
        cache_dir: of the Arrow cache.

    Raises:
        DataError: unreachable, unreadable, or without the columns.
    """
    with explained(source):
        if source.kind == "digits":
            dataset = _digits()
        elif source.kind == "images":
            dataset = _folder(source, streaming, str(cache_dir))
        else:
            dataset = open_dataset(source, streaming, str(cache_dir))
        if source.kind in ("digits", "images"):
            image_column, label_column = "image", "label"
        for key, column in (("image_column", image_column), ("label_column", label_column)):
            _check_column(dataset, key, column, source)
        dataset = dataset.select_columns([image_column, label_column])
        dataset = _undecoded(dataset, image_column, source)
        label = (dataset.features or {}).get(label_column)
        names = list(label.names) if isinstance(label, datasets.ClassLabel) else None
        count = len(dataset) if isinstance(dataset, datasets.Dataset) else None
        if count is not None and source.max_documents is not None:
            count = min(count, source.max_documents)
        return Images(source, dataset, image_column, label_column, size, channels, names, count)


def _check_packages(kind: str) -> None:
    needed = {"PIL": "pillow", **({"sklearn": "scikit-learn"} if kind == "digits" else {})}
    for module, package in needed.items():
        try:
            __import__(module)
        except ImportError as error:
            raise DataError(
                f"data.source: {kind!r} needs {package}, which is not installed: pip install 'ligo_dist[vision]'"
            ) from error


def _digits() -> datasets.Dataset:
    """The 1797 handwritten digits of 8 x 8 grey values that scikit-learn ships (Alpaydin and Kaynak 1998)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / DIGITS_LARGEST)).astype(np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    columns = {"image": [Image.fromarray(image) for image in pixels], "label": digits.target.tolist()}
    return datasets.Dataset.from_dict(columns, features=features)


def _image_files(directory: str) -> list[str]:
    from PIL import Image

    root = Path(directory).expanduser()
    if not root.is_dir():
        raise DataError(
            f"data.name: {directory!r} is no directory; the source 'images' needs one with a folder of images for "
            "each class"
        )
    suffixes = Image.registered_extensions()
    files = [path for path in sorted(root.resolve().rglob("*")) if path.suffix.lower() in suffixes]
    if not files:
        raise DataError(f"data.name: {directory!r} holds no image files, nor do its folders")
    loose = [path for path in files if path.parent == root.resolve()]
    if loose:
        raise DataError(
            f"data.name: {str(loose[0])!r} lies in no folder of {directory!r}: the folders are the classes"
        )
    return [str(path) for path in files]


def _folder(source: DataSource, streaming: bool, cache_dir: str) -> Any:
    return datasets.load_dataset(
        "imagefolder",
        data_files={"train": list(source.files)},
        split="train",
        streaming=streaming,
        cache_dir=cache_dir,
        drop_labels=False,
        drop_metadata=True,
    )


def _check_column(dataset: Any, key: str, column: str, source: DataSource) -> None:
    columns = dataset.column_names or list(next(iter(dataset), {}))
    if column not in columns:
        raise DataError(
            f"data.{key}: {column!r} is no column of {source.origin()}{did_you_mean(column, columns)}; "
            f"columns: {', '.join(sorted(columns))}"
        )


def _undecoded(dataset: Any, column: str, source: DataSource) -> Any:
    """The data set with its images as files or bytes, which are decoded one by one, so that a fault has a place."""
    try:
        return dataset.cast_column(column, datasets.Image(decode=False))
    except (TypeError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data.image_column: {column!r} of {source.origin()} holds no images: {error}"
        ) from error
