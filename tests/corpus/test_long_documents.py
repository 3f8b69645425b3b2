"""Long documents in pieces: the tokens are those that the library gives for the whole text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from ligo_dist.corpus import PretrainedTokenizer, standard_library_files

CL100K = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
"""How GPT-4's tokenizer, and those of Llama 3 and Qwen, cut a text into words."""


@pytest.fixture(scope="module")
def long_text() -> str:
    """Two cuts and a bit, of code with runs of spaces, of prose, and of other scripts."""
    files = [Path(path).read_text("utf-8", "replace") for path in standard_library_files(False)[::12]]
    text = "\n\n  ".join([*files, "\u010de\u0161tina \u6f22\u5b57 " * 2000])
    return (text * (1 + 700_000 // len(text)))[:700_000]


def _trained(kind: str, text: str) -> tokenizers.Tokenizer:
    specials = ["<unk>", "</s>"]
    if kind == "unigram":
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
        tokenizer.train_from_iterator(text[:40_000].splitlines(), trainer)
        return tokenizer
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "llama-2":
        # As transformers converts it: no words, a space in front of every text.
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")
        split = pre_tokenizers.Split(Regex(CL100K), behavior="isolated")
        tokenizer.pre_tokenizer = gpt2 if kind == "gpt2" else pre_tokenizers.Sequence([split, gpt2])
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(text[:40_000].splitlines(keepends=True), trainer)
    return tokenizer


@pytest.mark.parametrize("kind", ["gpt2", "cl100k", "llama-2", "unigram"])
def test_a_long_document_has_the_tokens_of_the_whole(kind: str, long_text: str, tmp_path: Path) -> None:
    _trained(kind, long_text).save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = PretrainedTokenizer(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    whole = library.encode(long_text, add_special_tokens=False).ids
    assert tokenizer.encode(long_text.encode()) == whole
