"""The tokenizer as `transformers` reads it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers

from ligo_dist.corpus.tokenizer import SPACE, ModelProto, Tokenizer
from ligo_dist.errors import DataError

logger = logging.getLogger(__name__)

_PROBES = (
    b"", b" ", b"  two  spaces \n\n\tand tabs\r\n", "žluťoučký kůň, 漢字".encode(),
    "\U0001f469\u200d\U0001f467 \ufffd".encode(), b"a" * 1000 + b" " * 1000 + b"=" * 77,
)  # fmt: skip
_LITERAL_SPECIALS = b"<s> and </s> and <unk> and <0x41> in the text"
"""Compared for BPE only: a unigram model whose vocabulary lacks `<` takes them for the special pieces."""

_NEVER = -1e6
"""Score of the pieces that unigram segmentation must not take from the text: `</s>` there is four
characters."""

_PieceType = ModelProto.SentencePiece


def write_huggingface_tokenizer(
    tokenizer: Tokenizer, directory: Path, samples: Sequence[bytes] = (), max_positions: int | None = None
) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json` and `tokenizer.model`, and reads them back to compare.

    `transformers.AutoTokenizer.from_pretrained(directory)` then gives the ids that `tokenizer` gives, for all
    UTF-8 text without a literal U+2581. A unigram model's segmentation may differ where two have the same
    score, as the two libraries sum scores in different precision; this is logged.

    Args:
        directory: exists; the model's config.json may lie there already.
        samples: documents to compare on, besides some built-in ones.
        max_positions: longest sequence of the model.

    Raises:
        DataError: the ids (for BPE) or the text decoded from them differ.
    """
    proto = ModelProto.FromString(tokenizer.model_bytes)
    (directory / "tokenizer.model").write_bytes(tokenizer.model_bytes)
    build_fast_tokenizer(proto).save(str(directory / "tokenizer.json"))
    config = json.dumps(_config(proto, tokenizer, max_positions), indent=2, ensure_ascii=False)
    (directory / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    _compare(tokenizer, directory, samples, exact=_is_bpe(proto))


def build_fast_tokenizer(proto: ModelProto) -> tokenizers.Tokenizer:
    """The same segmentation in the `tokenizers` library."""
    specials = [piece.piece for piece in proto.pieces if piece.type == _PieceType.CONTROL]
    symbols = [piece.piece for piece in proto.pieces if piece.type == _PieceType.USER_DEFINED]
    fast = tokenizers.Tokenizer(_bpe(proto) if _is_bpe(proto) else _unigram(proto))
    fast.normalizer = normalizers.Replace(" ", SPACE)
    fast.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    fast.add_special_tokens(
        [tokenizers.AddedToken(piece, special=True, normalized=False) for piece in specials]
    )
    fast.add_tokens([tokenizers.AddedToken(piece, special=False, normalized=True) for piece in symbols])
    fast.encode_special_tokens = True
    return fast


def _is_bpe(proto: ModelProto) -> bool:
    return int(proto.trainer_spec.model_type) == 2


def _bpe(proto: ModelProto) -> models.BPE:
    """Merges in the order of sentencepiece, which keeps only their results: the piece of the highest score
    first, and every pair of pieces that makes it."""
    ids = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    normal = {piece.piece for piece in proto.pieces if piece.type == _PieceType.NORMAL}
    merges: list[tuple[str, str]] = []
    for piece in sorted((p for p in proto.pieces if p.piece in normal), key=lambda p: -p.score):
        cuts = ((piece.piece[:i], piece.piece[i:]) for i in range(1, len(piece.piece)))
        pairs = [(left, right) for left, right in cuts if left in normal and right in normal]
        merges += sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    unknown = proto.pieces[proto.trainer_spec.unk_id].piece
    return models.BPE(vocab=ids, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)


def _unigram(proto: ModelProto) -> models.Unigram:
    in_text = (_PieceType.NORMAL, _PieceType.USER_DEFINED)
    scores = [(piece.piece, piece.score if piece.type in in_text else _NEVER) for piece in proto.pieces]
    return models.Unigram(scores, unk_id=proto.trainer_spec.unk_id, byte_fallback=True)


def _config(proto: ModelProto, tokenizer: Tokenizer, max_positions: int | None) -> dict[str, Any]:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": proto.pieces[tokenizer.eos_id].piece,
        "unk_token": proto.pieces[tokenizer.unk_id].piece,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        # A literal </s> in a text is text; but a masked language model's users write <mask> where it shall fill in.
        "split_special_tokens": tokenizer.mask_id is None,
    }
    optional = {"bos_token": tokenizer.bos_id, "pad_token": tokenizer.pad_id, "mask_token": tokenizer.mask_id}
    config |= {name: proto.pieces[i].piece for name, i in optional.items() if i is not None}
    if max_positions is not None:
        config["model_max_length"] = max_positions
    return config


def _compare(tokenizer: Tokenizer, directory: Path, samples: Sequence[bytes], exact: bool) -> None:
    huggingface = _as_opened(directory)
    different = compared = 0
    for text in _texts([*_PROBES, *([_LITERAL_SPECIALS] if exact else []), *samples]):
        expected = tokenizer.encode(text.encode())
        ids = huggingface(text, add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]
        compared += 1
        different += ids != expected
        if huggingface.decode(ids) != text or (exact and ids != expected):
            raise DataError(
                f"tokenizer: the Hugging Face tokenizer written to {directory} does not give the ids of the "
                f"sentencepiece model on {text[:60]!r}; use tokenizer.model there instead"
            )
    if different:
        logger.warning(
            "tokenizer.json segments %d of %d texts in another way than tokenizer.model, in places where two "
            "segmentations score the same (unigram); the text is the same",
            different,
            compared,
        )


def _as_opened(directory: Path) -> Any:
    """The tokenizer as a user opens it.

    `AutoTokenizer` puts the library's own class in the place of the one that is written for some families (Qwen2),
    because their older repositories name a wrong one. That class splits text in its own way first, so where it comes
    up the tokenizer has to be opened as what it is, which is logged.
    """
    # Seconds, and only an export needs them.
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    opened = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    if isinstance(opened, PreTrainedTokenizerFast) and type(opened).__name__ in _GENERIC:
        return opened
    logger.warning(
        "AutoTokenizer opens the export as a %s, which splits text in another way than the tokenizer of this run;"
        " open it with transformers.PreTrainedTokenizerFast.from_pretrained",
        type(opened).__name__,
    )
    return PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True)


_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Names of the class that takes a `tokenizer.json` as it is."""


def _texts(documents: Sequence[bytes]) -> Iterator[str]:
    """Those that both sides take alike: UTF-8 without a literal U+2581."""
    for document in documents:
        try:
            text = document.decode()
        except UnicodeDecodeError:
            continue
        if SPACE not in text:
            yield text
