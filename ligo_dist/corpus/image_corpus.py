"""From the configuration to samples of images, decoded once and kept in the cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ligo_dist.config import stage_shapes, tokens_per_sample
from ligo_dist.corpus.cache import (
    cache_key,
    file_fault,
    make_cached,
    progress_bar,
    read_index,
    recall,
    remember,
    size_and_checksum,
)
from ligo_dist.corpus.hub_data import check_answer
from ligo_dist.corpus.image_folders import check_number_of_classes
from ligo_dist.corpus.images import Images, find_images, open_images
from ligo_dist.corpus.order import SPLITS, is_validation, refuse_empty_split
from ligo_dist.corpus.samples import ImageSamples
from ligo_dist.runtime.errors import DataError
from ligo_dist.runtime.machine import available_cores

if TYPE_CHECKING:
    from ligo_dist.architectures import Architecture, ModelShape
    from ligo_dist.config import Config
    from ligo_dist.corpus.corpus import Corpus

logger = logging.getLogger(__name__)

_FORMAT = 2
"""Raise it with every change of the code that changes what is made from the same inputs."""

PROCESSOR_FILE = "preprocessor_config.json"
MIDDLE = 0.5
"""Mean and standard deviation of each channel, unless the source's image processor says something else: values
between 0 and 1 become values between -1 and 1 (Dosovitskiy et al. 2021, their released models)."""


_RESIZING = {"do_resize": True, "resample": 2, "do_center_crop": False}  # 2: bilinear
"""How images get their size here, as image processors name it."""


@dataclass(frozen=True)
class ImageCorpus:
    """Images that are ready to be trained on; see `Corpus`.

    Attributes:
        train, validation: the samples.
        fingerprint: of the images and their classes.
        directory: where they lie in the cache.
        names: of the classes by their numbers in the samples, where they are known.
        note: what was not there of what they are made from; empty: nothing.
        sources: none; see `MixtureCorpus`.
    """

    train: ImageSamples
    validation: ImageSamples
    fingerprint: str
    directory: Path
    names: list[str] | None
    vocab_size: int = 0
    tokenizer: None = None
    attended: None = None
    note: str = ""
    sources: Mapping[str, Corpus] = field(default_factory=dict)

    @property
    def description(self) -> str:
        channels, height, width = self.train.images.shape[1:]
        return (
            f"{len(self.train):,} images of {height} x {width} x {channels} to train on, {len(self.validation):,} to "
            f"validate with, in {self.directory}{self.note}"
        )

    def library_keys(self) -> dict[str, Any]:
        if self.names is None:
            return {}
        return {
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
        }

    def exported_keys(self) -> dict[str, Any]:
        return self.library_keys()

    def write_processor(self, directory: Path) -> None:
        """`preprocessor_config.json`, as `AutoImageProcessor` reads it."""
        samples = self.train
        channels, height, width = samples.images.shape[1:]
        processor = {
            "image_processor_type": "ViTImageProcessor",
            "do_convert_rgb": channels == 3,
            **_RESIZING,
            "size": {"height": height, "width": width},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(samples.mean),
            "image_std": list(samples.standard_deviation),
        }
        (directory / PROCESSOR_FILE).write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")


def build_image_corpus(
    config: Config, architecture: Architecture, source_directory: Path | None, show_progress: bool
) -> ImageCorpus:
    """See `build_corpus`."""
    data, shape = config.data, stage_shapes(config, 0)[0]
    directory, note = _directory(config, shape, show_progress)
    index = read_index(directory)
    _check_labels(index, shape.labels, index["origin"])
    mean, deviation = _normalisation(source_directory, shape.channels)
    names, numbers = _classes(index["names"], config.model.huggingface, source_directory)

    def samples(split: str, shift: int, flip: bool) -> ImageSamples:
        classes = np.fromfile(directory / f"{split}.labels.bin", dtype="int32")
        classes = classes if numbers is None else numbers[classes]
        pixels = (len(classes), shape.channels, shape.image_size, shape.image_size)
        images = np.memmap(directory / f"{split}.images.bin", dtype="uint8", mode="r", shape=pixels)
        tokens = tokens_per_sample(architecture, shape, 0)
        return ImageSamples(images, classes, mean, deviation, tokens, config.seed, shift, flip)

    return ImageCorpus(
        train=samples("train", data.random_shift, data.random_flip),
        validation=samples("validation", 0, False),
        fingerprint=cache_key({name: file["sha256"] for name, file in index["files"].items()}),
        directory=directory,
        names=names,
        note=note,
    )


def _directory(config: Config, shape: ModelShape, show_progress: bool) -> tuple[Path, str]:
    """Where the images lie: prepared now, or before, then also where what they are made from is not there any more; and
    a note of that."""
    data = config.data
    assert data.source is not None, "a checked configuration says it"
    try:
        check_answer(config)
        source = find_images(
            data.source, data.files, data.name, data.subset, data.split, data.image_column, data.max_documents
        )
        identity = source.identity()
    except DataError as error:
        return recall(config, error, _fault)
    inputs: dict[str, Any] = {
        "format": _FORMAT,
        "source": identity,
        "label_column": data.label_column,
        "image_size": shape.image_size,
        "channels": shape.channels,
        "validation_fraction": data.validation_fraction,
        "libraries": {"datasets": version("datasets"), "pillow": version("pillow")},
    }
    cache_dir = Path(data.cache_dir).absolute()

    def make(directory: Path) -> dict[str, Any]:
        images = open_images(
            source,
            data.image_column,
            data.label_column,
            shape.image_size,
            shape.channels,
            data.streaming,
            cache_dir / "documents" / cache_key(inputs["source"]),
            data.workers or available_cores(),
        )
        return _write(images, data.validation_fraction, directory, show_progress)

    directory = make_cached(cache_dir, inputs, make, _fault)
    remember(config, directory)
    return directory, ""


def _classes(
    found: list[str] | None, keys: Mapping[str, Any], source: Path | None
) -> tuple[list[str] | None, NDArray[np.int32] | None]:
    """What the classes are called, and which number each of those in the cache has in the model; None: its own.

    The model's own order counts: that of `id2label` in `model.huggingface`, else in the source's `config.json`. Images
    whose classes have the same names are numbered so; for those of other names a user's names take their places.

    Args:
        found: the images' classes in the order of their numbers in the cache; None where they have no names.
        keys: of `model.huggingface`.
        source: directory of the first stage's model.
    """
    of_source = None if source is None else _names(_said(source, "config.json"))
    wanted = _names(keys) or of_source
    if wanted is None or found is None:
        return found or wanted, None
    if sorted(found) == sorted(wanted) and len(set(wanted)) == len(wanted):
        return wanted, np.array([wanted.index(name) for name in found], dtype=np.int32)
    if wanted != of_source:
        return wanted, None
    logger.warning(
        "stages[0].from: its classes are %s, and those of the images %s: its classifier learns the latter",
        _few(wanted),
        _few(found),
    )
    return found, None


def _names(keys: Mapping[str, Any]) -> list[str] | None:
    """The names in the `id2label` of a configuration, in the order of their numbers; None for the library's own."""
    said = keys.get("id2label") or {}
    names = [said[number] for number in sorted(said, key=int)]
    return names if names != [f"LABEL_{number}" for number in range(len(names))] else None


def _few(names: list[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])


def _write(
    images: Images, validation_fraction: float, directory: Path, show_progress: bool
) -> dict[str, Any]:
    """`train.images.bin`, `train.labels.bin` and the same for validation; what the index says of them."""
    counts = dict.fromkeys(SPLITS, 0)
    largest_label = largest_row = -1
    kinds = ("images", "labels")
    files = {(split, kind): directory / f"{split}.{kind}.bin" for split in SPLITS for kind in kinds}
    opened = {key: path.open("wb") for key, path in files.items()}
    try:
        with progress_bar("reading images", images.count, show_progress, "images") as advance:
            for row, (pixels, label) in enumerate(images):
                # By its pixels, so copies of an image are never on both sides.
                split = SPLITS[is_validation(pixels.tobytes(), validation_fraction)]
                opened[split, "images"].write(pixels.tobytes())
                opened[split, "labels"].write(np.int32(label).tobytes())
                counts[split] += 1
                if label > largest_label:
                    largest_label, largest_row = label, row
                advance(1)
    finally:
        for file in opened.values():
            file.close()
    if not any(counts.values()):
        raise DataError(f"{images.source.origin()}: not one image")
    refuse_empty_split(list(counts.values()), validation_fraction, "image(s)", "or read more images")
    return {
        "files": {path.name: size_and_checksum(path) for path in files.values()},
        "images": counts,
        "names": images.names,
        "origin": images.source.origin(),
        "largest_label": {"label": largest_label, "row": largest_row},
    }


def _check_labels(index: dict[str, Any], labels: int, origin: str) -> None:
    names, largest = index["names"], index["largest_label"]
    if names is not None:
        check_number_of_classes(labels, names, origin)
    if largest["label"] >= labels:
        raise DataError(
            f"data.labels: {labels}, but row {largest['row']} of {origin} has the label {largest['label']}; at "
            f"least {largest['label'] + 1} would be right"
        )


def _normalisation(source_directory: Path | None, channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of values from 0 to 1: what the source's own image processor says,
    else the middle."""
    said = {} if source_directory is None else _said(source_directory, PROCESSOR_FILE)
    other = {key: said[key] for key, ours in _RESIZING.items() if said.get(key, ours) != ours}
    if other:
        logger.warning(
            "stages[0].from: its %s has %s; here images are resized whole to a square, bilinear, as the export says",
            PROCESSOR_FILE,
            ", ".join(f"{key}: {json.dumps(value)}" for key, value in other.items()),
        )
    mean, deviation = said.get("image_mean"), said.get("image_std")
    if said.get("do_normalize") is False:
        mean, deviation = [0.0] * channels, [1.0] * channels
    elif not (mean and deviation and len(mean) == len(deviation) == channels):
        mean, deviation = [MIDDLE] * channels, [MIDDLE] * channels
    # What is 1 here is as much to the source's processor, before it normalises.
    largest = (
        255.0 if said.get("do_rescale") is False else round(255 * said.get("rescale_factor", 1 / 255), 6)
    )
    return [value / largest for value in mean], [value / largest for value in deviation]


def _said(directory: Path, name: str) -> dict[str, Any]:
    """What a JSON file of a Hugging Face directory says; nothing if there is none.

    Raises:
        DataError: it cannot be read.
    """
    path = directory / name
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"stages[0].from: {path} cannot be read: {error}") from error


def _fault(directory: Path, index: dict[str, Any]) -> str | None:
    """What is wrong with a directory of the cache, or None."""
    faults = (file_fault(directory / name, **file) for name, file in index["files"].items())
    return next((fault for fault in faults if fault), None)
