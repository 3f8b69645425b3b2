"""A sentencepiece tokenizer that gives back any bytes it was given, and the same as `transformers` reads it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
from tokenizers import decoders, models, normalizers

from ligo_dist.runtime.errors import DataError

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.model"
MASK = "<mask>"
"""The piece that stands for a token to be predicted."""

SPACE = "\u2581"
"""What sentencepiece writes for a space inside its pieces."""

_UNREPRESENTABLE = f"{SPACE}\udc80-\udcff"
"""A literal U+2581, which sentencepiece takes for a space, and bytes that are not UTF-8 (Python's surrogate
escapes)."""

_SEGMENT_CHARACTERS = 1 << 20

_PieceType = ModelProto.SentencePiece

_PROBES = (
    b"", b" ", b"  two  spaces \n\n\tand tabs\r\n", "žluťoučký kůň, 漢字".encode(),
    "\U0001f469\u200d\U0001f467 \ufffd".encode(), b"a" * 1000 + b" " * 1000 + b"=" * 77,
)  # fmt: skip
_LITERAL_SPECIALS = b"<s> and </s> and <unk> and <0x41> in the text"
"""Compared for BPE only: a unigram model whose vocabulary lacks `<` takes them for the special pieces."""

_NEVER = -1e6
"""Score of the pieces that unigram segmentation must not take from the text: `</s>` there is four
characters."""

_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Names of the class that takes a `tokenizer.json` as it is."""


class SentencePieceTokenizer:
    """Bytes to token ids and back, without loss: `decode(encode(data)) == data` for any bytes.

    Text goes through sentencepiece. What it cannot represent goes through the model's 256 byte pieces: a
    literal U+2581, bytes that are not UTF-8, spaces where no piece is one, and any text that would not come back as
    it was.

    Attributes:
        vocab_size: number of pieces.
        eos_id, unk_id: ids of the end-of-document and the unknown piece; the latter never comes out.
        bos_id: id of the beginning-of-document piece, None where the model has none. Encoding adds neither
            BOS nor EOS.
        pad_id, mask_id: of the padding piece and of the piece `<mask>`, None where the model has none.
        padding_id: what an export pads with: where there is no padding piece the unknown one, which no text gives.
        special_ids: of all pieces that stand for no text.
        model_bytes: the sentencepiece model.
        fingerprint: sha256 of `model_bytes`, in hexadecimal.
        origin: how messages name it.

    Args:
        model: a serialized sentencepiece model. Where it puts a space before every text or collapses spaces,
            that is switched off, as it is not lossless.
        origin: how error messages name the model.

    Raises:
        DataError: no sentencepiece model; no byte pieces or no EOS; a normaliser that rewrites text.
    """

    def __init__(self, model: bytes, origin: str = "the trained model") -> None:
        proto = _parse(model, origin)
        _check(proto, origin)
        self.origin = origin
        self.model_bytes = _keeping_spaces(proto, model)
        self.fingerprint = hashlib.sha256(self.model_bytes).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=self.model_bytes)
        self.vocab_size = len(proto.pieces)
        self.unk_id: int | None = int(self._processor.unk_id())
        self.eos_id = int(self._processor.eos_id())
        bos_id = int(self._processor.bos_id())
        pad_id = int(self._processor.pad_id())
        self.bos_id = bos_id if bos_id >= 0 else None
        self.pad_id = pad_id if pad_id >= 0 else None
        self.padding_id: int | None = self.unk_id if self.pad_id is None else self.pad_id
        # A model of text without spaces has no piece for them; sentencepiece would give the bytes of a U+2581.
        space = "" if _has_spaces(proto) else " "
        self._unrepresentable = re.compile(f"([{_UNREPRESENTABLE}{space}]+)")
        self.special_ids = frozenset(
            number
            for number, piece in enumerate(proto.pieces)
            if piece.type in (_PieceType.CONTROL, _PieceType.UNKNOWN)
        )
        self.mask_id = next((i for i in sorted(self.special_ids) if proto.pieces[i].piece == MASK), None)
        self._bytes_of_piece = [_piece_bytes(piece) for piece in proto.pieces]
        byte_ids = {
            self._bytes_of_piece[i][0]: i
            for i, piece in enumerate(proto.pieces)
            if piece.type == _PieceType.BYTE
        }
        self._id_of_byte = [byte_ids[value] for value in range(256)]

    @classmethod
    def from_file(cls, path: str | Path, vocab_size: int | None = None) -> SentencePieceTokenizer:
        """Reads a sentencepiece `.model`.

        Args:
            vocab_size: the number of pieces it must have, or None.

        Raises:
            DataError: no such file, not usable (see the class), or of another vocabulary.
        """
        try:
            model = Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"tokenizer.file: {str(path)!r} cannot be read: {error.strerror}") from error
        tokenizer = cls(model, origin=f"tokenizer.file: {str(path)!r}")
        if vocab_size is not None and vocab_size != tokenizer.vocab_size:
            raise DataError(
                f"tokenizer.vocab_size: {vocab_size}, but {str(path)!r} has {tokenizer.vocab_size} pieces: a "
                f"tokenizer of another vocabulary; write {tokenizer.vocab_size} or null"
            )
        return tokenizer

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self.model_bytes, self.origin)

    def encode(self, data: bytes) -> list[int]:
        """The token ids of any bytes; no BOS, no EOS."""
        ids: list[int] = []
        parts = self._unrepresentable.split(data.decode("utf-8", "surrogateescape"))
        for number, part in enumerate(parts):
            if number % 2:
                ids += self._encode_bytes(part.encode("utf-8", "surrogateescape"))
                continue
            for start in range(0, len(part), _SEGMENT_CHARACTERS):
                ids += self._encode_text(part[start : start + _SEGMENT_CHARACTERS])
        return ids

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids; BOS, EOS and unknown stand for no bytes.

        Raises:
            IndexError: an id that is not below `vocab_size`.
        """
        return b"".join(map(self._bytes_of_piece.__getitem__, ids))

    def write(self, directory: Path, samples: Sequence[bytes] = (), max_positions: int | None = None) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` and `tokenizer.model`, and reads them back to compare.

        `transformers.AutoTokenizer.from_pretrained(directory)` then gives the same ids for all UTF-8 text without a
        literal U+2581. A unigram model's segmentation may differ where two have the same score, as the two libraries
        sum scores in different precision; this is logged.

        Args:
            directory: exists; the model's config.json may lie there already.
            samples: documents to compare on, besides some built-in ones.
            max_positions: longest sequence of the model.

        Raises:
            DataError: the ids (for BPE) or the text decoded from them differ.
        """
        proto = ModelProto.FromString(self.model_bytes)
        (directory / TOKENIZER_FILE).write_bytes(self.model_bytes)
        build_fast_tokenizer(proto).save(str(directory / "tokenizer.json"))
        config = json.dumps(_config(proto, self, max_positions), indent=2, ensure_ascii=False)
        (directory / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
        _compare(self, directory, samples, exact=_is_bpe(proto))

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        data = text.encode()
        return ids if self.decode(ids) == data else self._encode_bytes(data)

    def _encode_bytes(self, data: bytes) -> list[int]:
        return [self._id_of_byte[value] for value in data]


def _has_spaces(proto: ModelProto) -> bool:
    return any(piece.piece == SPACE for piece in proto.pieces)


def _parse(model: bytes, origin: str) -> ModelProto:
    proto = ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError as error:
        raise DataError(f"{origin} is no sentencepiece model") from error
    if not proto.pieces:
        raise DataError(f"{origin} is no sentencepiece model: it has no pieces")
    return proto


def _check(proto: ModelProto, origin: str) -> None:
    if sum(piece.type == _PieceType.BYTE for piece in proto.pieces) != 256:
        raise DataError(
            f"{origin} has no byte fallback, so that some text could not be represented; train it with "
            "byte_fallback=true"
        )
    eos = proto.trainer_spec.eos_id
    if not 0 <= eos < len(proto.pieces) or proto.pieces[eos].type != _PieceType.CONTROL:
        raise DataError(f"{origin} has no EOS piece, which ends each document; train it with eos_id=2, say")
    if proto.normalizer_spec.precompiled_charsmap:
        raise DataError(
            f"{origin} rewrites text (normaliser {proto.normalizer_spec.name!r}), so that it would not come "
            "back; train it with normalization_rule_name=identity"
        )
    if not proto.normalizer_spec.escape_whitespaces:
        raise DataError(
            f"{origin} keeps spaces as they are in its pieces; train it with escape_whitespaces=true"
        )


def _keeping_spaces(proto: ModelProto, model: bytes) -> bytes:
    """The model with every change of whitespace switched off; the very same bytes where none was on."""
    normalizer = proto.normalizer_spec
    if not (normalizer.add_dummy_prefix or normalizer.remove_extra_whitespaces):
        return model
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = False
    return proto.SerializeToString(deterministic=True)


def _piece_bytes(piece: ModelProto.SentencePiece) -> bytes:
    if piece.type == _PieceType.BYTE:
        return bytes([int(piece.piece[3:5], 16)])  # <0xAB>
    if piece.type in (_PieceType.CONTROL, _PieceType.UNKNOWN):
        return b""
    return piece.piece.replace(SPACE, " ").encode()


def build_fast_tokenizer(proto: ModelProto) -> tokenizers.Tokenizer:
    """The same segmentation in the `tokenizers` library."""
    specials = [piece.piece for piece in proto.pieces if piece.type == _PieceType.CONTROL]
    symbols = [piece.piece for piece in proto.pieces if piece.type == _PieceType.USER_DEFINED]
    fast = tokenizers.Tokenizer(_bpe(proto) if _is_bpe(proto) else _unigram(proto))
    if _has_spaces(proto):
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


def _config(
    proto: ModelProto, tokenizer: SentencePieceTokenizer, max_positions: int | None
) -> dict[str, Any]:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": proto.pieces[tokenizer.eos_id].piece,
        "unk_token": proto.pieces[tokenizer.unk_id].piece,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,  # llama.cpp puts a space before a text unless this says otherwise
        # A literal </s> in a text is text; but a masked language model's users write <mask> where it shall fill in.
        "split_special_tokens": tokenizer.mask_id is None,
    }
    optional = {
        "bos_token": tokenizer.bos_id,
        "pad_token": tokenizer.padding_id,
        "mask_token": tokenizer.mask_id,
    }
    config |= {name: proto.pieces[i].piece for name, i in optional.items() if i is not None}
    if max_positions is not None:
        config["model_max_length"] = max_positions
    return config


def _compare(
    tokenizer: SentencePieceTokenizer, directory: Path, samples: Sequence[bytes], exact: bool
) -> None:
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


def _texts(documents: Sequence[bytes]) -> Iterator[str]:
    """Those that both sides take alike: UTF-8 without a literal U+2581."""
    for document in documents:
        try:
            text = document.decode()
        except UnicodeDecodeError:
            continue
        if SPACE not in text:
            yield text
