"""A sentencepiece tokenizer that gives back any bytes it was given."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

from ligo_dist.errors import DataError

TOKENIZER_FILE = "tokenizer.model"
MASK = "<mask>"
"""The piece that stands for a token to be predicted."""

SPACE = "\u2581"
"""What sentencepiece writes for a space inside its pieces."""

_UNREPRESENTABLE = re.compile(f"([{SPACE}\udc80-\udcff]+)")
"""A literal U+2581, which sentencepiece takes for a space, and bytes that are not UTF-8 (Python's surrogate
escapes)."""

_SEGMENT_CHARACTERS = 1 << 20

_PieceType = ModelProto.SentencePiece


class Tokenizer:
    """Bytes to token ids and back, without loss: `decode(encode(data)) == data` for any bytes.

    Text goes through sentencepiece. What it cannot represent goes through the model's 256 byte pieces: a
    literal U+2581, bytes that are not UTF-8, and any text that would not come back as it was.

    Attributes:
        vocab_size: number of pieces.
        eos_id, unk_id: ids of the end-of-document and the unknown piece; the latter never comes out.
        bos_id: id of the beginning-of-document piece, None where the model has none. Encoding adds neither
            BOS nor EOS.
        pad_id, mask_id: of the padding piece and of the piece `<mask>`, None where the model has none.
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
        self.unk_id = int(self._processor.unk_id())
        self.eos_id = int(self._processor.eos_id())
        bos_id = int(self._processor.bos_id())
        pad_id = int(self._processor.pad_id())
        self.bos_id = bos_id if bos_id >= 0 else None
        self.pad_id = pad_id if pad_id >= 0 else None
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
    def from_file(cls, path: str | Path, vocab_size: int | None = None) -> Tokenizer:
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
        return Tokenizer, (self.model_bytes, self.origin)

    def encode(self, data: bytes) -> list[int]:
        """The token ids of any bytes; no BOS, no EOS."""
        ids: list[int] = []
        parts = _UNREPRESENTABLE.split(data.decode("utf-8", "surrogateescape"))
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

    def files(self) -> dict[str, bytes]:
        return {TOKENIZER_FILE: self.model_bytes}

    def write(self, directory: Path, samples: Sequence[bytes] = (), max_positions: int | None = None) -> None:
        """See `huggingface_tokenizer.write_huggingface_tokenizer`."""
        # Not at the top: it is built on this module.
        from ligo_dist.corpus.huggingface_tokenizer import write_huggingface_tokenizer

        write_huggingface_tokenizer(self, directory, samples, max_positions)

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        data = text.encode()
        return ids if self.decode(ids) == data else self._encode_bytes(data)

    def _encode_bytes(self, data: bytes) -> list[int]:
        return [self._id_of_byte[value] for value in data]


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
