"""What the corpus asks of a tokenizer, and the two that there are: `tokenizer`, `pretrained_tokenizer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ligo_dist.runtime.errors import DataError


class TextTokenizer(Protocol):
    """Bytes to token ids. Can be pickled, for the processes that tokenize.

    Attributes:
        vocab_size: the largest id, and one.
        eos_id: ends each document; of encoders the separator.
        bos_id, pad_id, mask_id: beginning of a text, padding, what stands for a token to be predicted; None where
            there is none.
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


def check_masking(tokenizer: TextTokenizer, family: str, position_offset: int) -> None:
    """Whether a masked language model can be trained with a tokenizer.

    Args:
        position_offset: rows of the position embedding before the first position; a family that has them counts
            positions from its padding id on (RoBERTa: padding id 1, first position 2).

    Raises:
        DataError: no mask token, no padding token, or a padding id that the family's positions do not allow for.
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
    if position_offset and tokenizer.pad_id != position_offset - 1:
        raise DataError(
            f"{tokenizer.origin} has the padding id {tokenizer.pad_id}, but {family} counts positions from its "
            f"padding id on, which must be {position_offset - 1}"
        )
