"""The tokenizer that a configuration names. Imports no torch: the launcher counts its pieces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ligo_dist.corpus.pretrained_tokenizer import PretrainedTokenizer
from ligo_dist.corpus.text_tokenizer import TextTokenizer
from ligo_dist.corpus.tokenizer import Tokenizer
from ligo_dist.errors import CheckpointError, DataError
from ligo_dist.hub import resolve_directory

if TYPE_CHECKING:
    from ligo_dist.config.schema import Tokenizer as TokenizerSettings


def given_tokenizer(settings: TokenizerSettings, source_directory: Path | None) -> TextTokenizer | None:
    """The tokenizer that the configuration names, else that of the source; None: one is to be trained.

    Args:
        source_directory: of `stages[0].from`.

    Raises:
        DataError: it cannot be used, or has another number of pieces than `vocab_size`.
    """
    if settings.file is not None:
        return Tokenizer.from_file(settings.file, settings.vocab_size)
    if settings.huggingface is not None:
        origin = f"tokenizer.huggingface: {settings.huggingface!r}"
        try:
            directory = resolve_directory(settings.huggingface, weights=False)
        except CheckpointError as error:
            raise DataError(f"tokenizer.huggingface: {error}") from error
        tokenizer = PretrainedTokenizer(directory, origin)
        if settings.vocab_size not in (None, tokenizer.vocab_size):
            raise DataError(
                f"tokenizer.vocab_size: {settings.vocab_size}, but {settings.huggingface!r} has "
                f"{tokenizer.vocab_size} pieces; write {tokenizer.vocab_size} or null"
            )
        return tokenizer
    if settings.vocab_size is None and source_directory is not None:
        return PretrainedTokenizer(
            source_directory, f"stages[0].from: the tokenizer in {str(source_directory)!r}"
        )
    return None
