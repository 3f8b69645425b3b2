"""A Hugging Face tokenizer, as `transformers` opens it. Importing this imports no torch, but opening one does."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from ligo_dist.runtime.errors import DataError

logger = logging.getLogger(__name__)

_TOKENIZER_FILE = "tokenizer.json"

_VOCABULARIES = (_TOKENIZER_FILE, "vocab.json", "*.txt", "*.model")
_INSTEAD = "name another as tokenizer.huggingface, or a sentencepiece model as tokenizer.file"

_BESIDE = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json",
    "additional_chat_templates/*.jinja",
)  # fmt: skip
"""Patterns of what may lie beside a `tokenizer.json` and belongs to it, with the files that the library's class of the
tokenizer names."""

_KNOWN = {
    "eos_token": ("</s>", "<|endoftext|>", "<eos>", "<|end_of_text|>"),
    "sep_token": ("[SEP]",),
    "bos_token": ("<s>", "<|endoftext|>", "<bos>", "<|begin_of_text|>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "unk_token": ("[UNK]", "<unk>"),
}
"""Names by which tokenizers of before 2021 know their special tokens, where no file says one to the library."""

_LONG_CHARACTERS = 1 << 18
"""Texts are tokenized in pieces of at most so many characters: the library takes about 180 bytes for each."""

_CONTEXT_CHARACTERS = 1 << 10
"""What is looked at on either side of a cut."""

_CUTS_TRIED = 8
_BETWEEN_WORDS = re.compile(r"(?<=\w)(?=\s)")

_PROBES = (
    "def grow(layer):\n\treturn 12345 * layer  # two  spaces",
    "Grow the Layer, caf\u00e9 \u6f22\u5b57",
)


class PretrainedTokenizer:
    """A tokenizer of the `tokenizers` library, as `transformers.AutoTokenizer` opens it; see `TextTokenizer`.

    Bytes that are not UTF-8 become U+FFFD. What reads like a special token in a text is text: where the vocabulary has
    it as a piece too, it is spelled by its characters, or stays that piece if it is one alone ("!" as padding).

    Long texts are tokenized piece by piece. They are cut between words where the pieces beside the cut come out as they
    do without it, so the tokens are those of the whole text; in text without white space they may differ at a cut,
    every `_LONG_CHARACTERS` characters.

    Args:
        directory: where it lies.
        origin: how error messages name it.

    Raises:
        DataError: no tokenizer, one that the library refuses or cannot run fast, or no token to end documents with.
    """

    def __init__(self, directory: str | Path, origin: str | None = None) -> None:
        self.directory = Path(directory)
        self.origin = origin or f"tokenizer.huggingface: {str(directory)!r}"
        library = _open(self.directory, self.origin)
        self._files = self._read(library.vocab_files_names.values())
        self._tokenizer = tokenizers.Tokenizer.from_str(library.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        ids = self._special_ids(library)
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
        self.padding_id: int | None = self.pad_id
        # Where it is the end of a text too (GPT-2's is all special tokens), none stands for unknown text.
        self.unk_id: int | None = ids["unk_token"] if ids["unk_token"] != eos_id else None
        self._spelling = self._spelled_specials(ids["unk_token"])
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        meaning: list[Any] = [self._tokenizer.to_str(), sorted(self.special_ids), eos_id, self.mask_id]
        from_text = [[number, pieces] for number, pieces in sorted(self._spelling.items()) if pieces]
        if from_text:
            meaning.append(from_text)
        self.fingerprint = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """For the processes that tokenize: they write no files."""
        return {**self.__dict__, "_files": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._tokenizer.encode_special_tokens = True  # is not kept with it

    def encode(self, data: bytes) -> list[int]:
        """The token ids of any bytes; no special tokens around them."""
        text = data.decode("utf-8", "replace")
        ids: list[int] = []
        start = 0
        while len(text) - start > _LONG_CHARACTERS:
            end = self._cut(text, start)
            ids += self._encode_part(text, start, end)
            start = end
        ids += self._encode_part(text, start, len(text))
        if self.special_ids.isdisjoint(ids):
            return ids
        return [piece for number in ids for piece in self._spelling.get(number, [number])]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _encode_part(self, text: str, start: int, end: int) -> list[int]:
        """Ids of a part of a text, which has the text before it as its context."""
        if start == 0:
            return self._ids(text[:end])
        context = max(0, start - _CONTEXT_CHARACTERS)
        before, both = self._ids(text[context:start]), self._ids(text[context:end])
        return both[len(before) :] if both[: len(before)] == before else self._ids(text[start:end])

    def _cut(self, text: str, start: int) -> int:
        """Where to end a part that begins at `start`: between words, where what is before comes out the same whatever
        follows."""
        limit = start + _LONG_CHARACTERS
        places = [
            match.start() for match in _BETWEEN_WORDS.finditer(text, limit - _CONTEXT_CHARACTERS, limit)
        ]
        for place in reversed(places[-_CUTS_TRIED:]):
            before = self._ids(text[place - _CONTEXT_CHARACTERS : place])
            both = self._ids(text[place - _CONTEXT_CHARACTERS : place + _CONTEXT_CHARACTERS])
            if both[: len(before)] == before:
                return place
        return limit

    def _spelled_specials(self, unknown: int | None) -> dict[int, list[int]]:
        """Special tokens that the model itself gives for text, as a unigram model may: what is given instead."""
        spelling: dict[int, list[int]] = {}
        for number in self.special_ids:
            piece = self._tokenizer.id_to_token(number) or ""
            written = self._tokenizer.decode([number], skip_special_tokens=False)
            if number == unknown:
                if number == self.eos_id:
                    spelling[number] = []  # unknown text must not end the document
            elif any(number in self._ids(text) for text in (piece, written)):
                letters = [self._tokenizer.token_to_id(letter) for letter in piece]
                ids = [letter for letter in letters if letter is not None and letter not in self.special_ids]
                spelling[number] = ids if len(ids) == len(piece) > 1 else [number]
        return spelling

    def write(self, directory: Path, samples: Sequence[bytes] = (), max_positions: int | None = None) -> None:
        """Copies its files as they are."""
        self.copy_to(directory)
        opened = _open(directory, self.origin)
        for text in _PROBES:
            ids = opened(text, add_special_tokens=False, split_special_tokens=True, verbose=False)[
                "input_ids"
            ]
            if ids != self.encode(text.encode()):
                logger.warning(
                    "%s: AutoTokenizer opens the export as a %s, which splits text in another way than the "
                    "tokenizer of this run",
                    self.origin,
                    type(opened).__name__,
                )
                return

    def copy_to(self, directory: Path) -> None:
        """Its files, as they are; the directory is made."""
        for name, content in self._files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content)

    def _read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Name -> content of its files."""
        patterns = dict.fromkeys((_TOKENIZER_FILE, *_BESIDE, *names))
        paths = [
            path for pattern in patterns for path in sorted(self.directory.glob(pattern)) if path.is_file()
        ]
        try:
            return {str(path.relative_to(self.directory)): path.read_bytes() for path in paths}
        except OSError as error:
            raise DataError(f"{self.origin} cannot be read: {error.strerror or error}") from error

    def _special_ids(self, library: Any) -> dict[str, int | None]:
        """Name -> id: what the library says, else the well-known names that are in the vocabulary."""
        if library.all_special_tokens:
            return {name: getattr(library, f"{name}_id") for name in _KNOWN}
        ids = {
            name: [self._tokenizer.token_to_id(token) for token in tokens] for name, tokens in _KNOWN.items()
        }
        return {name: next((i for i in there if i is not None), None) for name, there in ids.items()}


def _open(directory: Path, origin: str) -> Any:
    """A tokenizer as the library opens it.

    Raises:
        DataError: it does not, makes one up for want of a vocabulary, or cannot run it fast.
    """
    # Seconds, and only who has a tokenizer to open needs it.
    from transformers import AutoTokenizer

    try:
        opened: Any = AutoTokenizer.from_pretrained(
            str(directory), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever the library raises is its verdict on the files
        raise DataError(f"{origin} {_reason(directory, error)}") from error
    names = [name for key, name in opened.vocab_files_names.items() if key != "tokenizer_file"]
    if not (directory / _TOKENIZER_FILE).is_file() and not all(
        (directory / name).is_file() for name in names
    ):
        raise DataError(
            f"{origin} has no tokenizer.json, nor what else makes a {type(opened).__name__} ({', '.join(names)}); "
            + _INSTEAD
        )
    if not isinstance(getattr(opened, "backend_tokenizer", None), tokenizers.Tokenizer):
        raise DataError(
            f"{origin} is a {type(opened).__name__}, which transformers does not run fast; take a tokenizer that it "
            "does, or a sentencepiece model (tokenizer.file)"
        )
    return opened


def _reason(directory: Path, error: Exception) -> str:
    """Why the library refuses a directory."""
    if not any(True for pattern in _VOCABULARIES for _ in directory.glob(pattern)):
        return f"has no tokenizer.json, nor another vocabulary that transformers knows; {_INSTEAD}"
    for path in sorted(directory.glob("*.json")):  # the library does not say which of them it is
        try:
            json.loads(path.read_bytes())
        except (OSError, ValueError) as broken:
            return f"cannot be read: its {path.name} is no JSON: {broken}"
    first_line = str(error).partition("\n")[0]
    return f"is refused by transformers: {type(error).__name__}: {first_line}"
