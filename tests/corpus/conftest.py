"""Small corpora and a tokenizer trained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from ligo_dist.corpus import (
    PackedCorpus,
    SentencePieceTokenizer,
    find_source,
    prepare_corpus,
    train_tokenizer,
)
from pictures import small_picture

WORDS = [
    "def",
    "return",
    "self",
    "class",
    "import",
    "for",
    "in",
    "while",
    "not",
    "None",
    "lambda",
    "yield",
    "tensor",
    "shard",
    "grow",
    "layer",
    "width",
]


BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_documents(count: int) -> list[bytes]:
    """Python-like documents, all different, some with bytes that are no UTF-8."""
    documents = []
    for number in range(count):
        lines = [
            "    " * (number * line % 4)
            + " ".join(WORDS[(number * 7 + line * k) % len(WORDS)] for k in range(6))
            for line in range(12)
        ]
        tail = b"\xff\xfe caf\xe9\r\n" if number % 5 == 0 else "\u010de\u0161tina \u6f22\n".encode()
        documents.append(f"# document {number}\n".encode() + "\n".join(lines).encode() + tail)
    return documents


@pytest.fixture(scope="session")
def documents() -> list[bytes]:
    return make_documents(200)


@pytest.fixture(scope="session")
def text_dir(documents: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents as files 000.txt, 001.txt, ..."""
    directory = tmp_path_factory.mktemp("texts")
    for number, document in enumerate(documents):
        (directory / f"{number:03}.txt").write_bytes(document)
    return directory


@pytest.fixture(scope="session", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest, documents: list[bytes]) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(train_tokenizer(documents, 350, request.param))


@pytest.fixture(scope="session")
def bpe(documents: list[bytes]) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(train_tokenizer(documents, 350, "bpe"))


@pytest.fixture
def prepare(text_dir: Path, tmp_path: Path) -> Callable[..., PackedCorpus]:
    """Prepares the small corpus in an empty cache; any argument can be given another value."""

    def run(**changes: Any) -> PackedCorpus:
        arguments: dict[str, Any] = {
            "source": find_source("text", [f"{text_dir}/*.txt"]),
            "streaming": True,
            "validation_fraction": 0.2,
            "given": None,
            "vocab_size": 350,
            "model_type": "bpe",
            "workers": 1,
            "cache_dir": tmp_path / "cache",
            "show_progress": False,
        }
        return prepare_corpus(**(arguments | changes))

    return run


def word_pieces(documents: list[bytes]) -> tokenizers.Tokenizer:
    """As BERT has it, with truncation and padding, as sentence encoders have them."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [document.decode("utf-8", "replace") for document in documents]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=400, special_tokens=BERT_SPECIALS, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer


@pytest.fixture(scope="session")
def bert_directory(documents: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory with the tokenizer of a small BERT."""
    from transformers import PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("bert")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=word_pieces(documents), **dict(zip(names, BERT_SPECIALS, strict=True))
    ).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in a folder for each of two classes, of several sizes and formats."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        picture = small_picture(number, [(8, 8), (13, 20)][number % 3 == 0])
        picture.save(folder / f"{number}.{('png', 'bmp')[number % 5 == 0]}")
    (root / "cat" / "notes.txt").write_text("not a picture")
    return root
