"""Mixtures: which samples come in which order, and sources that are prepared one by one with one tokenizer."""

from __future__ import annotations

import re
import runpy
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from ligo_dist.config import Config, config_from
from ligo_dist.corpus import (
    Batches,
    MaskedSamples,
    MixedSamples,
    MixtureCorpus,
    TextCorpus,
    build_corpus,
    describe_prepared,
    hub_data,
    prepare,
    sample_indices,
    sources,
    train_tokenizer,
)
from ligo_dist.runtime.errors import DataError
from ligo_dist.schedule import Mixing


@dataclass(frozen=True)
class Named:
    """Samples that say which they are, and what was drawn for them."""

    name: int
    size: int
    tokens_per_sample: int = 3
    labelled: bool = True

    def __len__(self) -> int:
        return self.size

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        rows = [[self.name, int(index), draw] for index, draw in zip(indices, draws, strict=True)]
        return {"input_ids": torch.tensor(rows), "labels": torch.tensor(rows)}

    def weights(self, indices: Any) -> Any:
        return np.ones(len(indices), dtype=np.int64)


SIZES = (7, 20, 5)
MIXING = Mixing((5, 3, 2), (3, 0, 11))


def drawn(batches: Batches, step: int, world_size: int = 1, size: int = 100) -> list[list[int]]:
    return [
        row
        for rank in range(world_size)
        for inputs, valid in batches.micro_batches(step, rank, world_size, size)
        for row in inputs["input_ids"][:valid].tolist()
    ]


def mixed(batch_size: int = 10, first_sample: int = 1000, mixing: Mixing = MIXING) -> Batches:
    samples = MixedSamples([Named(name, size) for name, size in enumerate(SIZES)])
    return Batches(samples, 4, batch_size, first_sample, mixing)


def test_each_source_is_gone_through_in_shuffled_epochs_of_its_own() -> None:
    rows = [row for step in range(30) for row in drawn(mixed(), step)]
    assert Counter(row[0] for row in rows) == {0: 150, 1: 90, 2: 60}
    assert [row[2] for row in rows] == list(range(1000, 1300)), (
        "what is random is drawn with the run's own number"
    )
    for name, (size, before) in enumerate(zip(SIZES, MIXING.before, strict=True)):
        indices = [row[1] for row in rows if row[0] == name]
        first = -before % size  # where the next epoch begins
        for start in range(first, len(indices) - size + 1, size):
            assert sorted(indices[start : start + size]) == list(range(size))
        epochs = {tuple(indices[start : start + size]) for start in range(first, len(indices) - size, size)}
        assert len(epochs) > 1, "each in another order"
    assert [row[1] for row in rows if row[0] == 0] == sample_indices(4, 3, 150, 7).tolist()


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_the_batches_of_a_mixture(world_size: int) -> None:
    for step in (0, 1, 17):
        alone = drawn(mixed(), step)
        assert len({tuple(row) for row in alone}) == 10
        assert drawn(mixed(), step, world_size, 2) == alone


def test_a_later_phase_goes_on_in_every_source() -> None:
    """With the same weights, and where the pattern begins anew, it is as if there were one phase."""
    later = Mixing(MIXING.weights, MIXING.taken(20))
    assert drawn(mixed(first_sample=1020, mixing=later), 1) == drawn(mixed(), 3)


def test_a_mixture_of_one_source_is_that_source() -> None:
    one = Batches(MixedSamples([Named(0, 7)]), 9, 4, 12, Mixing((1,), (12,)))
    alone = Batches(Named(0, 7), 9, 4, 12)
    assert [drawn(one, step) for step in range(5)] == [drawn(alone, step) for step in range(5)]


# --- prepared ---


def _write(directory: Path, documents: Sequence[bytes]) -> str:
    directory.mkdir()
    for number, document in enumerate(documents):
        (directory / f"{number:03}.txt").write_bytes(document)
    return f"{directory}/*.txt"


@pytest.fixture
def texts(tmp_path: Path, documents: list[bytes]) -> dict[str, dict[str, Any]]:
    """The sources `web` and `code`."""
    web, code = _write(tmp_path / "web", documents[:120]), _write(tmp_path / "code", documents[120:])
    return {"web": {"source": "text", "files": [web]}, "code": {"source": "text", "files": [code]}}


def _raw(cache: Path, mixture: dict[str, Any], family: str = "gpt2", tokenizer: Any = None) -> dict[str, Any]:
    stage = {
        "name": "small",
        "size": {"layers": 1, "width": 16, "heads": 2},
        "train": {"steps": 10, "batch_size": 8, "micro_batch_size": 1},
    }
    data = {"validation_fraction": 0.2, "sequence_length": 8, "workers": 1, "cache_dir": str(cache)}
    return {
        "run_dir": "runs/x",
        "model": {"family": family, "max_positions": 128},
        "stages": [stage],
        "data": {**data, "mixture": mixture},
        "tokenizer": tokenizer or {"vocab_size": 350},
    }


def _build(config: Config) -> MixtureCorpus:
    corpus = build_corpus(config, show_progress=False)
    assert isinstance(corpus, MixtureCorpus)
    return corpus


def _directories(corpus: MixtureCorpus) -> list[Path]:
    return [source.directory for source in corpus.sources.values() if isinstance(source, TextCorpus)]


def test_sources_are_prepared_one_by_one_with_one_tokenizer(
    tmp_path: Path, texts: dict[str, Any], documents: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_from(_raw(tmp_path / "cache", texts))
    web, code = describe_prepared(config, {"web": 40, "code": 40})
    assert web.startswith("data.mixture.web.source text (")
    assert code.endswith(": prepared when the run starts, 40 samples taken")
    corpus = _build(config)
    assert list(corpus.sources) == ["web", "code"]
    assert len({source.tokenizer.fingerprint for source in corpus.sources.values() if source.tokenizer}) == 1
    assert len(corpus.train) == sum(len(source.train) for source in corpus.sources.values())
    web, _ = describe_prepared(config, {"web": 3 * len(corpus.sources["web"].train), "code": 1})
    assert ", 3.00 epochs, in " in web
    monkeypatch.setattr(prepare, "pack", lambda *arguments: pytest.fail("prepared again"))
    texts["web"]["weight"] = 5
    heavier = _build(config_from(_raw(tmp_path / "cache", texts)))
    assert (heavier.fingerprint, _directories(heavier)) == (corpus.fingerprint, _directories(corpus))
    turned = _build(config_from(_raw(tmp_path / "cache", dict(reversed(texts.items())))))
    assert turned.fingerprint != corpus.fingerprint, "another order of samples"
    assert _directories(turned) == _directories(corpus)[::-1]


def test_a_tokenizer_that_is_given_is_everybodys(
    tmp_path: Path, texts: dict[str, Any], documents: list[bytes]
) -> None:
    """And a source is prepared as it is by itself."""
    (tmp_path / "my.model").write_bytes(train_tokenizer(documents, 350, "bpe", masked=True))
    raw = _raw(tmp_path / "cache", texts, "roberta", {"file": str(tmp_path / "my.model")})
    corpus = _build(config_from(raw))
    raw["data"] |= {"mixture": {}, **texts["code"]}
    alone = build_corpus(config_from(raw), show_progress=False)
    assert isinstance(alone, TextCorpus)
    assert _directories(corpus)[1] == alone.directory
    assert isinstance(alone.train, MaskedSamples)
    offset = len(corpus.sources["web"].train)
    both = corpus.train.read([offset + 2, 1, offset], [70, 71, 72])
    own = alone.train.read([2, 0], [70, 72])
    for name, tensor in both.items():
        assert torch.equal(tensor[[0, 2]], own[name])


def test_an_error_names_the_source(tmp_path: Path, texts: dict[str, Any]) -> None:
    texts["code"]["files"] = [str(tmp_path / "nothing/*.txt")]
    with pytest.raises(DataError, match=r"^data.mixture.code.files: no file matches '.*nothing"):
        _build(config_from(_raw(tmp_path / "cache", texts)))
    texts["code"]["files"] = [_write(tmp_path / "one", [b"a document by itself"])]
    with pytest.raises(DataError, match=r"^data.mixture.code: data: the corpus is one document"):
        _build(config_from(_raw(tmp_path / "cache", texts)))


def test_images_of_one_kind_are_mixed_and_others_are_not(tmp_path: Path) -> None:
    from PIL import Image

    def folders(name: str, classes: Sequence[str]) -> dict[str, Any]:
        for number in range(30):
            path = tmp_path / name / classes[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number * 8 + len(name)).save(path)
        return {"source": "images", "name": str(tmp_path / name)}

    raw = _raw(
        tmp_path / "cache", {"a": folders("a", ("cat", "dog")), "bb": folders("bb", ("cat", "dog"))}, "vit"
    )
    raw["model"], raw["tokenizer"] = {"family": "vit", "patch_size": 4}, {}
    raw["data"] |= {"image_size": 8, "channels": 1, "labels": 2}
    del raw["data"]["sequence_length"]
    corpus = _build(config_from(raw))
    assert len(corpus.train) + len(corpus.validation) == 60
    assert corpus.library_keys()["id2label"] == {0: "cat", 1: "dog"}
    raw["data"]["mixture"]["ccc"] = folders("ccc", ("cat", "dodo"))
    with pytest.raises(
        DataError, match=r"^data.mixture.ccc: its classes are cat, dodo, and those of a cat, dog;"
    ):
        _build(config_from(raw))


# --- where there is no network ---


@pytest.fixture
def hub(tmp_path: Path, documents: list[bytes], monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the hub with the data set `someone/texts`; with `.silent` nobody can reach it."""
    rows = {"text": [document.decode("latin-1") for document in documents]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "table" / "train.parquet")
    table = datasets.load_dataset("parquet", data_files=str(tmp_path / "table/train.parquet"), split="train")
    state = SimpleNamespace(silent=False, asked=0)

    def builder(*names: Any) -> Any:
        state.asked += 1
        if state.silent:
            raise ConnectionError("no network")
        return SimpleNamespace(hash="1", config=SimpleNamespace(data_files=None))

    monkeypatch.setattr(sources, "open_dataset", lambda *arguments: table)
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    monkeypatch.setattr(hub_data, "_silence", lambda: "no network" if state.silent else None)
    return state


def test_a_mixture_with_data_of_the_hub_is_found_without_the_hub(
    tmp_path: Path, texts: dict[str, Any], hub: SimpleNamespace
) -> None:
    mixture = {"hub": {"source": "hub", "name": "someone/texts"}, "web": texts["web"]}
    config = config_from(_raw(tmp_path / "cache", mixture))
    before = _build(config)
    hub.silent, hub.asked = True, 0
    after = _build(config)
    assert (after.fingerprint, _directories(after)) == (before.fingerprint, _directories(before))
    assert hub.asked == 0, "`datasets` would try for half a minute"
    assert (
        "(prepared before: data.name: 'someone/texts': the Hugging Face hub cannot be reached (no network))"
        in (after.description)
    )
    alone = {key: value for key, value in _raw(tmp_path / "cache", {})["data"].items() if key != "mixture"}
    raw = _raw(tmp_path / "cache", mixture) | {"data": {**alone, **mixture["hub"]}}
    with pytest.raises(DataError, match=r"^data.name: 'someone/texts': "):
        build_corpus(config_from(raw), show_progress=False)  # whose tokenizer would be trained on it alone
    shutil.rmtree(_directories(before)[0])
    with pytest.raises(DataError, match=r"^data.mixture.hub.name: 'someone/texts': "):
        _build(config)


def test_a_hub_that_does_not_answer_is_asked_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub_data._silence.__wrapped__
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert asked() == "HF_HUB_OFFLINE"
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setattr(hub_data.constants, "ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        assert "refused" in (asked() or "")


def test_the_command_prepares_and_says_what_it_made(
    tmp_path: Path,
    texts: dict[str, Any],
    hub: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "mix.yaml"
    mixture = {"hub": {"source": "hub", "name": "someone/texts"}, "web": texts["web"]}
    path.write_text(yaml.safe_dump(_raw(tmp_path / "cache", mixture)))

    def prepared(*overrides: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ligo_dist.corpus", str(path), *overrides])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("ligo_dist.corpus", run_name="__main__")
        return ended.value.code  # type: ignore[return-value]

    assert prepared() == 0
    said = capsys.readouterr().out
    corpus = _build(config_from(_raw(tmp_path / "cache", mixture)))
    for name, source in corpus.sources.items():
        assert isinstance(source, TextCorpus)
        held = source.statistics["train"]
        numbers = rf"{held.documents} +{held.tokens:,} +{len(source.train):,} +\d"
        assert re.search(rf"{name} +train +{numbers}", said)
        assert f"in {source.directory}, " in said
    assert "tokenizer: 350 pieces" in said
    assert prepared("data.mixture.web.files=[nothing/*.txt]", "data.validation_fraction=0.3") == 2
    assert capsys.readouterr().err.startswith("ligo-dist: data.mixture.web.files: no file matches")
