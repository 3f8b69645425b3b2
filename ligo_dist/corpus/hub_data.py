"""Data sets of the Hugging Face hub, or of a directory that stands in for it."""

from __future__ import annotations

import functools
import glob
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants
from huggingface_hub.utils import get_session, httpx

from ligo_dist.corpus.cache import find_prepared
from ligo_dist.corpus.tables import missing_column
from ligo_dist.runtime.errors import DataError, did_you_mean, shortened
from ligo_dist.runtime.imported import ImportedLater

if TYPE_CHECKING:
    import datasets

    from ligo_dist.config import Config
    from ligo_dist.corpus.sources import DataSource
else:
    # When it is used: with its pandas it takes a second, and ranks whose corpus is prepared have no use for it.
    datasets = ImportedLater("datasets")

_ANSWER_SECONDS = 10.0


def check_answer(config: Config) -> None:
    """See that the hub answers, where it is to be asked for what was prepared before. `datasets` itself tries for half
    a minute, each time.

    Raises:
        DataError: it does not.
    """
    data = config.data
    if data.source != "hub" or os.path.isdir(data.name or "") or find_prepared(config) is None:
        return
    silence = _silence()
    if silence is not None:
        raise DataError(f"data.name: {data.name!r}: the Hugging Face hub cannot be reached ({silence})")


@functools.cache
def _silence() -> str | None:
    """Why the hub does not answer; None: it does. Asked once by each process."""
    if datasets.config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE"
    try:
        get_session().head(constants.ENDPOINT, timeout=_ANSWER_SECONDS)
    except (ConnectionError, TimeoutError, httpx.TransportError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def open_dataset(source: DataSource, streaming: bool, cache_dir: str) -> Any:
    """Data of the hub, or of a directory that stands in for it, as a data set of `datasets`: a mapping, or an iterable
    one where it is a stream."""
    assert source.name is not None
    streaming = streaming or source.max_documents is not None  # the rest is not copied
    if _is_saved(source):
        return _saved_dataset(source.name, source.split, streaming)
    return datasets.load_dataset(
        source.name, source.subset, split=source.split, streaming=streaming, cache_dir=cache_dir
    )


def hub_files(source: DataSource, streaming: bool) -> DataSource | None:
    """The files of hub data that can be read column by column, and of which kind they are; None: they are others.

    Args:
        streaming: they are read where they are; else they are downloaded.
    """
    if _is_saved(source):
        return None
    builder, files = _builder_and_files(source)
    options = (getattr(builder.config, key, None) for key in ("field", "filters"))
    encoding = getattr(builder.config, "encoding", "utf-8")
    if not files or builder.name not in ("json", "parquet", "arrow") or any(options) or encoding != "utf-8":
        return None
    if not source.files and not streaming:
        files = datasets.DownloadManager().download(files)
    return replace(source, kind=builder.name, files=tuple(files))


def _builder_and_files(source: DataSource) -> tuple[Any, list[str]]:
    """What `datasets` would read of the split, and with what."""
    assert source.name is not None
    directory = Path(source.name).resolve()
    if not source.files or not (glob.has_magic(str(directory)) or any("::" in path for path in source.files)):
        builder = datasets.load_dataset_builder(source.name, source.subset)
        return builder, _files_of(builder, source.split)
    # It takes brackets and colons in a path for patterns: it is shown links under other names.
    with tempfile.TemporaryDirectory() as place:
        shown = {}
        for path in directory.rglob("*"):
            if path.is_file():
                link = Path(place, str(path.relative_to(directory)).replace("::", "__"))
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
                shown[str(link)] = str(path)
        builder = datasets.load_dataset_builder(place, source.subset)
        return builder, [shown[path] for path in _files_of(builder, source.split)]


def _files_of(builder: Any, split: str) -> list[str]:
    splits = {str(name): files for name, files in (builder.config.data_files or {}).items()}
    return list(splits.get(split, []))


def _is_saved(source: DataSource) -> bool:
    assert source.name is not None
    return any(Path(source.name, name).is_file() for name in ("state.json", "dataset_dict.json"))


def _saved_dataset(directory: str, split: str, streaming: bool) -> Any:
    """A directory written by `save_to_disk`: Arrow files, memory-mapped as they are."""
    saved = datasets.load_from_disk(directory)
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(
                f"data.split: {split!r} is no split of {directory!r}{did_you_mean(split, saved)}; "
                f"splits: {shortened(sorted(saved))}"
            )
        saved = saved[split]
    return saved.to_iterable_dataset() if streaming else saved


def select_text(dataset: Any, source: DataSource) -> Any:
    """Only the text column, so that no other (an image, say) is decoded."""
    columns = dataset.column_names
    if columns is None:  # a stream whose schema is not known before its first row
        first = next(iter(dataset), None)
        if first is None:
            raise DataError(f"{source.origin()}: the corpus is empty: not one document")
        columns = list(first)
    if source.text_column not in columns:
        raise missing_column("text_column", source.text_column, source.origin(), columns)
    return dataset.select_columns([source.text_column])
