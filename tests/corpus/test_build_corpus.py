"""From the configuration to batches, on the default corpus, for every objective."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ligo_dist.config import Config, config_from
from ligo_dist.corpus import build_corpus
from ligo_dist.corpus.samples import (
    NOT_PREDICTED,
    CausalSamples,
    MaskedSamples,
    UnlabelledSamples,
)
from ligo_dist.corpus.text_corpus import TextCorpus
from ligo_dist.corpus.text_files import standard_library_files
from ligo_dist.corpus.tokenizer import SentencePieceTokenizer
from ligo_dist.corpus.tokenizer_training import train_tokenizer
from ligo_dist.runtime.errors import DataError


def _config(cache_dir: Path, family: str = "gpt2", tokenizer: Any = None, **data: Any) -> Config:
    defaults = {
        "source": "stdlib",
        "max_documents": 150,
        "validation_fraction": 0.1,
        "sequence_length": 64,
        "workers": 1,
        "cache_dir": str(cache_dir),
    }
    stage = {
        "name": "small",
        "size": {"layers": 1, "width": 16, "heads": 2},
        "train": {"steps": 1, "batch_size": 1, "micro_batch_size": 1},
    }
    return config_from(
        {
            "run_dir": "runs/x",
            "seed": 5,
            "model": {"family": family, "max_positions": 128},
            "stages": [stage],
            "data": defaults | data,
            "tokenizer": {"vocab_size": 600} if tokenizer is None else tokenizer,
        }
    )


def _build(config: Config, source: Path | None = None) -> TextCorpus:
    corpus = build_corpus(config, source, show_progress=False)
    assert isinstance(corpus, TextCorpus)
    return corpus


def test_the_standard_library_as_a_corpus(tmp_path: Path) -> None:
    corpus = _build(_config(tmp_path, workers=2))
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
    assert corpus.description.endswith(f" tokens to train on, in {corpus.directory}")
    files = {Path(path).read_bytes() for path in standard_library_files(False)[:150]}
    samples = corpus.sample_documents(3)
    assert len(samples) == 3
    assert set(samples) <= files
    longer = _build(_config(tmp_path, sequence_length=128))
    assert longer.fingerprint == corpus.fingerprint
    assert len(longer.train) == statistics["train"].tokens // 128


def test_a_corpus_for_a_masked_language_model(tmp_path: Path) -> None:
    corpus = _build(_config(tmp_path / "cache", "roberta", mask_fraction=0.3))
    train, validation = corpus.train, corpus.validation
    assert isinstance(train, MaskedSamples)
    assert isinstance(validation, MaskedSamples)
    assert (train.seed, validation.seed, train.mask_id, train.fraction) == (5, 0, 4, 0.3)
    assert train.stream != validation.stream
    batch = train.read([0, 1], [0, 1])
    assert ((batch["labels"] != NOT_PREDICTED).sum(dim=1) == round(0.3 * 64)).all()
    assert corpus.library_keys() == {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    causal = _build(_config(tmp_path / "cache"))
    assert causal.fingerprint != corpus.fingerprint, "another tokenizer"
    (tmp_path / "export").mkdir()
    corpus.write_processor(tmp_path / "export")
    assert AutoTokenizer.from_pretrained(tmp_path / "export").mask_token == "<mask>"


def test_a_model_without_an_objective_gets_text_alone(tmp_path: Path, bert_directory: Path) -> None:
    raw = _config(tmp_path, "bert", {"huggingface": str(bert_directory)}).resolved()
    raw["model"]["family"] = "bert_encoder"
    raw["stages"][0] |= {"from": str(bert_directory), "train": None}
    config = config_from(raw)
    corpus = _build(config)
    assert isinstance(corpus.train, UnlabelledSamples)
    assert not corpus.validation.labelled


def test_a_hugging_face_tokenizer(tmp_path: Path, bert_directory: Path) -> None:
    config = _config(tmp_path / "cache", "bert", {"huggingface": str(bert_directory)})
    corpus = _build(config)
    assert _build(
        _config(tmp_path / "cache", "bert", {"huggingface": str(bert_directory)}, workers=2)
    ).fingerprint == (corpus.fingerprint)
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
    bert_directory: Path,
) -> None:
    config = _config(tmp_path, "bert", {"huggingface": str(bert_directory)})
    named = _build(config)
    raw = config.resolved()
    raw["tokenizer"]["huggingface"], raw["stages"][0]["from"] = None, str(bert_directory)
    assert _build(config_from(raw), bert_directory).fingerprint == named.fingerprint
    raw["tokenizer"]["vocab_size"] = 600
    assert _build(config_from(raw), bert_directory).vocab_size == 600
    raw["tokenizer"]["vocab_size"] = None
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


def test_each_source_keeps_its_own_chat_template(tmp_path: Path, bert_directory: Path) -> None:
    """Though their tokens, and so the cached corpus, are the same."""
    written = []
    for template in ("A {{ messages }}", None, "B {{ messages }}"):
        directory, export = tmp_path / f"source {template}", tmp_path / f"export {template}"
        shutil.copytree(bert_directory, directory)
        if template is not None:
            (directory / "chat_template.jinja").write_text(template)
        corpus = _from(tmp_path / "cache", directory)
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
    corpus = _from(tmp_path, directory, family)
    assert corpus.exported_keys() == left
    assert corpus.library_keys() == {"bos_token_id": None, "eos_token_id": 3, "pad_token_id": 0}, (
        "in training"
    )
    another = _from(tmp_path, directory, family, huggingface=str(bert_directory))
    assert another.exported_keys() == another.library_keys(), "another's tokenizer: its ids"
    assert _from(tmp_path, directory, family, huggingface=str(directory)).exported_keys() == left


def test_tokenizers_that_do_not_fit_are_refused(
    tmp_path: Path,
    documents: list[bytes],
    bert_directory: Path,
) -> None:
    file = tmp_path / "causal.model"
    file.write_bytes(train_tokenizer(documents, 350, "bpe"))
    with pytest.raises(DataError, match=r"tokenizer.file: '.*causal.model' has no mask token, which bert"):
        _build(_config(tmp_path, "bert", {"file": str(file)}))
    with pytest.raises(DataError, match=r"has the padding id 0, but roberta counts positions"):
        _build(_config(tmp_path, "roberta", {"huggingface": str(bert_directory)}))
    with pytest.raises(
        DataError, match=r"tokenizer.vocab_size: 5000, but '.*' has \d+ pieces; write \d+ or null"
    ):
        _build(_config(tmp_path, "bert", {"huggingface": str(bert_directory), "vocab_size": 5000}))
    with pytest.raises(DataError, match=r"tokenizer.huggingface: '.*causal.model' is a file, not"):
        _build(_config(tmp_path, "bert", {"huggingface": str(file)}))
    masked = tmp_path / "masked.model"
    masked.write_bytes(train_tokenizer(documents, 350, "bpe", masked=True))
    assert _build(_config(tmp_path, "roberta", {"file": str(masked)})).vocab_size == 350


def test_too_little_text_for_one_sequence_is_refused(tmp_path: Path) -> None:
    config = _config(tmp_path)
    data = config.data.model_copy(update={"sequence_length": 100_000_000})
    with pytest.raises(
        DataError, match=r"data.sequence_length: 100000000 tokens, but the train split holds only"
    ):
        _build(config.model_copy(update={"data": data}))


def test_the_package_and_its_workers_do_not_import_torch() -> None:
    """The launcher imports it, and so does every tokenizing process."""
    code = (
        "import sys, ligo_dist.corpus.packing, ligo_dist.corpus.pretrained_tokenizer;"
        "sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
