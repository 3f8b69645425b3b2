"""Where a Hugging Face model lies - a local directory, or a copy of what the hub has - and which of its files hold the
weights. Imports no torch."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from ligo_dist.runtime.errors import CheckpointError, did_you_mean, shortened

DESCRIPTION = ("*.json", "*.txt", "*.model", "*.jinja")
"""Configuration and tokenizer."""


_NAMES = ("model.safetensors", "pytorch_model.bin")
"""What the library calls a file that holds all weights, the one it prefers first; an index has its name with
`.index.json` behind it."""

_SAMPLE_BYTES = 1 << 20


def resolve_directory(name: str, weights: bool = True) -> Path:
    """The directory that a path or a name on the hub stands for; what is missing is downloaded once.

    Args:
        name: a local directory, else a name on the hub such as `openai-community/gpt2`.
        weights: with the weights: the safetensors files, or torch files where there are no others.

    Raises:
        CheckpointError: it is no directory here, and the hub does not have it, could not have it, or cannot be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    check_path(name)
    from huggingface_hub import snapshot_download  # half a second, and only names on the hub need it

    try:
        directory = Path(snapshot_download(name, allow_patterns=list(DESCRIPTION)))
        if weights:
            snapshot_download(name, allow_patterns=["*.safetensors"])
            if not any(directory.glob("*.safetensors")):
                snapshot_download(name, allow_patterns=["pytorch_model*.bin"])
    except Exception as error:  # whatever the library raises: no such name, no network, no permission
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{name!r} is no directory here, and cannot be had from the hub: {reason}{_nearest(path)}"
        ) from error
    return directory


def check_path(name: str) -> None:
    """Whether a name is a directory here, or may be one on the hub, which is not asked.

    Raises:
        CheckpointError: it is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        raise CheckpointError(f"{name!r} is a file, not a Hugging Face directory")
    if _is_path(name) and not path.is_dir():
        raise CheckpointError(f"no such directory: {name!r} (from {Path.cwd()}){_nearest(path)}")


def _is_path(name: str) -> bool:
    """Whether a name can be none of the hub: those have one slash at most, behind the name of an owner."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _nearest(path: Path) -> str:
    """The directory that may be meant by the first part of a path that is not there."""
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    return did_you_mean(missing, [other for other in missing.parent.iterdir() if other.is_dir()])


def find_weight_files(directory: Path) -> list[Path]:
    """The files that hold a model's weights.

    Raises:
        CheckpointError: there are none, or the index cannot be read or names files that are not there.
    """
    for name in _NAMES:
        if (directory / name).is_file():
            return [directory / name]
        if (directory / f"{name}.index.json").is_file():
            return _indexed_files(directory / f"{name}.index.json")
    names = ", ".join([*_NAMES, *(f"{name}.index.json" for name in _NAMES)])
    raise CheckpointError(f"{directory}: no weights; there should be one of {names}")


def weights_fingerprint(directory: Path) -> str:
    """Tells one model from another: the size of every weight file, and its first and its last megabyte.

    Raises:
        CheckpointError: no weights, or files that cannot be read.
    """
    checksum = 0
    for path in [directory / "config.json", *find_weight_files(directory)]:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                checksum = zlib.crc32(f"{path.name} {size}".encode() + file.read(_SAMPLE_BYTES), checksum)
                file.seek(max(0, size - _SAMPLE_BYTES))
                checksum = zlib.crc32(file.read(), checksum)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    return f"{checksum:08x}"


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} cannot be read as an index of weights: {error!r}") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(f"{index} names files that are not there: {shortened(missing)}")
    return [index.parent / name for name in names]
