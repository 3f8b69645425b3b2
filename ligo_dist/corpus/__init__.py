"""The corpus: documents -> tokens -> packed blocks -> batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ligo_dist.config import Config
    from ligo_dist.corpus.blocks import PackedBlocks
    from ligo_dist.corpus.packing import SplitStatistics
    from ligo_dist.corpus.tokenizer import Tokenizer


@dataclass(frozen=True)
class Corpus:
    """A corpus that is ready to be trained on.

    Attributes:
        tokenizer: the one that made the tokens.
        train, validation: blocks of the sequence length.
        fingerprint: of everything that the tokens are made from.
        statistics: documents, tokens and bytes of text of "train" and "validation".
        directory: where it lies in the cache.
    """

    tokenizer: Tokenizer
    train: PackedBlocks
    validation: PackedBlocks
    fingerprint: str
    statistics: dict[str, SplitStatistics]
    directory: Path

    def sample_documents(self, count: int) -> list[bytes]:
        """The first documents of the validation split, at most `count`, e.g. to compare tokenizers on."""
        tokens = self.validation.read(range(min(len(self.validation), 4096))).ravel()
        ends = (tokens == self.tokenizer.eos_id).nonzero()[0][:count]
        starts = [0, *(ends + 1)]
        return [self.tokenizer.decode(tokens[start:end]) for start, end in zip(starts, ends, strict=False)]


def build_corpus(config: Config, show_progress: bool = True) -> Corpus:
    """Prepares the corpus of a configuration, or finds it in the cache. May be called on all ranks at once.

    Args:
        show_progress: a bar on standard error; only the process that does the work shows one.

    Raises:
        DataError: a source, tokenizer or cache that cannot be used, or too little text for one sequence.
    """
    # Not at the top: tokenizing processes and the launcher import this package too, and these take seconds.
    from ligo_dist.corpus.blocks import PackedBlocks
    from ligo_dist.corpus.prepare import prepare_corpus
    from ligo_dist.corpus.sources import find_source

    data, tokenizer = config.data, config.tokenizer
    source = find_source(
        kind=data.source,
        files=data.files,
        name=data.name,
        subset=data.subset,
        split=data.split,
        text_column=data.text_column,
        document=data.document,
        include_tests=data.include_tests,
        max_documents=data.max_documents,
    )
    packed = prepare_corpus(
        source=source,
        streaming=data.streaming,
        validation_fraction=data.validation_fraction,
        tokenizer_file=tokenizer.file,
        vocab_size=tokenizer.vocab_size,
        model_type=tokenizer.model_type,
        workers=data.workers,
        cache_dir=Path(data.cache_dir),
        show_progress=show_progress,
    )
    return Corpus(
        tokenizer=packed.tokenizer,
        train=PackedBlocks(packed.token_file("train"), packed.dtype, data.sequence_length),
        validation=PackedBlocks(packed.token_file("validation"), packed.dtype, data.sequence_length),
        fingerprint=packed.fingerprint,
        statistics=packed.statistics,
        directory=packed.directory,
    )
