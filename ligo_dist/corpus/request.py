"""What a configuration asks of its corpus, and what was prepared for that last: it stands on its own, should the texts,
the hub or the tokenizer's files that it was made from not be there any more. Imports neither torch nor `datasets`."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ligo_dist.config.resolve import is_image_family
from ligo_dist.corpus.cache import cache_key
from ligo_dist.runtime.errors import DataError
from ligo_dist.runtime.files import replace_text

if TYPE_CHECKING:
    from ligo_dist.config import Config
    from ligo_dist.config.schema import Tokenizer

_OF_NO_ACCOUNT = {"sequence_length", "mask_fraction", "random_shift", "random_flip", "labels"}
_OF_THE_WORK = {"streaming", "workers", "cache_dir"}
"""Keys of `data` that change nothing of what is prepared."""


def remember(config: Config, directory: Path) -> None:
    """Note in the cache that a directory of it is what a configuration asks for."""
    file = next(_notes(config))
    with suppress(OSError):  # it serves a later run alone; and others may be writing the same
        if not file.is_file() or file.read_text(encoding="utf-8") != directory.name:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_text(file, directory.name)


def find_prepared(config: Config) -> Path | None:
    """The directory of the cache that was last prepared for what a configuration asks; None: there is none. Whether it
    is sound is not looked at."""
    found = []
    for file in _notes(config):
        with suppress(OSError):
            directory = file.parents[1] / file.read_text(encoding="utf-8")
            if directory.is_dir():
                found.append((file.stat().st_mtime_ns, directory))
    return max(found)[1] if found else None


def vocabulary_size(
    config: Config, source_directory: Path | None, count: Callable[[Tokenizer, Path | None], int | None]
) -> int:
    """Pieces of the tokenizer that the corpus of a configuration will have, before there is a corpus; 0 for images.

    Args:
        config: with what `stages[0].from` says filled in.
        source_directory: of `stages[0].from`.
        count: the pieces of a tokenizer that is given; None: one is to be trained.

    Raises:
        DataError: the given one is not there or cannot be used, and no corpus is prepared that has its pieces.
    """
    if is_image_family(config.architecture):
        return 0
    try:
        pieces = count(config.tokenizer, source_directory)
    except DataError:
        is_named = config.tokenizer.file is not None or config.tokenizer.huggingface is not None
        prepared = find_prepared(config) if is_named else None
        if prepared is None:
            raise
        return json.loads((prepared / "index.json").read_text(encoding="utf-8"))["tokenizer"]["vocab_size"]
    pieces = config.tokenizer.vocab_size if pieces is None else pieces
    assert pieces is not None, "a checked configuration has one or the other"
    return pieces


def _notes(config: Config) -> Iterator[Path]:
    """Where it is noted. A name that stands for no directory here may have stood for one: then for that of its path,
    and no other project's."""
    settings, data = config.tokenizer, config.data
    asked = {
        "objective": config.architecture.objective,
        "data": data.model_dump(mode="json", exclude=_OF_NO_ACCOUNT | _OF_THE_WORK | {"files"}),
        "files": [_absolute(pattern) for pattern in data.files],
        "tokenizer": settings.model_dump(mode="json"),
    }
    of_source = (settings.file, settings.huggingface, settings.vocab_size) == (None, None, None)
    names = [data.name, settings.huggingface, config.stages[0].from_ if of_source else None]
    for places in itertools.product(*map(_places, names)):
        key = cache_key({**asked, "names": names, "places": places})
        yield Path(data.cache_dir).absolute() / "requests" / key


def _places(name: str | None) -> list[str | None]:
    if name is None:
        return [None]
    path = _absolute(name)
    return [path] if os.path.isdir(path) else [None, path]


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
