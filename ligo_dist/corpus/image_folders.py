"""A directory with a folder of images for each class."""

from __future__ import annotations

import os
from pathlib import Path

from ligo_dist.runtime.errors import DataError, shortened

_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that pillow knows and cannot read."""


def find_classes(directory: str) -> dict[str, list[str]]:
    """The classes, and the absolute paths of their images, both in the order of their names.

    A class is a folder, or a link to one, right below the directory, with at least one image file in it; its name may
    have any characters. What begins with a dot is passed over, and so is any file that pillow has no reader for.

    Raises:
        DataError: no such directory, no image in it, an image that lies above the classes or in a folder below them.
    """
    root = Path(directory).expanduser()
    if not root.is_dir():
        raise DataError(
            f"data.name: {directory!r} is no directory; the source 'images' needs one with a folder of images for "
            "each class"
        )
    suffixes = _suffixes()
    classes: dict[str, list[str]] = {}
    for folder in _visible(root.resolve()):
        if folder.suffix.lower() in suffixes and folder.is_file():
            raise DataError(
                f"data.name: {str(folder)!r} lies in no folder of {directory!r}: the folders are the classes"
            )
        if not folder.is_dir():
            continue
        images = []
        for path in _visible(folder):
            if path.is_dir():
                _refuse_deeper(path, suffixes, directory)
            elif path.suffix.lower() in suffixes:
                images.append(str(path))
        if images:
            classes[folder.name] = images
    if not classes:
        raise DataError(f"data.name: {directory!r} holds no image files, nor do its folders")
    return classes


def check_number_of_classes(labels: int, names: list[str], origin: str) -> None:
    """Raises DataError where there are more or fewer than the configuration says; names them."""
    if len(names) != labels:
        raise DataError(
            f"data.labels: {labels}, but {origin} has {len(names)} classes ({shortened(names)}); where these are the "
            f"classes you mean, write {len(names)}"
        )


def _refuse_deeper(folder: Path, suffixes: set[str], directory: str) -> None:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                above = str(folder.parent)
                raise DataError(
                    f"data.name: {os.path.join(parent, name)!r} lies deeper than the classes, which are the folders "
                    f"right below {directory!r}; if {folder.parent.name!r} is not a class but holds some, as a split "
                    f"does, name it: data.name: {above}"
                )


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"
    )


def _suffixes() -> set[str]:
    """Of files that pillow has a reader for."""
    from PIL import Image

    kinds = Image.registered_extensions()
    return {suffix for suffix, kind in kinds.items() if kind in Image.OPEN and kind not in _NO_PICTURES}
