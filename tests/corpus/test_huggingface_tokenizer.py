"""`transformers` tokenizes as we do."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GPT2Config, LlamaConfig, PreTrainedConfig

from ligo_dist.corpus.text_files import standard_library_files
from ligo_dist.corpus.tokenizer import SentencePieceTokenizer, write_huggingface_tokenizer
from ligo_dist.corpus.tokenizer_training import train_tokenizer
from ligo_dist.runtime.errors import DataError


@pytest.fixture(scope="module")
def python_files() -> list[bytes]:
    return [Path(path).read_bytes() for path in standard_library_files(include_tests=False)[::12]]


@pytest.mark.parametrize(
    "config", [GPT2Config(vocab_size=1000), LlamaConfig(vocab_size=1000)], ids=["gpt2", "llama"]
)
def test_bpe_gives_the_same_ids(tmp_path: Path, python_files: list[bytes], config: PreTrainedConfig) -> None:
    tokenizer = SentencePieceTokenizer(train_tokenizer(python_files, 1000, "bpe"))
    config.save_pretrained(tmp_path)
    write_huggingface_tokenizer(tokenizer, tmp_path, python_files[:3], max_positions=64)
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
        write_huggingface_tokenizer(tokenizer, tmp_path, python_files)
    huggingface = AutoTokenizer.from_pretrained(tmp_path)
    text = documents[1].decode()
    assert huggingface(text)["input_ids"] == tokenizer.encode(documents[1])
    assert huggingface.decode(huggingface(text)["input_ids"]) == text


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
        write_huggingface_tokenizer(bpe, tmp_path)
    shutil.rmtree(tmp_path)
