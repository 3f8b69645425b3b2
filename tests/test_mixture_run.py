"""Whole runs on a mixture of sources whose weights change from stage to stage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from ligo_dist.config import load_config
from ligo_dist.corpus import build_corpus, sources
from ligo_dist.schedule import Plan
from runs import TEXTS, RunFiles, Site, environment, run_warm

pytestmark = pytest.mark.slow


def overrides(site: Site, *more: str) -> list[str]:
    first, second = (
        [str(site.directory / "texts" / name) for name in names] for names in (TEXTS[:3], TEXTS[3:])
    )
    mixture = {
        "few": {"source": "text", "files": first, "document": "paragraph", "weight": 3},
        "rest": {"source": "text", "files": second, "document": "paragraph", "weight": 1},
    }
    own = ("source", "files", "document")
    data = load_config(site.config("mixture", "two stages").config).values()["data"]
    data = {key: value for key, value in data.items() if key not in own} | {"mixture": mixture}
    return [
        f"data={json.dumps(data)}",
        "stages[1].data.weights={few: 0.5}",
        "defaults.train={steps: 4, micro_batch_size: 6}",
        "defaults.grow={learn: {steps: 2}}",
        "checkpoints={every_steps: 1, keep: 20}",
        *more,
    ]


@pytest.fixture(scope="module")
def mixed_run(site: Site) -> RunFiles:
    files = site.config("mixture", "two stages")
    build_corpus(load_config(files.config, overrides(site)), show_progress=False)
    assert run_warm(files, 2, *overrides(site)) == (0, "")
    return files


def test_epochs_and_losses_of_each_source_are_told(site: Site, mixed_run: RunFiles) -> None:
    config = load_config(mixed_run.config, overrides(site))
    corpus = build_corpus(config, show_progress=False)
    plan = Plan.of(config, corpus.vocab_size, 2)
    # 48 samples of 3 and 1, then 24 and 48 of 1 and 2.
    assert plan.samples_by_source == {"few": 36 + 8 + 16, "rest": 12 + 16 + 32}
    numbers = mixed_run.numbers()
    summary = json.loads((mixed_run.run_dir / "summary.json").read_text())
    log = (mixed_run.run_dir / "run.log").read_text()
    for source, (name, taken) in zip(summary["sources"], plan.samples_by_source.items(), strict=True):
        epochs = taken / len(corpus.sources[name].train)
        last = numbers["large", "train", 10, f"evaluate/loss/{name}"]
        assert source == {"name": name, "samples": taken, "epochs": epochs, "final_loss": last}
        assert numbers["large", "train", 10, f"data/epochs/{name}"] == epochs
        assert f"data.mixture.{name}.source text (" in log
        assert f"{epochs:.2f} epochs\n" in log
    assert (
        f"large validation: few {last_loss(numbers, '/few'):.3f}, rest {last_loss(numbers, '/rest'):.3f}"
        in log
    )
    # By the weights of the mixture, whatever the stage's are.
    mean = (3 * last_loss(numbers, "/few") + last_loss(numbers, "/rest")) / 4
    assert last_loss(numbers) == pytest.approx(mean, rel=1e-6)
    assert numbers["large", "grow", 6, "evaluate/loss/few"] > 0


def last_loss(numbers: dict[tuple[str, str, int, str], float], of: str = "") -> float:
    return numbers["large", "train", 10, f"evaluate/loss{of}"]


def test_a_run_that_goes_on_on_other_ranks_is_the_same(site: Site, mixed_run: RunFiles) -> None:
    """From the middle of learning: the same samples, so the same losses."""
    files = mixed_run.copy("mixture-resumed")
    (files.run_dir / "summary.json").unlink()
    for path in sorted((files.run_dir / "checkpoints").iterdir()):
        if path.is_dir() and int(path.name.split("-")[1]) > 5:
            shutil.rmtree(path)
    assert run_warm(files, 3, *overrides(site)) == (0, "")
    assert "resumed from" in (files.run_dir / "run.log").read_text()
    numbers, expected = files.numbers(), mixed_run.numbers()
    assert numbers.keys() == expected.keys()
    for key, number in expected.items():
        if key[3].startswith(("data/epochs", "cumulative/tokens")):
            assert numbers[key] == number
        elif "loss" in key[3]:
            assert numbers[key] == pytest.approx(number, rel=2e-3), key


def test_other_weights_are_another_run(site: Site, mixed_run: RunFiles) -> None:
    code, said = run_warm(mixed_run, 2, *overrides(site, "data.mixture.few.weight=2"))
    assert code == 2
    assert "data.mixture.few.weight: 3.0 -> 2.0" in said


def test_a_run_on_prepared_data_of_the_hub_starts_without_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
        "text": [
            text for name in TEXTS for text in (site.directory / "texts" / name).read_text().split("\n\n")
        ]
    }
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    table = datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), split="train")
    builder: Any = SimpleNamespace(hash="1", config=SimpleNamespace(data_files=None))
    files = site.config("hub", "two stages")
    mixed = load_config(files.config, overrides(site)).values()["data"]
    mixed["mixture"]["few"] = {"source": "hub", "name": "someone/texts"}
    short = [
        "defaults.train={steps: 1, batch_size: 4, micro_batch_size: 4}",
        "defaults.grow={learn: {steps: 0}}",
    ]
    asked = [f"data={json.dumps(mixed)}", *short]
    with monkeypatch.context() as at_the_hub:
        at_the_hub.setattr(sources, "open_dataset", lambda *arguments: table)
        at_the_hub.setattr(datasets, "load_dataset_builder", lambda *names: builder)
        build_corpus(load_config(files.config, asked), show_progress=False)
    done = subprocess.run(
        [sys.executable, "-m", "ligo_dist", str(files.config), *asked],
        env={**environment(), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    log = (files.run_dir / "run.log").read_text()
    assert "the Hugging Face hub cannot be reached (HF_HUB_OFFLINE)" in log
