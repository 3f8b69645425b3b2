"""Any bytes in, the same bytes out."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from ligo_dist.corpus import SentencePieceTokenizer, sample_excerpts, standard_library_files, train_tokenizer
from ligo_dist.runtime.errors import DataError

HARD = [
    b"", b" ", b"\n", b"\0", b"\r\n\r\n", b"\t \t", b" leading and trailing ", b"<s></s><unk><0x41>", b"a\0b",
    "\u2581".encode(), " \u2581 \u2581\u2581x".encode(), "\u2047 \ufffd \ufeff \uffff".encode(), b"\xff",
    b"\xe2\x96", b"\xed\xa0\x80 surrogate", b"\xf4\x90\x80\x80", b"caf\xe9 \xe2\x96\x81", b"\xc0\x80",
    "e\u0301 \u00e9".encode(), "\U0001f469\u200d\U0001f467".encode(), b"x" * 100_000, b" " * 5000,
    b"\x00" * 300, b"word " * 3000,
]  # fmt: skip


def _model(**changes: Any) -> bytes:
    """A sentencepiece model of another make."""
    lines = [f"some text with number {number} in it and {number * 7} more" for number in range(500)]
    model = io.BytesIO()
    arguments: dict[str, Any] = {
        "byte_fallback": True,
        "vocab_size": 320,
        "model_type": "bpe",
        "normalization_rule_name": "identity",
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **(arguments | changes)
    )
    return model.getvalue()


@pytest.mark.parametrize("data", HARD, ids=lambda data: repr(data[:12]))
def test_hard_cases_come_back(tokenizer: SentencePieceTokenizer, data: bytes) -> None:
    assert tokenizer.decode(tokenizer.encode(data)) == data


def test_random_bytes_come_back(tokenizer: SentencePieceTokenizer) -> None:
    generator = random.Random(0)
    fragments = [*HARD[:20], b"def f(self):\n    return ", b"tensor", b"  "]
    for _ in range(300):
        data = b"".join(
            generator.choice(fragments)
            if generator.random() < 0.5
            else generator.randbytes(generator.randrange(9))
            for _ in range(generator.randrange(12))
        )
        assert tokenizer.decode(tokenizer.encode(data)) == data


def test_random_characters_come_back(tokenizer: SentencePieceTokenizer) -> None:
    generator = random.Random(1)
    for _ in range(50):
        points = [
            generator.choice([generator.randrange(0xD800), generator.randrange(0xE000, 0x110000)])
            for _ in range(40)
        ]
        data = "".join(map(chr, points)).encode()
        assert tokenizer.decode(tokenizer.encode(data)) == data


def test_standard_library_files_come_back(tokenizer: SentencePieceTokenizer) -> None:
    """A sample, and all the files of the tests that are not UTF-8."""
    files = standard_library_files(include_tests=True)
    odd = ("module_koi8_r.py", "module_iso_8859_1.py", "badsyntax_pep3120.py", "test_source_encoding.py")
    chosen = files[::80] + [path for path in files if path.endswith(odd)]
    for path in chosen:
        data = Path(path).read_bytes()
        assert tokenizer.decode(tokenizer.encode(data)) == data


def test_text_goes_through_sentencepiece(tokenizer: SentencePieceTokenizer) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    text = "    return self.layer\n\n<s> lambda\r\n"
    assert tokenizer.encode(text.encode()) == processor.encode(text)


def test_special_ids_stand_for_no_bytes(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.bos_id is not None
    assert tokenizer.decode([tokenizer.bos_id, *tokenizer.encode(b"grow"), tokenizer.eos_id]) == b"grow"
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id} & set(
        tokenizer.encode(b"</s><s><unk>\xff")
    )
    with pytest.raises(IndexError):
        tokenizer.decode([tokenizer.vocab_size])


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_training_depends_on_no_order(documents: list[bytes], model_type: str) -> None:
    first, second = (train_tokenizer(texts, 350, model_type) for texts in (documents, documents[::-1]))
    assert first == second
    assert SentencePieceTokenizer(first).vocab_size == 350


def test_sample_is_bounded_and_depends_on_no_order(documents: list[bytes]) -> None:
    sample = sample_excerpts(documents, 10_000)
    assert 10_000 <= sum(map(len, sample)) < 12_000
    assert sample == sample_excerpts(documents[::-1], 10_000)
    assert sorted(sample_excerpts(documents, 10**9)) == sorted(documents)
    assert max(map(len, sample_excerpts([b"x" * 100_000], 10**6))) < 20_000


@pytest.mark.parametrize(
    ("vocab_size", "message"),
    [
        (5000, r"tokenizer.vocab_size: 5000 is more than .* at most \d+"),
        (262, r"tokenizer.vocab_size: 262 is too small for the text's characters; it needs more than \d+"),
    ],
)
def test_a_vocabulary_that_does_not_fit_the_text_is_refused(
    documents: list[bytes], vocab_size: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        train_tokenizer(documents, vocab_size, "bpe")


def test_no_text_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"no model of 300 pieces can be trained"):
        train_tokenizer([], 300, "bpe")


def test_a_file_is_read_and_its_vocabulary_checked(bpe: SentencePieceTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "t.model"
    path.write_bytes(bpe.model_bytes)
    assert SentencePieceTokenizer.from_file(path).fingerprint == bpe.fingerprint
    assert SentencePieceTokenizer.from_file(path, 350).encode(b"grow") == bpe.encode(b"grow")
    with pytest.raises(
        DataError, match=r"tokenizer.vocab_size: 351, but .*t.model' has 350 .* another vocabulary"
    ):
        SentencePieceTokenizer.from_file(path, 351)
    with pytest.raises(DataError, match=r"tokenizer.file: .*no.model' cannot be read: No such file"):
        SentencePieceTokenizer.from_file(tmp_path / "no.model")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"no model at all", "tokenizer.file: .* is no sentencepiece model"),
        (b"", "tokenizer.file: .* is no sentencepiece model"),
        (_model(byte_fallback=False, vocab_size=60), "has no byte fallback"),
        (_model(eos_id=-1), "has no EOS piece"),
        (_model(normalization_rule_name="nmt_nfkc"), "rewrites text .*'nmt_nfkc'"),
    ],
    ids=["garbage", "empty", "no bytes", "no eos", "normaliser"],
)
def test_unusable_files_are_refused(tmp_path: Path, model: bytes, message: str) -> None:
    (tmp_path / "t.model").write_bytes(model)
    with pytest.raises(DataError, match=message):
        SentencePieceTokenizer.from_file(tmp_path / "t.model")


def test_a_model_that_changes_spaces_is_made_lossless(tmp_path: Path) -> None:
    model = _model(bos_id=-1, user_defined_symbols=["number 7"])  # with dummy prefix, collapsing spaces
    tokenizer = SentencePieceTokenizer(model)
    assert tokenizer.bos_id is None
    for data in (*HARD, b"number 7  number 77 "):
        assert tokenizer.decode(tokenizer.encode(data)) == data
    assert len(tokenizer.encode(b"  text")) < 6
    assert SentencePieceTokenizer(tokenizer.model_bytes).fingerprint == tokenizer.fingerprint
