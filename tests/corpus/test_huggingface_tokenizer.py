"""`transformers` tokenizes as we do."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, GPT2Config, LlamaConfig, PreTrainedConfig

from ligo_dist.corpus import SentencePieceTokenizer, standard_library_files, train_tokenizer
from ligo_dist.runtime.errors import DataError


@pytest.fixture(scope="module")
def python_files() -> list[bytes]:
    return [Path(path).read_bytes() for path in standard_library_files(include_tests=False)[::12]]


@pytest.fixture(scope="module")
def of_python(python_files: list[bytes]) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(train_tokenizer(python_files, 1000, "bpe"))


@pytest.mark.parametrize(
    "config", [GPT2Config(vocab_size=1000), LlamaConfig(vocab_size=1000)], ids=["gpt2", "llama"]
)
def test_bpe_gives_the_same_ids(
    tmp_path: Path, python_files: list[bytes], of_python: SentencePieceTokenizer, config: PreTrainedConfig
) -> None:
    tokenizer = of_python
    config.save_pretrained(tmp_path)
    tokenizer.write(tmp_path, python_files[:3], max_positions=64)
    huggingface = AutoTokenizer.from_pretrained(tmp_path)
    assert (huggingface.bos_token_id, huggingface.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert (len(huggingface), huggingface.model_max_length) == (1000, 64)
    for document in python_files:
        text = document.decode()
        if "\u2581" in text:
            continue
        ids = huggingface(text, verbose=False)["input_ids"]
        assert ids == tokenizer.encode(document)
        assert huggingface.decode(ids) == text
    assert SentencePieceTokenizer.from_file(tmp_path / "tokenizer.model").fingerprint == tokenizer.fingerprint


def test_unigram_gives_the_same_text(
    tmp_path: Path, documents: list[bytes], python_files: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """And the same ids nearly everywhere: the libraries break ties in different ways, which is logged."""
    tokenizer = SentencePieceTokenizer(train_tokenizer(documents, 350, "unigram"))
    with caplog.at_level(logging.WARNING):
        tokenizer.write(tmp_path, python_files)
    huggingface = AutoTokenizer.from_pretrained(tmp_path)
    text = documents[1].decode()
    assert huggingface(text)["input_ids"] == tokenizer.encode(documents[1])
    assert huggingface.decode(huggingface(text)["input_ids"]) == text


ALPHABETS = {"dna": "ACGT", "digits": "0123456789", "chinese": "".join(map(chr, range(0x4E00, 0x4E30)))}


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)
def test_text_without_a_space(tmp_path: Path, alphabet: str, model_type: str) -> None:
    """Its tokenizer has no piece for spaces, which become single bytes on both sides."""
    drawn = np.random.default_rng(0).choice(list(alphabet), size=(100, 150))
    documents = ["".join(row).encode() for row in drawn]
    tokenizer = SentencePieceTokenizer(train_tokenizer(documents, 310, model_type))
    tokenizer.write(tmp_path, documents[:3])
    huggingface = AutoTokenizer.from_pretrained(tmp_path)
    text = f"{alphabet[:3]} {alphabet[1:4]}  x"
    ids = tokenizer.encode(text.encode())
    assert huggingface(text)["input_ids"] == ids
    assert tokenizer.decode(ids) == text.encode()
    first, second = documents[:2]
    both = len(tokenizer.encode(first + b" " + second))
    assert both == len(tokenizer.encode(first)) + 1 + len(tokenizer.encode(second)), "not all of it in bytes"


@pytest.mark.parametrize(("masked", "pad"), [(False, ("<unk>", 0)), (True, ("<pad>", 1))])
def test_an_export_has_a_padding_token(
    tmp_path: Path, documents: list[bytes], masked: bool, pad: tuple[str, int]
) -> None:
    tokenizer = SentencePieceTokenizer(train_tokenizer(documents, 350, "bpe", masked=masked))
    tokenizer.write(tmp_path)
    huggingface = AutoTokenizer.from_pretrained(tmp_path)
    assert (huggingface.pad_token, huggingface.pad_token_id) == pad
    assert tokenizer.padding_id == pad[1]
    assert not any(pad[1] in tokenizer.encode(document) for document in documents)
    batch = huggingface(["grow", "grow the layer"], padding=True)
    assert [sum(row) for row in batch["attention_mask"]] == [
        len(tokenizer.encode(text)) for text in (b"grow", b"grow the layer")
    ]


def test_other_programs_are_told_to_put_no_space_before_a_text(
    tmp_path: Path, bpe: SentencePieceTokenizer
) -> None:
    """llama.cpp's converter asks this key of Llama and Mistral, and takes its absence for a yes."""
    bpe.write(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["add_prefix_space"] is False
    assert bpe.encode(b"grow") == AutoTokenizer.from_pretrained(tmp_path)("grow")["input_ids"]


def test_an_export_that_tokenizes_differently_is_an_error(
    tmp_path: Path, bpe: SentencePieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ligo_dist.corpus import tokenizer as module

    original = module.build_fast_tokenizer

    def without_merges(proto: object) -> object:
        fast = json.loads(original(proto).to_str())
        fast["model"]["merges"] = []
        return module.tokenizers.Tokenizer.from_str(json.dumps(fast))

    monkeypatch.setattr(module, "build_fast_tokenizer", without_merges)
    with pytest.raises(DataError, match=r"does not give the ids of the sentencepiece model on"):
        bpe.write(tmp_path)
    shutil.rmtree(tmp_path)
