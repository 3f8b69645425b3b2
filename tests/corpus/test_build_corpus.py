"""From the configuration to batches, on the default corpus, for every objective."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from transformers import AutoTokenizer

from example import with_one_stage
from ligo_dist.config import Config, config_from
from ligo_dist.corpus import (
    NOT_PREDICTED,
    CausalSamples,
    MaskedSamples,
    SentencePieceTokenizer,
    TextCorpus,
    UnlabelledSamples,
    build_corpus,
    describe_prepared,
    sources,
    standard_library_files,
    train_tokenizer,
)
from ligo_dist.runtime.errors import ConfigError, DataError


def _config(cache_dir: Path, family: str = "gpt2", tokenizer: Any = None, **data: Any) -> Config:
    defaults = {
        "source": "stdlib",
        "max_documents": 150,
        "validation_fraction": 0.1,
        "sequence_length": 64,
        "workers": 1,
        "cache_dir": str(cache_dir),
    }
    model = {"family": family, "max_positions": 128}
    tokenizer = {"vocab_size": 600} if tokenizer is None else tokenizer
    return with_one_stage(model, defaults | data, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests share what they prepare, unless that is what they are about."""
    return tmp_path_factory.mktemp("cache")


def _build(config: Config, source: Path | None = None) -> TextCorpus:
    corpus = build_corpus(config, source, show_progress=False)
    assert isinstance(corpus, TextCorpus)
    return corpus


def test_the_standard_library_as_a_corpus(tmp_path: Path) -> None:
    config = _config(tmp_path, workers=2)
    assert describe_prepared(config, {"": 10}) == ["data.source stdlib: prepared when the run starts"]
    corpus = _build(config)
    tokens = corpus.statistics["train"].tokens
    assert describe_prepared(config, {"": 3 * len(corpus.train)}) == [
        f"data.source stdlib: {tokens:,} tokens to train on, 3.00 epochs, in {corpus.directory}"
    ]
    assert isinstance(corpus.tokenizer, SentencePieceTokenizer)
    statistics = corpus.statistics
    assert 130 < statistics["train"].documents + statistics["validation"].documents <= 150
    assert len(corpus.train) == statistics["train"].tokens // 64
    assert len(corpus.validation) == statistics["validation"].tokens // 64
    assert isinstance(corpus.train, CausalSamples)
    assert corpus.train.tokens_per_sample == 64
    assert corpus.library_keys() == {"bos_token_id": 1, "eos_token_id": 2}
    assert corpus.exported_keys() == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}, (
        "pads with <unk>"
    )
    assert corpus.vocab_size == 600
    pattern = rf" tokens to train on \(\d\.\d bytes each\), in {re.escape(str(corpus.directory))}$"
    assert re.search(pattern, corpus.description)
    files = {Path(path).read_bytes() for path in standard_library_files(False)[:150]}
    samples = corpus.sample_documents(3)
    assert len(samples) == 3
    assert set(samples) <= files
    longer = _build(_config(tmp_path, sequence_length=128))
    assert longer.fingerprint == corpus.fingerprint
    assert len(longer.train) == statistics["train"].tokens // 128


def test_a_corpus_for_a_masked_language_model(tmp_path: Path, cache: Path) -> None:
    corpus = _build(_config(cache, "roberta", mask_fraction=0.3))
    train, validation = corpus.train, corpus.validation
    assert isinstance(train, MaskedSamples)
    assert isinstance(validation, MaskedSamples)
    assert (train.seed, validation.seed, train.mask_id, train.fraction) == (5, 0, 4, 0.3)
    assert train.stream != validation.stream
    batch = train.read([0, 1], [0, 1])
    assert ((batch["labels"] != NOT_PREDICTED).sum(dim=1) == round(0.3 * 64)).all()
    assert corpus.library_keys() == {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    causal = _build(_config(cache))
    assert causal.fingerprint != corpus.fingerprint, "another tokenizer"
    (tmp_path / "export").mkdir()
    corpus.write_processor(tmp_path / "export")
    assert AutoTokenizer.from_pretrained(tmp_path / "export").mask_token == "<mask>"


def test_a_model_without_an_objective_gets_text_alone(cache: Path, bert_directory: Path) -> None:
    raw = _config(cache, "bert", {"huggingface": str(bert_directory)}).resolved()
    raw["model"]["family"] = "bert_encoder"
    raw["stages"][0] |= {"from": str(bert_directory), "train": None}
    config = config_from(raw)
    corpus = _build(config)
    assert isinstance(corpus.train, UnlabelledSamples)
    assert not corpus.validation.labelled


def test_a_hugging_face_tokenizer(tmp_path: Path, cache: Path, bert_directory: Path) -> None:
    config = _config(cache, "bert", {"huggingface": str(bert_directory)})
    corpus = _build(config)
    assert _build(_config(cache, "bert", {"huggingface": str(bert_directory)}, workers=2)).fingerprint == (
        corpus.fingerprint
    )
    library = AutoTokenizer.from_pretrained(bert_directory)
    assert corpus.vocab_size == len(library)
    assert corpus.library_keys() == {"bos_token_id": None, "eos_token_id": 3, "pad_token_id": 0}
    assert corpus.sample_documents(3) == []
    lines = (corpus.directory / "validation.jsonl").read_text().splitlines()
    tokens = []
    for line in lines[:3]:
        text = json.loads(line)["text"]
        tokens += [*library(text, add_special_tokens=False, truncation=False, padding=False)["input_ids"], 3]
    assert isinstance(corpus.train, MaskedSamples)
    assert corpus.validation_blocks.read([0])[0].tolist() == tokens[:64]
    assert not corpus.directory.joinpath("tokenizer.model").exists()
    (tmp_path / "export").mkdir()
    corpus.write_processor(tmp_path / "export")
    assert AutoTokenizer.from_pretrained(tmp_path / "export")("grow") == library("grow")


def test_the_sources_tokenizer_is_taken_unless_another_is_asked_for(
    tmp_path: Path,
    cache: Path,
    bert_directory: Path,
) -> None:
    config = _config(cache, "bert", {"huggingface": str(bert_directory)})
    named = _build(config)
    raw = config.resolved()
    raw["tokenizer"]["huggingface"], raw["stages"][0]["from"] = None, str(bert_directory)
    assert _build(config_from(raw), bert_directory).fingerprint == named.fingerprint
    assert "tokenizer is not" not in named.description
    raw["tokenizer"]["vocab_size"] = 600
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size: 600 would train a new tokenizer"):
        config_from(raw)
    raw["tokenizer"]["replace_source"] = True
    another = _build(config_from(raw), bert_directory)
    assert another.vocab_size == 600
    assert another.description.endswith("; the tokenizer is not that of stages[0].from")
    raw["tokenizer"] |= {"vocab_size": None, "replace_source": False}
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"stages\[0\].from: the tokenizer in '.*empty' has no tokenizer.json"
    ):
        _build(config_from(raw), tmp_path / "empty")


def _from(cache_dir: Path, directory: Path, family: str = "bert", **tokenizer: Any) -> TextCorpus:
    raw = _config(cache_dir, family, {"vocab_size": 600}).resolved()
    raw["tokenizer"] = tokenizer
    raw["stages"][0]["from"] = str(directory)
    return _build(config_from(raw), directory)


def test_each_source_keeps_its_own_chat_template(tmp_path: Path, cache: Path, bert_directory: Path) -> None:
    """Though their tokens, and so the cached corpus, are the same."""
    written = []
    for template in ("A {{ messages }}", None, "B {{ messages }}"):
        directory, export = tmp_path / f"source {template}", tmp_path / f"export {template}"
        shutil.copytree(bert_directory, directory)
        if template is not None:
            (directory / "chat_template.jinja").write_text(template)
        corpus = _from(cache, directory)
        export.mkdir()
        corpus.write_processor(export)
        written.append((corpus.directory, AutoTokenizer.from_pretrained(export).chat_template))
    assert [template for _, template in written] == ["A {{ messages }}", None, "B {{ messages }}"]
    assert len({directory for directory, _ in written}) == 1


@pytest.mark.parametrize(
    ("family", "said", "generation", "left"),
    [
        ("bert", {"eos_token_id": [3, 4], "pad_token_id": None}, {}, {"bos_token_id": None}),
        ("bert", {"pad_token_id": 0}, {"eos_token_id": [3]}, {"bos_token_id": None}),
        ("bert", {}, {}, {"bos_token_id": None, "eos_token_id": 3, "pad_token_id": 0}),
    ],
)
def test_ids_that_a_source_says_of_its_own_tokenizer_are_left_to_it(
    tmp_path: Path,
    cache: Path,
    bert_directory: Path,
    family: str,
    said: dict[str, Any],
    generation: dict[str, Any],
    left: dict[str, Any],
) -> None:
    directory = tmp_path / "source"
    shutil.copytree(bert_directory, directory)
    (directory / "config.json").write_text(json.dumps({"model_type": "bert", **said}))
    (directory / "generation_config.json").write_text(json.dumps(generation))
    corpus = _from(cache, directory, family)
    assert corpus.exported_keys() == left
    assert corpus.library_keys() == {"bos_token_id": None, "eos_token_id": 3, "pad_token_id": 0}, (
        "in training"
    )
    another = _from(cache, directory, family, huggingface=str(bert_directory))
    assert another.exported_keys() == another.library_keys(), "another's tokenizer: its ids"
    assert _from(cache, directory, family, huggingface=str(directory)).exported_keys() == left


def test_tokenizers_that_do_not_fit_are_refused(
    tmp_path: Path,
    cache: Path,
    documents: list[bytes],
    bert_directory: Path,
) -> None:
    file = tmp_path / "causal.model"
    file.write_bytes(train_tokenizer(documents, 350, "bpe"))
    with pytest.raises(DataError, match=r"tokenizer.file: '.*causal.model' has no mask token, which bert"):
        _build(_config(cache, "bert", {"file": str(file)}))
    with pytest.raises(DataError, match=r"has the padding id 0, but roberta counts positions"):
        _build(_config(cache, "roberta", {"huggingface": str(bert_directory)}))
    with pytest.raises(
        DataError, match=r"tokenizer.vocab_size: 5000, but '.*' has \d+ pieces; write \d+ or null"
    ):
        _build(_config(cache, "bert", {"huggingface": str(bert_directory), "vocab_size": 5000}))
    with pytest.raises(DataError, match=r"tokenizer.huggingface: '.*causal.model' is a file, not"):
        _build(_config(cache, "bert", {"huggingface": str(file)}))
    masked = tmp_path / "masked.model"
    masked.write_bytes(train_tokenizer(documents, 350, "bpe", masked=True))
    assert _build(_config(cache, "roberta", {"file": str(masked)})).vocab_size == 350


def test_too_little_text_for_one_sequence_is_refused(cache: Path) -> None:
    config = _config(cache)
    data = config.data.model_copy(update={"sequence_length": 100_000_000})
    with pytest.raises(
        DataError, match=r"data.sequence_length: 100000000 tokens, but the train split holds only"
    ):
        _build(config.model_copy(update={"data": data}))


def test_the_package_and_its_workers_do_not_import_torch() -> None:
    """The launcher imports it, and so does every tokenizing process; a rank needs torch, but to read a prepared corpus
    no datasets."""
    code = (
        "import sys, ligo_dist.corpus.packing, ligo_dist.corpus.text_tokenizer, ligo_dist.corpus.cache;"
        "heavy = 'torch' in sys.modules;"
        "import ligo_dist.corpus.text_corpus, ligo_dist.corpus.image_corpus;"
        "sys.exit(heavy or 'datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _texts(directory: Path, documents: list[bytes]) -> Path:
    directory.mkdir()
    for number, document in enumerate(documents):
        (directory / f"{number:03}.txt").write_bytes(document)
    return directory


OF_TEXT = {"source": "text", "max_documents": None, "validation_fraction": 0.2, "sequence_length": 8}


@pytest.mark.parametrize("change", ["touched", "moved", "another library", "one more file without text"])
def test_the_fingerprint_is_of_the_tokens(
    tmp_path: Path, documents: list[bytes], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    texts = _texts(tmp_path / "texts", documents)
    before = _build(_config(tmp_path / "cache", files=[f"{texts}/*"], **OF_TEXT))
    match change:
        case "touched":
            for file in texts.iterdir():
                os.utime(file, (1, 1))
        case "moved":
            texts = texts.rename(tmp_path / "elsewhere")
        case "another library":
            monkeypatch.setattr("ligo_dist.corpus.prepare.version", lambda name: "99.0.1")
        case _:
            (texts / "zzz").touch()
    after = _build(_config(tmp_path / "cache", files=[f"{texts}/*"], **OF_TEXT))
    assert after.directory != before.directory
    assert after.fingerprint == before.fingerprint
    (texts / "000.txt").write_bytes(b"something else, of some length")
    other = _build(_config(tmp_path / "cache", files=[f"{texts}/*"], **OF_TEXT))
    assert other.fingerprint != before.fingerprint


def _hub(cache: Path, name: str, **data: Any) -> Config:
    return _config(cache, **{**OF_TEXT, "source": "hub", "name": name, **data})


@pytest.mark.parametrize("gone", ["texts", "a directory of parquet files", "the tokenizer", "the hub"])
def test_what_was_prepared_stands_on_its_own(
    tmp_path: Path,
    documents: list[bytes],
    bert_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    gone: str,
) -> None:
    texts = _texts(tmp_path / "texts", documents)
    cache, tokenizer = tmp_path / "cache", tmp_path / "tokenizer"
    shutil.copytree(bert_directory, tokenizer)
    files = {**OF_TEXT, "files": [f"{texts}/*.txt"]}
    match gone:
        case "texts":
            config, remove, said = _config(cache, **files), texts, "data.files: no file matches"
        case "the tokenizer":
            config = _config(cache, "bert", {"huggingface": str(tokenizer)}, **files)
            remove, said = tokenizer, "tokenizer.huggingface: "
        case _:
            table = datasets.Dataset.from_dict(
                {"text": [document.decode("latin-1") for document in documents]}
            )
            table.to_parquet(tmp_path / "table" / "train.parquet")
            config, remove, said = _hub(cache, str(tmp_path / "table")), tmp_path / "table", "data.name: "
    if gone == "the hub":
        table = datasets.load_dataset(
            "parquet", data_files=str(tmp_path / "table/train.parquet"), split="train"
        )
        config, said = _hub(cache, "someone/texts"), "data.name: 'someone/texts': "
        monkeypatch.setattr(sources, "open_dataset", lambda *arguments: table)
        builder = SimpleNamespace(hash="1", config=SimpleNamespace(data_files=None))
        monkeypatch.setattr(datasets, "load_dataset_builder", lambda *names: builder)
    before = _build(config)

    def offline(*names: Any) -> None:
        raise ConnectionError("no network")

    shutil.rmtree(remove)
    monkeypatch.setattr(datasets, "load_dataset_builder", offline)
    after = _build(config)
    assert (after.fingerprint, after.directory) == (before.fingerprint, before.directory)
    assert f"{before.directory} (prepared before: {said}" in after.description
    with pytest.raises(DataError, match=re.escape(said)):
        _build(
            config.model_copy(update={"data": config.data.model_copy(update={"validation_fraction": 0.3})})
        )
    (before.directory / "train.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"what was prepared of it, in .*, is damaged"):
        _build(config)


def test_another_projects_corpus_is_not_taken(
    tmp_path: Path, documents: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths in a cache that two projects share."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    _texts(tmp_path / "one" / "texts", documents)
    config = _config(tmp_path / "cache", files=["texts/*.txt"], **OF_TEXT)
    monkeypatch.chdir(tmp_path / "one")
    _build(config)
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(DataError, match="no file matches"):
        _build(config)
