"""What the corpus asks of a tokenizer, and which of the two kinds a configuration names. Opening a Hugging Face one
imports `transformers`, so the launcher has its pieces counted in a process apart (`ligo_dist.runtime.apart`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ligo_dist.corpus.pretrained_tokenizer import PretrainedTokenizer
from ligo_dist.corpus.tokenizer import SentencePieceTokenizer
from ligo_dist.huggingface import resolve_directory
from ligo_dist.runtime.apart import ask_apart
from ligo_dist.runtime.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from ligo_dist.config import Tokenizer as TokenizerSettings


class TextTokenizer(Protocol):
    """Bytes to token ids. Can be pickled, for the processes that tokenize.

    Attributes:
        vocab_size: the largest id, and one.
        eos_id: ends each document; of encoders the separator.
        bos_id, pad_id, mask_id: beginning of a text, padding, what stands for a token to be predicted; None where
            there is none.
        unk_id: of unknown text; None where none stands for it.
        padding_id: what an export pads with: `pad_id`, else another that stands for no text; None where there is none.
        special_ids: ids that stand for no text; encoding gives none of them, but for an unknown token.
        fingerprint: of all that tokens depend on.
        origin: how messages name it.
    """

    vocab_size: int
    eos_id: int
    bos_id: int | None
    pad_id: int | None
    mask_id: int | None
    unk_id: int | None
    padding_id: int | None
    special_ids: frozenset[int]
    fingerprint: str
    origin: str

    def encode(self, data: bytes) -> list[int]:
        """The token ids of any bytes; no special tokens around them."""
        ...

    def write(self, directory: Path, samples: Sequence[bytes], max_positions: int | None) -> None:
        """Writes it so that `transformers.AutoTokenizer` opens it.

        Args:
            directory: exists; the model's config.json may lie there already.
            samples: documents to try it on.
            max_positions: longest sequence of the model.
        """
        ...


def given_tokenizer(settings: TokenizerSettings, source_directory: Path | None) -> TextTokenizer | None:
    """The tokenizer that the configuration names, else that of the source; None: one is to be trained.

    Args:
        source_directory: of `stages[0].from`.

    Raises:
        DataError: it cannot be used, or has another number of pieces than `vocab_size`.
    """
    if settings.file is not None:
        return SentencePieceTokenizer.from_file(settings.file, settings.vocab_size)
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


OpenTokenizer = Callable[["TokenizerSettings", Path | None], TextTokenizer | None]
"""`given_tokenizer`, or `OpenedOnce`."""


class OpenedOnce:
    """`given_tokenizer` for whoever needs one several times: it is opened once, which takes up to seconds."""

    def __init__(self) -> None:
        self._opened: list[tuple[TokenizerSettings, Path | None, TextTokenizer | None]] = []

    def __call__(self, settings: TokenizerSettings, source_directory: Path | None) -> TextTokenizer | None:
        for *asked, tokenizer in self._opened:
            if asked == [settings, source_directory]:
                return tokenizer
        tokenizer = given_tokenizer(settings, source_directory)
        self._opened.append((settings, source_directory, tokenizer))
        return tokenizer


def count_pieces(
    settings: TokenizerSettings,
    source_directory: Path | None,
    open_tokenizer: OpenTokenizer = given_tokenizer,
) -> int | None:
    """The pieces of that tokenizer; None: one is to be trained.

    Raises:
        DataError: as `given_tokenizer`.
    """
    given = open_tokenizer(settings, source_directory)
    return None if given is None else given.vocab_size


def count_pieces_apart(settings: TokenizerSettings, source_directory: Path | None) -> int | None:
    """The same; a Hugging Face tokenizer is opened in a process apart.

    Raises:
        DataError: as `given_tokenizer`.
        LigoError: that process fails.
    """
    if settings.file is not None or (settings.huggingface is None and source_directory is None):
        return count_pieces(settings, source_directory)
    request = [settings.model_dump(), None if source_directory is None else str(source_directory)]
    answer = ask_apart(__name__, request, "the tokenizer")
    if isinstance(answer, str):
        raise DataError(answer)
    return answer


def answer_apart(request: Any) -> int | str | None:
    """The answer to a question that was asked through `ligo_dist.runtime.apart`."""
    from ligo_dist.config import Tokenizer as TokenizerSettings

    settings, directory = request
    try:
        return count_pieces(TokenizerSettings(**settings), None if directory is None else Path(directory))
    except DataError as error:
        return str(error)


def check_masking(tokenizer: TextTokenizer, family: str, position_offset: int) -> None:
    """Whether a masked language model can be trained with a tokenizer.

    Args:
        position_offset: rows of the position embedding before the first position; a family that has them counts
            positions from its padding id on (RoBERTa: padding id 1, first position 2).

    Raises:
        DataError: no mask token, no padding token, one token for two of these and the end of a document, or a padding
            id that the family's positions do not allow for.
    """
    if tokenizer.mask_id is None:
        raise DataError(
            f"{tokenizer.origin} has no mask token, which {family} is trained to see through; take one that has "
            "(sentencepiece: control_symbols=<mask>), or let one be trained: tokenizer.vocab_size alone"
        )
    if tokenizer.pad_id is None:
        raise DataError(
            f"{tokenizer.origin} has no padding token, which {family} must be able to tell from text; take one "
            "that has (sentencepiece: pad_id=1), or let one be trained: tokenizer.vocab_size alone"
        )
    names = {"end": tokenizer.eos_id, "padding": tokenizer.pad_id, "mask": tokenizer.mask_id}
    for one, other in itertools.combinations(names, 2):
        if names[one] == names[other]:
            raise DataError(
                f"{tokenizer.origin} has one token, of the id {names[one]}, as its {one} and its {other} token, which "
                f"{family} must be able to tell apart; give it a {other} token of its own"
            )
    if position_offset and tokenizer.pad_id != position_offset - 1:
        raise DataError(
            f"{tokenizer.origin} has the padding id {tokenizer.pad_id}, but {family} counts positions from its "
            f"padding id on, which must be {position_offset - 1}"
        )
