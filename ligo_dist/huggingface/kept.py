"""What a run keeps of the model it begins from: all but the weights, which its checkpoints have. So a run that goes on
needs nothing of the directory, or the hub, that the model came from. Imports no torch."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from ligo_dist.huggingface.hub import DESCRIPTION, resolve_directory, weights_fingerprint
from ligo_dist.runtime.errors import CheckpointError

_DIRECTORY, _FILE = "source", "kept.json"
"""Within the run directory, and within that."""


def keep_source(run_dir: Path, name: str, directory: Path, fingerprint: str) -> None:
    """Copy what describes a model into the run directory, unless that is done; a full disk leaves nothing of it.

    Args:
        run_dir: the run's directory.
        name: of the model, as the configuration has it.
        directory: where the model lies now.
        fingerprint: of the model.
    """
    kept, unfinished = run_dir / _DIRECTORY, run_dir / f".writing-{_DIRECTORY}"
    says = {"name": name, "is_local": Path(name).expanduser().is_dir(), "fingerprint": fingerprint}
    if directory == kept or _read(kept) == says:
        return
    with suppress(OSError):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for file in {file for pattern in DESCRIPTION for file in directory.glob(pattern) if file.is_file()}:
            shutil.copyfile(file, unfinished / file.name)
        (unfinished / _FILE).write_text(json.dumps(says) + "\n", encoding="utf-8")
        shutil.rmtree(kept, ignore_errors=True)
        os.replace(unfinished, kept)


def locate_source(run_dir: Path, name: str) -> str:
    """The name of a model, or the directory of what the run keeps of it, where the model itself is not there any more.
    A name that was a directory's is not looked for on the hub."""
    kept = run_dir / _DIRECTORY
    says = _read(kept)
    if says is None or says.get("name") != name or Path(name).expanduser().is_dir():
        return name
    if not says["is_local"]:
        try:
            resolve_directory(name, weights=False)
        except CheckpointError:
            return str(kept)
        return name
    return str(kept)


def source_fingerprint(directory: Path) -> str:
    """Tells one model from another, by its weights or by what was kept of it.

    Raises:
        CheckpointError: see `weights_fingerprint`.
    """
    says = _read(directory)
    return weights_fingerprint(directory) if says is None else str(says["fingerprint"])


def has_weights(directory: Path) -> bool:
    """Whether it is a model, and not what was kept of one."""
    return _read(directory) is None


def _read(directory: Path) -> dict[str, object] | None:
    try:
        return json.loads((directory / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
