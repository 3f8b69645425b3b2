"""What has to hold inside `data` and `tokenizer`: which keys have a meaning for which source and which family."""

from __future__ import annotations

from typing import Any

from ligo_dist.architectures import Architecture
from ligo_dist.config.schema import Data, Model, Tokenizer
from ligo_dist.config.section import Section
from ligo_dist.config.shapes import is_image_family
from ligo_dist.errors import Fault

_FILE_SOURCES = ("text", "json", "parquet", "arrow")
_COLUMN_SOURCES = ("json", "parquet", "arrow", "hub")
_TEXT_SOURCES = ("stdlib", "text", "json", "parquet", "arrow", "hub")
_IMAGE_SOURCES = ("digits", "images", "parquet", "arrow", "hub")
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "files": _FILE_SOURCES,
    "name": ("hub", "images"),
    "subset": ("hub",),
    "split": ("hub",),
    "text_column": _COLUMN_SOURCES,
    "image_column": ("parquet", "arrow", "hub"),
    "label_column": ("parquet", "arrow", "hub"),
    "document": ("text",),
    "include_tests": ("stdlib",),
}
_ONLY_TEXT = ("text_column", "document", "include_tests", "sequence_length", "mask_fraction")
_ONLY_IMAGES = (
    "image_column", "label_column", "image_size", "channels", "labels", "random_shift", "random_flip",
)  # fmt: skip


def data_faults(
    data: Data, model: Model | None, architecture: Architecture | None, has_source: bool
) -> list[Fault]:
    """Faults inside `data`, and between it and the model, as far as that is known."""
    faults = []
    images = architecture is not None and is_image_family(architecture)
    longest = None if model is None or images else model.max_positions
    if longest is not None and data.sequence_length > longest:
        wrong = f"{data.sequence_length} is more than the {longest} of model.max_positions"
        faults.append(Fault("data.sequence_length", wrong))
    if data.source in _FILE_SOURCES and not data.files:
        faults.append(Fault("data.files", f"is empty; the source {data.source!r} needs paths or globs"))
    if data.source == "hub" and data.name is None:
        faults.append(Fault("data.name", "is missing; the source 'hub' needs the name of a data set"))
    if data.source == "images" and data.name is None:
        wrong = "is missing; the source 'images' needs a directory with a folder of images for each class"
        faults.append(Fault("data.name", wrong))
    for key, sources in _ONLY_FOR.items():
        if data.source not in sources and _is_given(data, key):
            wrong = f"{getattr(data, key)!r} has no meaning for the source {data.source!r}"
            faults.append(Fault(f"data.{key}", f"{wrong}, only for {', '.join(sources)}"))
    if architecture is not None:
        told = {fault.path for fault in faults}
        of_family = _family_faults(data, architecture)
        if model is not None and images:
            of_family += _image_faults(data, model, has_source)
        faults += [fault for fault in of_family if fault.path not in told]
    return faults


def tokenizer_faults(
    tokenizer: Tokenizer, architecture: Architecture | None, has_source: bool
) -> list[Fault]:
    """Faults inside `tokenizer`."""
    if architecture is not None and is_image_family(architecture):
        return [
            Fault(
                f"tokenizer.{key}",
                f"{getattr(tokenizer, key)!r} has no meaning for {architecture.name}, which reads images",
            )
            for key in Tokenizer.model_fields
            if _is_given(tokenizer, key)
        ]
    if tokenizer.file is not None and tokenizer.huggingface is not None:
        wrong = f"{tokenizer.huggingface!r} and tokenizer.file are two tokenizers; one of them has to be null"
        return [Fault("tokenizer.huggingface", wrong)]
    if tokenizer.file is None and tokenizer.huggingface is None and tokenizer.vocab_size is None:
        if has_source:
            return []
        wrong = "is missing; a tokenizer that is to be trained needs the number of its pieces, such as 4096"
        return [Fault("tokenizer.vocab_size", wrong)]
    return []


def _family_faults(data: Data, architecture: Architecture) -> list[Fault]:
    """Sources and keys of the other kind of model."""
    images = is_image_family(architecture)
    sources = _IMAGE_SOURCES if images else _TEXT_SOURCES
    faults = []
    if data.source not in sources:
        wrong = f"{data.source!r} is no source of {'images' if images else 'text'} for {architecture.name}"
        faults.append(Fault("data.source", f"{wrong}; there are: {', '.join(sources)}"))
    faults += [
        _no_meaning(data, key, architecture, "text" if images else "image")
        for key in (_ONLY_TEXT if images else _ONLY_IMAGES)
        if _is_given(data, key)
    ]
    if not images and architecture.objective != "masked_lm" and _is_given(data, "mask_fraction"):
        faults.append(_no_meaning(data, "mask_fraction", architecture, "masked language"))
    return faults


def _no_meaning(data: Data, key: str, architecture: Architecture, kind: str) -> Fault:
    wrong = f"{getattr(data, key)!r} has no meaning for {architecture.name}, only for {kind} models"
    return Fault(f"data.{key}", wrong)


def _image_faults(data: Data, model: Model, has_source: bool) -> list[Fault]:
    faults = []
    for key, what in (
        ("image_size", "the side of its images, such as 224"),
        ("labels", "a number of classes"),
    ):
        if getattr(data, key) is None and not has_source:
            faults.append(Fault(f"data.{key}", f"is missing; {model.family} needs {what}"))
    size, patch = data.image_size, model.patch_size
    if size is not None and patch is not None and size % patch:
        wrong = f"{size} is no multiple of the {patch} of model.patch_size"
        faults.append(
            Fault("data.image_size", f"{wrong}; {max(1, round(size / patch)) * patch} would be right")
        )
    if size is not None and data.random_shift >= size:
        wrong = f"{data.random_shift} is not less than the {size} of data.image_size: nothing would be left"
        faults.append(Fault("data.random_shift", wrong))
    return faults


def _is_given(section: Section, key: str) -> bool:
    """Whether a key says something else than its default."""
    default: Any = type(section).model_fields[key].get_default(call_default_factory=True)
    return getattr(section, key) != default
