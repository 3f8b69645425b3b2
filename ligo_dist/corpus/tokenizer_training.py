"""Training a sentencepiece model on a sample of the corpus."""

from __future__ import annotations

import hashlib
import heapq
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

import sentencepiece

from ligo_dist.corpus.tokenizer import MASK, SPACE
from ligo_dist.runtime.errors import DataError

SAMPLE_BYTES = {"bpe": 10_000_000, "unigram": 3_000_000}
"""Text that a model is trained on, at most. Unigram training takes about ten times as long for the same
text."""

WINDOW_BYTES = 1 << 30
"""The sample comes from so much of the corpus, so that not all of a large one is read for it: as much of each file, or
of a stream its beginning."""

_EXCERPT_BYTES = 16 << 10

IDS: dict[str, Any] = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
"""Of the special pieces: <unk>, <s>, </s>."""

MASKING_IDS: dict[str, Any] = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3}
"""Of the special pieces for masked language models: <s>, <pad>, </s>, <unk>, as RoBERTa has them; <mask> is 4."""


def train_tokenizer(
    documents: Iterable[bytes], vocab_size: int, model_type: str, masked: bool = False
) -> bytes:
    """Trains a tokenizer that `ligo_dist.corpus.tokenizer.Tokenizer` takes: byte fallback, no normalisation.

    The same documents give the same bytes, in any order of up to a GiB of them.

    Args:
        documents: of the train split.
        vocab_size: pieces, with <unk>, <s>, </s> and the 256 byte pieces among them.
        model_type: bpe | unigram.
        masked: with <pad> and <mask> too, for masked language models.

    Returns:
        The serialized sentencepiece model.

    Raises:
        DataError: the vocabulary is too large for the text, or too small for its characters.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_clean(sample_excerpts(documents, SAMPLE_BYTES[model_type])),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            **(MASKING_IDS if masked else IDS),
            control_symbols=[MASK] if masked else [],
            max_sentence_length=2 * _EXCERPT_BYTES,
            shuffle_input_sentence=False,
            num_threads=4,  # written into the model, so a constant
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(_explanation(str(error), vocab_size)) from error
    return model.getvalue()


def sample_excerpts(documents: Iterable[bytes], num_bytes: int) -> list[bytes]:
    """Excerpts of the documents, `num_bytes` together or little more, chosen and ordered by a hash of their
    content.

    Holds no more than the sample in memory, and does not depend on the order of the documents.
    """
    kept: list[tuple[int, bytes]] = []  # a heap with the largest hash on top: the first to go
    total = 0
    for excerpt in _excerpts(documents):
        digest = hashlib.blake2b(excerpt, digest_size=8, person=b"sample").digest()
        heapq.heappush(kept, (-int.from_bytes(digest, "big"), excerpt))
        total += len(excerpt)
        while total - len(kept[0][1]) >= num_bytes:
            total -= len(heapq.heappop(kept)[1])
    return [excerpt for _, excerpt in sorted(kept, reverse=True)]


def _excerpts(documents: Iterable[bytes]) -> Iterator[bytes]:
    read = 0
    for document in documents:
        for start in range(0, len(document), _EXCERPT_BYTES):
            yield document[start : start + _EXCERPT_BYTES]
        read += len(document)
        if read >= WINDOW_BYTES:
            return


def _clean(excerpts: Iterable[bytes]) -> Iterator[str]:
    """Without what sentencepiece does not train on; all of it is encoded as byte pieces."""
    for excerpt in excerpts:
        yield excerpt.decode("utf-8", "ignore").replace("\0", "").replace(SPACE, "")


def _explanation(message: str, vocab_size: int) -> str:
    at_most = re.search(r"too high .*<= (\d+)", message)
    if at_most:
        return (
            f"tokenizer.vocab_size: {vocab_size} is more than the train split's text gives rise to; it "
            f"allows at most {at_most[1]}: write a smaller number or read more text"
        )
    at_least = re.search(r"smaller than required_chars\D*\d+ vs (\d+)", message)
    if at_least:
        return (
            f"tokenizer.vocab_size: {vocab_size} is too small for the text's characters; it needs more than "
            f"{at_least[1]}"
        )
    return f"tokenizer: no model of {vocab_size} pieces can be trained on the train split: {message}"
