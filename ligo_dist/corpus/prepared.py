"""What is known of a corpus before it is built: its name, and what was prepared for it before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ligo_dist.config import is_image_family, source_configs, told_of_source
from ligo_dist.corpus.boundaries import Boundaries, ends_file, mean_attended, read_ends
from ligo_dist.corpus.cache import find_prepared, read_index
from ligo_dist.runtime.errors import DataError, shortened

if TYPE_CHECKING:
    from ligo_dist.config import Config, Tokenizer


def corpus_name(config: Config, name: str = "") -> str:
    """What a configuration says that its corpus is read from; `name`: of it as a source of a mixture."""
    data = config.data
    places = data.files if data.name is None else [data.name]
    said = f"data.source {data.source}" + (f" ({shortened(places, 2)})" if places else "")
    return told_of_source(said, name)


def describe_prepared(config: Config, taken: Mapping[str, int]) -> list[str]:
    """What a run will be trained on, a line for each source, and how much of it there is where it has been prepared.

    Args:
        taken: samples that the run takes of each source; of the one there is under the name "".
    """
    return [_describe_source(alone, name, taken[name]) for name, alone in source_configs(config).items()]


def _describe_source(config: Config, name: str, taken: int) -> str:
    directory = find_prepared(config)
    try:
        index = None if directory is None else read_index(directory)
        if index is None:
            of_mixture = f", {taken:,} samples taken" if name else ""
            what = f"prepared when the run starts{of_mixture}"
        elif is_image_family(config.architecture):
            images = index["images"]["train"]
            what = f"{images:,} images to train on, {epochs(taken, images)}, in {directory}"
        else:
            tokens = index["splits"]["train"]["tokens"]
            gone_through = epochs(taken, tokens // config.data.sequence_length)
            what = f"{tokens:,} tokens to train on, {gone_through}, in {directory}"
    except (OSError, ValueError, KeyError) as error:
        what = f"prepared in {directory}, and damaged ({error})"
    return f"{corpus_name(config, name)}: {what}"


def prepared_attended(config: Config) -> int | None:
    """Pairs of positions of a sequence that attend to each other, on average over what was last prepared to train on;
    None: documents are not kept apart, or it is not known yet where they end."""
    weights = [source.weight for source in config.data.mixture.values()] or [1.0]
    return mean_attended([_attended_alone(one) for one in source_configs(config).values()], weights)


def _attended_alone(config: Config) -> int | None:
    """The same of one source."""
    directory = find_prepared(config) if config.data.separate_documents else None
    if directory is None or not ends_file(directory, "train").is_file():
        return None
    return Boundaries(read_ends(directory, "train"), config.data.sequence_length).attended()


_MOST_EPOCHS = 16
"""After so many a repeated token is worth far less than a new one (Muennighoff et al., arXiv 2305.16264, section 6)."""


def epochs(taken: int, samples: int) -> str:
    """How often a run that takes so many samples goes through a corpus of so many; where that is too often, what
    would be right."""
    times = taken / max(1, samples)
    told = f"{times:,.2f} epochs" if times < 10 else f"{times:,.0f} epochs"
    if times <= _MOST_EPOCHS:
        return told
    return (
        f"{told}, of which those after the first {_MOST_EPOCHS} teach little: more data (data), or fewer steps"
        " (stages[].train.steps), would be right"
    )


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
        alone = next(iter(source_configs(config).values()))  # all have the same pieces
        prepared = find_prepared(alone) if is_named else None
        if prepared is None:
            raise
        return read_index(prepared)["tokenizer"]["vocab_size"]
    pieces = config.tokenizer.vocab_size if pieces is None else pieces
    assert pieces is not None, "a checked configuration has one or the other"
    return pieces
