"""What is trained on: of text, or of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ligo_dist.config import source_configs
from ligo_dist.corpus.prepared import corpus_name

if TYPE_CHECKING:
    from ligo_dist.config import Config
    from ligo_dist.corpus.samples import Samples
    from ligo_dist.corpus.text_tokenizer import OpenTokenizer, TextTokenizer


class Corpus(Protocol):
    """What is trained on, of text or of images.

    Attributes:
        train, validation: samples, as the model's objective wants them.
        fingerprint: of what they hold, whatever it was made from and by which versions of what.
        description: a line about it.
        tokenizer: of text; None for images.
        vocab_size: pieces of it; 0 for images.
        attended: pairs of positions of a sequence that attend to each other, on average; None: all.
        sources: those of a mixture by their names, each as a corpus of its own; none where it is no mixture.
    """

    @property
    def train(self) -> Samples: ...

    @property
    def validation(self) -> Samples: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def tokenizer(self) -> TextTokenizer | None: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def attended(self) -> int | None: ...

    @property
    def sources(self) -> Mapping[str, Corpus]: ...

    def library_keys(self) -> dict[str, Any]:
        """What it says of the library's configuration of a model in training: special tokens' ids, classes' names."""
        ...

    def exported_keys(self) -> dict[str, Any]:
        """The same for an export; not what the first stage's own model says of its own tokenizer."""
        ...

    def write_processor(self, directory: Path) -> None:
        """Writes what turns text or images into a model's inputs: a tokenizer, or an image processor."""
        ...


def parts_of(config: Config, corpus: Corpus) -> list[tuple[str, str, Corpus]]:
    """The sources of a mixture, or the one corpus under the name "": the name of each, what it is read from, and what
    there is of it."""
    parts = zip(source_configs(config).items(), corpus.sources.values() or [corpus], strict=True)
    return [(name, corpus_name(alone, name), part) for (name, alone), part in parts]


def build_corpus(
    config: Config,
    source_directory: Path | None = None,
    show_progress: bool = True,
    open_tokenizer: OpenTokenizer | None = None,
) -> Corpus:
    """Prepares the corpus of a configuration, or finds it in the cache: of a mixture all sources. May be called on all
    ranks at once.

    Args:
        config: with what `stages[0].from` says filled in.
        source_directory: of `stages[0].from`: its tokenizer, or its image processor's numbers, are taken.
        show_progress: a bar on standard error; only the process that does the work shows one.
        open_tokenizer: what has opened the tokenizer already; None: nothing has.

    Raises:
        DataError: a source, tokenizer or cache that cannot be used, too little text for one sequence, or images that
            do not fit the configuration.
    """
    architecture = config.architecture
    if config.data.mixture:
        from ligo_dist.corpus.mixture import build_mixture

        return build_mixture(config, source_directory, show_progress, open_tokenizer)
    # Not at the top: tokenizing processes and the launcher import this package too, and these take seconds.
    if architecture.objective == "image_classification":
        from ligo_dist.corpus.image_corpus import build_image_corpus

        return build_image_corpus(config, architecture, source_directory, show_progress)
    from ligo_dist.corpus.text_corpus import build_text_corpus

    return build_text_corpus(config, architecture, source_directory, show_progress, open_tokenizer)
