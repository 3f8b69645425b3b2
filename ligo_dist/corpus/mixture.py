"""Several sources as one corpus: each prepared by itself, all with one tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligo_dist.config import is_image_family, source_configs, told_of_source, trains_tokenizer
from ligo_dist.corpus.boundaries import mean_attended
from ligo_dist.corpus.cache import cache_key, file_fault, make_cached, progress_bar, size_and_checksum
from ligo_dist.corpus.corpus import Corpus
from ligo_dist.corpus.order import is_validation
from ligo_dist.corpus.prepare import recall_corpus
from ligo_dist.corpus.samples import MixedSamples
from ligo_dist.corpus.sources import DataSource, Documents
from ligo_dist.corpus.text_corpus import build_text_corpus, find_text
from ligo_dist.corpus.text_tokenizer import OpenTokenizer, TextTokenizer
from ligo_dist.corpus.tokenizer import TOKENIZER_FILE, SentencePieceTokenizer
from ligo_dist.corpus.tokenizer_training import SAMPLE_BYTES, WINDOW_BYTES, train_tokenizer
from ligo_dist.runtime.errors import DataError

if TYPE_CHECKING:
    from ligo_dist.config import Config, Tokenizer

_FORMAT = 1
"""Raise it with every change of the code that trains another tokenizer on the same sources."""


@dataclass(frozen=True)
class MixtureCorpus:
    """Several sources; see `Corpus`. How much of each is drawn is said by the plan (`schedule.Mixing`).

    Attributes:
        sources: by their names, in the order of the configuration.
        weights: of the sources, in the same order.
    """

    sources: Mapping[str, Corpus]
    weights: Sequence[float]

    @cached_property
    def train(self) -> MixedSamples:
        return MixedSamples([source.train for source in self.sources.values()])

    @cached_property
    def validation(self) -> MixedSamples:
        return MixedSamples([source.validation for source in self.sources.values()])

    @property
    def fingerprint(self) -> str:
        """Of the sources in their order: another one is another order of samples."""
        return cache_key({"mixture": [source.fingerprint for source in self.sources.values()]})

    @property
    def description(self) -> str:
        return "; ".join(f"{name}: {source.description}" for name, source in self.sources.items())

    @property
    def tokenizer(self) -> TextTokenizer | None:
        return self._first.tokenizer

    @property
    def vocab_size(self) -> int:
        return self._first.vocab_size

    @property
    def attended(self) -> int | None:
        """By the weights of the section `data`; a stage's own weights may draw longer or shorter documents."""
        return mean_attended([source.attended for source in self.sources.values()], self.weights)

    def library_keys(self) -> dict[str, Any]:
        return self._first.library_keys()

    def exported_keys(self) -> dict[str, Any]:
        return self._first.exported_keys()

    def write_processor(self, directory: Path) -> None:
        self._first.write_processor(directory)

    @property
    def _first(self) -> Corpus:
        """What is said of tokenizer or classes holds for all."""
        return next(iter(self.sources.values()))


def build_mixture(
    config: Config,
    source_directory: Path | None,
    show_progress: bool,
    open_tokenizer: OpenTokenizer | None = None,
) -> MixtureCorpus:
    """See `build_corpus`.

    Raises:
        DataError: as there, with the key of the source that it is about; images of different classes; or a source that
            is not there and was prepared before with another tokenizer.
    """
    architecture, alone = config.architecture, source_configs(config)
    weights = [source.weight for source in config.data.mixture.values()]
    sources: dict[str, Corpus] = {}
    if is_image_family(architecture):
        from ligo_dist.corpus.image_corpus import build_image_corpus

        classes = {}
        for name, one in alone.items():
            with _told(name):
                images = build_image_corpus(one, architecture, source_directory, show_progress)
            sources[name], classes[name] = images, images.names
        _check_classes(classes)
        return MixtureCorpus(sources, weights)
    if trains_tokenizer(config):
        trained = _trained_tokenizer(config, alone, show_progress)

        def opened(settings: Tokenizer, directory: Path | None) -> TextTokenizer | None:
            return trained

        open_tokenizer = opened
    for name, one in alone.items():
        with _told(name):
            sources[name] = build_text_corpus(
                one, architecture, source_directory, show_progress, open_tokenizer
            )
    _check_tokenizers(sources)
    return MixtureCorpus(sources, weights)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Errors about a source, with its own keys."""
    try:
        yield
    except DataError as error:
        told = told_of_source(str(error), name)
        path = f"data.mixture.{name}"
        raise DataError(told if told.startswith(f"{path}.") else f"{path}: {told}") from error


def _check_classes(classes: Mapping[str, list[str] | None]) -> None:
    first, *others = classes
    for name in others:
        if classes[name] != classes[first]:
            one, other = (", ".join((classes[key] or ["of no name"])[:5]) for key in (name, first))
            raise DataError(
                f"data.mixture.{name}: its classes are {one}, and those of {first} {other}; all sources of images must"
                " have the same"
            )


def _check_tokenizers(sources: Mapping[str, Corpus]) -> None:
    first, *others = sources
    for name in others:
        ours, theirs = sources[first].tokenizer, sources[name].tokenizer
        assert ours is not None and theirs is not None
        if ours.fingerprint != theirs.fingerprint:
            raise DataError(
                f"data.mixture: {first} and {name} were prepared with different tokenizers, and not all that they are"
                f" made from is there to prepare them again: {sources[first].description}; {sources[name].description}"
            )


def _trained_tokenizer(config: Config, alone: Mapping[str, Config], show_progress: bool) -> TextTokenizer:
    """The tokenizer that is trained on all sources, or was before. Where one of them is not there any more it is that
    with which this one was prepared."""
    found: dict[str, tuple[DataSource, dict[str, Any]]] = {}
    for name, one in alone.items():
        try:
            found[name] = find_text(one)
        except DataError as error:
            with _told(name):
                return recall_corpus(one, error).tokenizer
    settings, data = config.tokenizer, config.data
    vocab_size, kind = settings.vocab_size, settings.model_type
    assert vocab_size is not None
    masked = config.architecture.objective == "masked_lm"
    inputs: dict[str, Any] = {
        "format": _FORMAT,
        "sources": sorted((identity for _, identity in found.values()), key=cache_key),
        "validation_fraction": data.validation_fraction,
        "tokenizer": [vocab_size, kind, SAMPLE_BYTES[kind], masked],
        "libraries": {library: version(library) for library in ("datasets", "sentencepiece")},
    }
    cache_dir = Path(data.cache_dir)

    def texts(advance: Any) -> Iterator[bytes]:
        for name, (source, identity) in found.items():
            with _told(name):
                kept = cache_dir / "documents" / cache_key(identity)
                documents = source.open(alone[name].data.streaming, kept)
                yield from _train_split(
                    documents, data.validation_fraction, WINDOW_BYTES // len(found), advance
                )

    def make(directory: Path) -> dict[str, Any]:
        with progress_bar("training the tokenizer", None, show_progress) as advance:
            model = train_tokenizer(texts(advance), vocab_size, kind, masked)
        (directory / TOKENIZER_FILE).write_bytes(model)
        return {"tokenizer": size_and_checksum(directory / TOKENIZER_FILE)}

    directory = make_cached(cache_dir, inputs, make, _fault)
    path = directory / TOKENIZER_FILE
    return SentencePieceTokenizer(path.read_bytes(), str(path))


def _train_split(documents: Documents, fraction: float, num_bytes: int, advance: Any) -> Iterator[bytes]:
    """About so many bytes of the documents, without those for validation."""
    for document in documents.spread(num_bytes):
        advance(1)
        if not is_validation(document, fraction):
            yield document
        num_bytes -= len(document)
        if num_bytes <= 0:
            return


def _fault(directory: Path, index: dict[str, Any]) -> str | None:
    return file_fault(directory / TOKENIZER_FILE, **index["tokenizer"])
