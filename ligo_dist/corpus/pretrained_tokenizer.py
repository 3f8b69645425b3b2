"""A Hugging Face tokenizer that came with a model (a directory with a `tokenizer.json`), and the tokenizer that a
configuration names. Imports no torch: the launcher counts its pieces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from ligo_dist.corpus.text_tokenizer import TextTokenizer
from ligo_dist.corpus.tokenizer import SentencePieceTokenizer
from ligo_dist.huggingface.hub import resolve_directory
from ligo_dist.runtime.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from ligo_dist.config.schema import Tokenizer as TokenizerSettings

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
)  # fmt: skip
"""What may lie beside a `tokenizer.json` and belongs to it."""

_MEANING = FILES[:4]
"""The files that tokens depend on."""

_KNOWN = {
    "eos_token": ("</s>", "<|endoftext|>", "<eos>", "<|end_of_text|>"),
    "sep_token": ("[SEP]",),
    "bos_token": ("<s>", "<|endoftext|>", "<bos>", "<|begin_of_text|>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
}
"""Names by which tokenizers of before 2021 know their special tokens, without writing it down anywhere."""


class PretrainedTokenizer:
    """A tokenizer of the `tokenizers` library; see `TextTokenizer`.

    Bytes that are not UTF-8 become U+FFFD. What reads like a special token in a text is text.

    Args:
        directory: where it lies.
        origin: how error messages name it.

    Raises:
        DataError: no `tokenizer.json`, one that cannot be read, or no token to end documents with.
    """

    def __init__(self, directory: str | Path, origin: str | None = None) -> None:
        self.directory = Path(directory)
        self.origin = origin or f"tokenizer.huggingface: {str(directory)!r}"
        self._files = self._read()
        self._tokenizer = self._parsed()
        self.fingerprint = _fingerprint(self._files)
        special = self._special_tokens()
        ids = {name: self._tokenizer.token_to_id(token) for name, token in special.items()}
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(
            [number for number in ids.values() if number is not None]
            + [number for number, token in added.items() if token.special]
        )
        eos_id = ids["eos_token"] if ids["eos_token"] is not None else ids["sep_token"]
        if eos_id is None:
            raise DataError(
                f"{self.origin} has neither an end-of-text nor a separator token, which ends each document; name "
                "it in its tokenizer_config.json (eos_token)"
            )
        self.eos_id: int = eos_id
        self.bos_id, self.pad_id, self.mask_id = (
            ids[name] for name in ("bos_token", "pad_token", "mask_token")
        )
        self._unk_id = ids["unk_token"]
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def __reduce__(self) -> tuple[Any, ...]:
        return PretrainedTokenizer, (self.directory, self.origin)

    def encode(self, data: bytes) -> list[int]:
        """The token ids of any bytes; no special tokens around them."""
        text = data.decode("utf-8", "replace")
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self.special_ids.isdisjoint(ids):
            return ids
        # A unigram model may know a special token as a piece of text too.
        return [number for number in ids if number not in self.special_ids or number == self._unk_id]

    def files(self) -> dict[str, bytes]:
        return dict(self._files)

    def write(self, directory: Path, samples: Sequence[bytes] = (), max_positions: int | None = None) -> None:
        """Copies its files as they are."""
        for name, content in self._files.items():
            (directory / name).write_bytes(content)

    def _read(self) -> dict[str, bytes]:
        if not (self.directory / FILES[0]).is_file():
            raise DataError(
                f"{self.origin} has no tokenizer.json; save it with a fast tokenizer of transformers, or name a "
                "sentencepiece model as tokenizer.file"
            )
        try:
            return {
                name: (self.directory / name).read_bytes()
                for name in FILES
                if (self.directory / name).is_file()
            }
        except OSError as error:
            raise DataError(f"{self.origin} cannot be read: {error.strerror or error}") from error

    def _parsed(self) -> tokenizers.Tokenizer:
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(self._files["tokenizer.json"])
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"{self.origin}: its tokenizer.json cannot be read: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _special_tokens(self) -> dict[str, str]:
        """Name -> token: what its files say, else the well-known names it has in its vocabulary."""
        tokens: dict[str, str] = {}
        for name, known in _KNOWN.items():
            said = [
                self._json(file).get(name) for file in ("tokenizer_config.json", "special_tokens_map.json")
            ]
            contents = [value["content"] if isinstance(value, dict) else value for value in said if value]
            there = [token for token in known if self._tokenizer.token_to_id(token) is not None]
            tokens[name] = next(iter([*contents, *there]), "")
        return tokens

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._files.get(name, b"{}"))
        except ValueError as error:
            raise DataError(f"{self.origin}: its {name} is no JSON: {error}") from error
        return content if isinstance(content, dict) else {}


def _fingerprint(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in _MEANING:
        if name in files:
            digest.update(f"{name} {len(files[name])} ".encode() + files[name])
    return digest.hexdigest()


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
