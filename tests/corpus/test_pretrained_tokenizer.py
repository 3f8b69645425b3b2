"""Tokenizers as Hugging Face directories have them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from ligo_dist.config import Tokenizer
from ligo_dist.corpus import (
    OpenedOnce,
    PretrainedTokenizer,
    SentencePieceTokenizer,
    check_masking,
    count_pieces,
    count_pieces_apart,
    train_tokenizer,
)
from ligo_dist.runtime.errors import DataError

TEXT = "Grow the Layer, and the WIDTH.\nA literal [MASK] is text \u2014 and so is <pad>."


def _gpt2(directory: Path, documents: list[bytes], special_tokens: list[str]) -> Path:
    """`tokenizer.json` alone, as directories of before 2021 have it."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special_tokens,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([document.decode("utf-8", "replace") for document in documents], trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def test_ids_are_those_of_the_library(bert_directory: Path, documents: list[bytes]) -> None:
    tokenizer = PretrainedTokenizer(bert_directory)
    library = AutoTokenizer.from_pretrained(bert_directory)
    text = documents[1].decode()
    ids = library(text, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    assert len(ids) > 16, "longer than the truncation of the file"
    assert tokenizer.encode(documents[1]) == ids
    assert tokenizer.encode(b"grow") == library("grow", add_special_tokens=False, padding=False)["input_ids"]
    assert tokenizer.vocab_size == len(library)


def test_special_tokens_are_found_and_never_come_from_text(bert_directory: Path) -> None:
    tokenizer = PretrainedTokenizer(bert_directory)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.mask_id, tokenizer.bos_id) == (0, 3, 4, None)
    assert tokenizer.special_ids == frozenset(range(5))
    unknown = {1}
    assert not set(tokenizer.encode(TEXT.encode())) & tokenizer.special_ids - unknown
    check_masking(tokenizer, "bert", 0)


def test_bytes_that_are_not_utf8_are_replaced(bert_directory: Path) -> None:
    tokenizer = PretrainedTokenizer(bert_directory)
    assert tokenizer.encode(b"grow \xff layer") == tokenizer.encode("grow \ufffd layer".encode())


def test_old_directories_have_well_known_names(tmp_path: Path, documents: list[bytes]) -> None:
    tokenizer = PretrainedTokenizer(_gpt2(tmp_path, documents, ["<|endoftext|>"]))
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id, tokenizer.mask_id) == (0, 0, None, None)
    assert 0 not in tokenizer.encode(b"a <|endoftext|> in the text")


def test_a_piece_of_text_that_is_a_special_token_is_spelled(tmp_path: Path) -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -3.0) for c in "<pad>s/xy")]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {
        "eos_token": {"content": "</s>", "__type": "AddedToken"},
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    pretrained = PretrainedTokenizer(tmp_path)
    assert tokenizer.decode(pretrained.encode(b"x<pad>y</s>")).replace(" ", "") == "x<pad>y</s>"
    assert pretrained.special_ids.isdisjoint(pretrained.encode(b"x<pad>y</s>"))
    assert pretrained.encode(b"x?")[1:] == [pretrained.unk_id] == [2], "an unknown character stays unknown"


@pytest.mark.parametrize(("key", "piece"), [("pad_token", "!"), ("bos_token", "!"), ("pad_token", "def")])
def test_nothing_of_a_text_is_dropped(tmp_path: Path, documents: list[bytes], key: str, piece: str) -> None:
    """Directories that name a piece of text as a special token, for want of one of their own."""
    directory = _gpt2(tmp_path, documents, ["<|endoftext|>"])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", key: piece}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = PretrainedTokenizer(directory)
    text = "def grow(layer): return not layer! def"
    library = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    library.decoder = decoders.ByteLevel()
    assert library.decode(tokenizer.encode(text.encode()), skip_special_tokens=False) == text


def test_it_can_be_sent_to_another_process(bert_directory: Path) -> None:
    tokenizer = PretrainedTokenizer(bert_directory, "here")
    again = pickle.loads(pickle.dumps(tokenizer))
    assert (again.fingerprint, again.origin, again.encode(b"grow")) == (
        tokenizer.fingerprint,
        "here",
        tokenizer.encode(b"grow"),
    )


def test_the_export_opens_with_the_library(bert_directory: Path, tmp_path: Path) -> None:
    PretrainedTokenizer(bert_directory).write(tmp_path, [b"grow"], 64)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (bert_directory / name).read_bytes()
    here, there = (AutoTokenizer.from_pretrained(path) for path in (bert_directory, tmp_path))
    assert here(TEXT) == there(TEXT)


def test_the_fingerprint_is_of_what_tokens_depend_on(bert_directory: Path, tmp_path: Path) -> None:
    tokenizer = PretrainedTokenizer(bert_directory)
    tokenizer.write(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("x")
    assert PretrainedTokenizer(tmp_path).fingerprint == tokenizer.fingerprint
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "sep_token": "[CLS]"}))
    assert PretrainedTokenizer(tmp_path).fingerprint != tokenizer.fingerprint
    assert PretrainedTokenizer(tmp_path).eos_id == 2


def _broken(directory: Path, name: str, content: str) -> None:
    tokenizers.Tokenizer(models.BPE()).save(str(directory / "tokenizer.json"))
    (directory / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, "", r"tokenizer.huggingface: '.*' has no tokenizer.json, nor another vocabulary that"),
        (
            "tokenizer.json",
            "{",
            r"tokenizer.huggingface: '.*' cannot be read: its tokenizer.json is no JSON: ",
        ),
        ("tokenizer.json", "{}", r"tokenizer.huggingface: '.*' is refused by transformers: \w+: "),
        ("tokenizer_config.json", "{", r"its tokenizer_config.json is no JSON: "),
        ("tokenizer_config.json", '{"eos_token": ["</s>"]}', r"refused by .* eos_token has to be either str"),
        ("tokenizer_config.json", '{"eos_token": 5}', r"refused by .* eos_token has to be either str"),
        ("tokenizer_config.json", "{}", r"has neither an end-of-text nor a separator token"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str | None, content: str, message: str) -> None:
    if name is not None:
        _broken(tmp_path, name, content)
    with pytest.raises(DataError, match=message):
        PretrainedTokenizer(tmp_path)


# --- what the library makes of a directory ---


def _saved(directory: Path, documents: list[bytes]) -> Path:
    """GPT-2 as its first files were: `vocab.json` and `merges.txt`, and a `config.json` that says which class it is."""
    model = json.loads((_gpt2(directory, documents, ["<|endoftext|>"]) / "tokenizer.json").read_text())[
        "model"
    ]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (directory / "config.json").write_text('{"model_type": "gpt2"}')
    return directory


def test_a_vocabulary_without_a_tokenizer_json(tmp_path: Path, documents: list[bytes]) -> None:
    directory = _saved(tmp_path, documents)
    with_file = PretrainedTokenizer(directory)
    (directory / "tokenizer.json").unlink()
    tokenizer = PretrainedTokenizer(directory)
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id, tokenizer.vocab_size) == (0, 0, None, 400)
    assert [tokenizer.encode(text) for text in documents[:9]] == [with_file.encode(t) for t in documents[:9]]
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text('{"model_type": "gpt2"}')
    tokenizer.write(tmp_path / "export")
    assert PretrainedTokenizer(tmp_path / "export").fingerprint == tokenizer.fingerprint


def test_a_vocabulary_of_bert_alone(bert_directory: Path, tmp_path: Path, documents: list[bytes]) -> None:
    known = PretrainedTokenizer(bert_directory)
    vocabulary = json.loads((bert_directory / "tokenizer.json").read_text())["model"]["vocab"]
    (tmp_path / "vocab.txt").write_text("\n".join([*vocabulary, ""]))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    tokenizer = PretrainedTokenizer(tmp_path)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.mask_id, tokenizer.bos_id) == (0, 3, 4, None)
    assert [tokenizer.encode(text) for text in documents[:9]] == [
        known.encode(text) for text in documents[:9]
    ]


@pytest.mark.parametrize("left_out", [["vocab.json"], ["merges.txt"], ["vocab.json", "merges.txt"]])
def test_a_vocabulary_of_which_a_part_is_missing(
    tmp_path: Path, documents: list[bytes], left_out: list[str]
) -> None:
    """The library makes up a tokenizer of one piece for a bare `config.json`."""
    directory = _saved(tmp_path, documents)
    for name in ("tokenizer.json", *left_out):
        (directory / name).unlink()
    with pytest.raises(DataError, match=r"has no tokenizer.json, nor |is refused by transformers: "):
        PretrainedTokenizer(directory)


IM_END = {"400": {"content": "<|im_end|>", "special": True}}


@pytest.mark.parametrize(
    ("special", "eos", "pieces"),
    [
        ({"eos_token": "<|im_end|>", "added_tokens_decoder": IM_END}, 400, 401),
        ({"eos_token": {"__type": "AddedToken", "content": "<|nowhere|>"}}, 400, 401),
        ({"eos_token": "def"}, None, 400),
    ],
    ids=["added", "new", "a-piece-of-text"],
)
def test_an_end_of_text_that_the_vocabulary_does_not_have(
    tmp_path: Path, documents: list[bytes], special: dict[str, Any], eos: int | None, pieces: int
) -> None:
    directory = _gpt2(tmp_path, documents, ["<|endoftext|>", "[SEP]"])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "sep_token": "[SEP]", **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    library = AutoTokenizer.from_pretrained(directory)
    tokenizer = PretrainedTokenizer(directory)
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (library.eos_token_id, len(library))
    assert (eos or tokenizer.eos_id, pieces) == (tokenizer.eos_id, tokenizer.vocab_size)
    assert tokenizer.bos_id is None, "no name is looked up where the files say some"


def test_all_that_belongs_to_a_tokenizer_is_exported(bert_directory: Path, tmp_path: Path) -> None:
    source, export = tmp_path / "source", tmp_path / "export"
    (source / "additional_chat_templates").mkdir(parents=True)
    export.mkdir()
    PretrainedTokenizer(bert_directory).write(source)
    for name in ("chat_template.jinja", "additional_chat_templates/tools.jinja"):
        (source / name).write_text(f"{name} {{{{ messages }}}}")
    (source / "README.md").write_text("of the model")
    PretrainedTokenizer(source).write(export)
    assert set(AutoTokenizer.from_pretrained(export).chat_template) == {"default", "tools"}
    assert not (export / "README.md").exists()


def test_pieces_are_counted_in_another_process(bert_directory: Path, tmp_path: Path) -> None:
    directory = Path(str(bert_directory))
    pieces = PretrainedTokenizer(directory).vocab_size
    assert count_pieces_apart(Tokenizer(huggingface=str(directory)), None) == pieces
    assert count_pieces_apart(Tokenizer(), directory) == pieces
    assert count_pieces_apart(Tokenizer(vocab_size=300), None) is None
    with pytest.raises(DataError, match=r"stages\[0\].from: the tokenizer in '.*' has no tokenizer.json"):
        count_pieces_apart(Tokenizer(), tmp_path)


def test_a_tokenizer_is_opened_once_for_the_count_and_the_corpus(bert_directory: Path) -> None:
    open_tokenizer, settings = OpenedOnce(), Tokenizer(huggingface=str(bert_directory))
    pieces = count_pieces(settings, None, open_tokenizer)
    opened = open_tokenizer(Tokenizer(huggingface=str(bert_directory)), None)
    assert opened is open_tokenizer(settings, None)
    assert opened.vocab_size == pieces
    assert open_tokenizer(Tokenizer(vocab_size=300), None) is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _broken(tmp_path, "tokenizer_config.json", "{}")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"tokenizer.huggingface: '.*' cannot be read: Permission denied"):
        PretrainedTokenizer(tmp_path)


# --- what masked language models want ---


def _changed(tokenizer: Any, **changes: Any) -> Any:
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_masked_models_want_a_mask_and_a_padding_token(
    bpe: SentencePieceTokenizer, bert_directory: Path
) -> None:
    with pytest.raises(DataError, match=r"the trained model has no mask token, which bert is trained to see"):
        check_masking(bpe, "bert", 0)
    tokenizer = PretrainedTokenizer(bert_directory)
    with pytest.raises(DataError, match=r"has the padding id 0, but roberta counts positions from .* be 1"):
        check_masking(tokenizer, "roberta", 2)
    with pytest.raises(DataError, match=r"has no padding token, which bert must be able to tell from text"):
        check_masking(_changed(tokenizer, pad_id=None), "bert", 0)
    for name, names in (
        ("pad_id", "its end and its padding token"),
        ("mask_id", "its end and its mask token"),
    ):
        changes = {"pad_id": 0, "mask_id": 4, name: tokenizer.eos_id}
        with pytest.raises(DataError, match=names):
            check_masking(_changed(tokenizer, **changes), "bert", 0)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_a_tokenizer_trained_for_masking_has_robertas_ids(
    documents: list[bytes], tmp_path: Path, model_type: str
) -> None:
    tokenizer = SentencePieceTokenizer(train_tokenizer(documents, 350, model_type, masked=True))
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id) == (0, 1, 2)
    assert (tokenizer.unk_id, tokenizer.mask_id, tokenizer.vocab_size) == (3, 4, 350)
    assert tokenizer.special_ids == frozenset(range(5))
    check_masking(tokenizer, "roberta", 2)
    for data in (*documents[:20], b"a literal <mask> and <pad> and </s>", b"\xff\0"):
        ids = tokenizer.encode(data)
        assert tokenizer.special_ids.isdisjoint(ids)
        assert tokenizer.decode(ids) == data
    again = pickle.loads(pickle.dumps(tokenizer))
    assert (again.fingerprint, again.mask_id, again.origin) == (tokenizer.fingerprint, 4, tokenizer.origin)
    tokenizer.write(tmp_path, documents[1:3], 64)
    library = AutoTokenizer.from_pretrained(tmp_path)
    assert (library.mask_token_id, library.pad_token_id, library.eos_token_id) == (4, 1, 2)
    assert library(documents[1].decode(), verbose=False)["input_ids"] == tokenizer.encode(documents[1])
    assert library("grow <mask> layer")["input_ids"].count(4) == 1, "who fills in masks writes them so"


def test_tokenizers_for_causal_models_are_as_they_were(bpe: SentencePieceTokenizer) -> None:
    assert (bpe.unk_id, bpe.bos_id, bpe.eos_id, bpe.pad_id, bpe.mask_id) == (0, 1, 2, None, None)
    assert bpe.special_ids == frozenset({0, 1, 2})
