"""Whole runs: the same numbers on any number of ranks; and one clear message for each mistake."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from launcher.cli import main as launch
from ligo_dist.engine import World
from ligo_dist.report import write_report
from ligo_dist.runtime.errors import CANNOT_GO_ON
from ligo_dist.runtime.quantities import count, flops, loss
from ligo_dist.tracking import read_records
from ranks import run_ranks
from runs import (
    ROOT,
    RunFiles,
    Site,
    assert_same_weights,
    environment,
    has_finished,
    launcher,
    run_warm,
    worker_main,
)

pytestmark = pytest.mark.slow


# --- the same numbers ---


def assert_equal_to_rounding(files: RunFiles, reference: RunFiles) -> None:
    losses, expected = files.numbers("loss"), reference.numbers("loss")
    assert losses == pytest.approx(expected, abs=1e-4)
    assert files.numbers("cumulative/tokens") == reference.numbers("cumulative/tokens")


def test_a_run_leaves_what_it_should(whole_run: RunFiles):
    assert has_finished(whole_run)
    numbers = whole_run.numbers("loss")
    phases = {(stage, phase) for stage, phase, _, _ in numbers}
    assert phases == {
        ("small", "train"), ("medium", "learn"), ("medium", "grow"), ("medium", "train"),
        ("large", "learn"), ("large", "grow"), ("large", "train"),
    }  # fmt: skip
    assert len([name for *_, name in numbers if name in ("train/loss", "learn/loss")]) == 25
    assert {name for stage, phase, _, name in numbers if phase == "grow"} == {
        "grow/source_loss", "grow/grown_loss", "grow/random_loss", "evaluate/loss",
    }  # fmt: skip
    assert [path.name for path in (whole_run.run_dir / "export").iterdir()] == ["large"]
    assert len(whole_run.checkpoints()) == 2


def test_a_report_has_the_numbers_of_the_summary(whole_run: RunFiles, tmp_path: Path):
    write_report([str(whole_run.run_dir)], None, tmp_path)
    (run,) = json.loads((tmp_path / "report.json").read_text())["runs"]
    summary = json.loads((whole_run.run_dir / "summary.json").read_text())["stages"]
    assert len(summary) == 3
    for reported, expected in zip(run["stages"], summary, strict=True):
        names = sorted(set(expected) - {"random_loss", "final_accuracy"})
        assert {name: reported[name] for name in names} == pytest.approx(
            {name: expected[name] for name in names}
        )
    assert [stage["growth"] is None for stage in run["stages"]] == [True, False, False]
    assert run["source"]["own"]["flops"] == pytest.approx(summary[0]["flops"] + summary[1]["flops"])


def test_the_model_card_tells_the_lineage_of_the_summary(whole_run: RunFiles):
    (*_, manifest) = whole_run.run_dir.glob("checkpoints/*/COMPLETE.json")
    card = ModelCard.load(whole_run.run_dir / "export" / "large" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    assert card.data.base_model is None
    cells = [line.strip("| ").split(" | ") for line in card.text.splitlines() if line.startswith("|")][2:]
    summary = json.loads((whole_run.run_dir / "summary.json").read_text())["stages"]
    assert [row[0] for row in cells] == ["small", "medium", "large"]
    assert [row[2].partition(" ")[0] for row in cells] == ["-", "ligo", "lossless"]
    for row, stage in zip(cells, summary, strict=True):
        assert row[3:5] == [count(stage["tokens"]), flops(stage["flops"])]
        assert row[5:] == [loss(stage[f"{which}_loss"]) for which in ("source", "grown", "final")]
    assert flops(sum(stage["flops"] for stage in summary)) in card.text
    assert f"`{json.loads(manifest.read_text())['config']['corpus_fingerprint']}`" in card.text


def test_every_metric_has_the_axes_and_none_of_them_goes_backwards(whole_run: RunFiles):
    load = [record for record in whole_run.records() if any(name.startswith("system/") for name in record)]
    assert f"system/{socket.gethostname()}/cpu_utilization_percentage" in load[0]
    others = [record for record in whole_run.records() if record not in load]
    for axis in ("step", "cumulative/tokens", "cumulative/flops"):
        values = [record[axis] for record in others]
        assert values == sorted(values)
        assert values[0] < values[-1]


def test_losses_fall_and_growing_keeps_what_was_learned(whole_run: RunFiles):
    numbers = whole_run.numbers()
    assert numbers["large", "train", 25, "train/loss"] < numbers["small", "train", 1, "train/loss"] - 0.3
    for stage, step in (("medium", 10), ("large", 20)):
        source, grown, random = (
            numbers[stage, "grow", step, f"grow/{name}_loss"] for name in ("source", "grown", "random")
        )
        assert grown < source + 0.1
        assert grown < random


@pytest.mark.parametrize("world_size", [1, 3])
def test_gpt2_losses_do_not_depend_on_the_number_of_ranks(site: Site, whole_run: RunFiles, world_size: int):
    """Three do not divide the batch of eight."""
    files = site.config(f"gpt2-{world_size}")
    assert run_warm(files, world_size) == (0, "")
    assert_equal_to_rounding(files, whole_run)


def test_llama_losses_do_not_depend_on_the_number_of_ranks(site: Site):
    alone, on_four = site.config("llama-1", "llama"), site.config("llama-4", "llama")
    assert run_warm(alone, 1) == (0, "")
    assert run_warm(on_four, 4) == (0, "")
    assert_equal_to_rounding(on_four, alone)


def test_a_finished_run_that_is_started_again_changes_nothing(whole_run: RunFiles):
    files = whole_run.copy("finished")
    assert run_warm(files, 2) == (0, "")
    assert files.numbers() == whole_run.numbers()
    assert_same_weights(files, whole_run)


# --- mistakes ---


def refused(files: RunFiles, capsys: pytest.CaptureFixture[str], *overrides: str, nproc: int = 2) -> str:
    """What the launcher says before it starts anything."""
    assert launch(["run", str(files.config), "--nproc", str(nproc), *overrides]) == 2
    captured = capsys.readouterr()
    assert captured.out == "", "nothing is started"
    assert captured.err.startswith("ligo-dist: ")
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("override", "nproc", "said"),
    [
        ("data.files=['nowhere/*.txt']", 2, "data.files: no file matches 'nowhere/*.txt'"),
        ("stages[0].size.hedas=3", 2, "stages[0].size.hedas: unknown key; did you mean 'heads'?"),
        ("stages[1].size.heads=7", 2, "stages[1].size.heads: 7 heads do not divide the width 40"),
        ("seed=3", 9, "stages[0].train.batch_size: 8 is less than one sample for each of 9 ranks"),
        ("run_dir={file}/run", 2, "run_dir: "),
        ("tokenizer.file={tokenizer}", 2, "tokenizer.vocab_size: 420"),
    ],
    ids=["no such file", "unknown key", "indivisible heads", "wrong world size", "unwritable", "vocabulary"],
)
def test_mistakes_that_are_seen_before_the_start(
    site: Site, whole_run: RunFiles, capsys: pytest.CaptureFixture[str], override: str, nproc: int, said: str
):
    from ligo_dist.corpus import train_tokenizer

    tokenizer = site.directory / "other.model"
    if not tokenizer.exists():
        documents = [path.read_bytes() for path in (site.directory / "texts").iterdir()]
        tokenizer.write_bytes(train_tokenizer(documents, 430, "bpe"))
    before = whole_run.contents()
    override = override.format(file=site.config("refused").config, tokenizer=tokenizer)
    assert said in refused(whole_run, capsys, override, nproc=nproc)
    assert whole_run.contents() == before


def test_no_such_configuration(site: Site, capsys: pytest.CaptureFixture[str]):
    assert "nowhere.yaml" in refused(RunFiles(site.directory / "nowhere.yaml", site.directory), capsys)


def test_an_empty_corpus(site: Site):
    (site.directory / "empty.txt").touch()
    code, said = run_warm(site.config("empty"), 1, f"data.files=['{site.directory / 'empty.txt'}']")
    assert code == 2
    assert said.startswith("ligo-dist: data.files: ")
    assert said.count("\n") == 1


def test_a_configuration_that_changed_on_resume(whole_run: RunFiles):
    before = whole_run.contents()
    code, said = run_warm(whole_run, 2, "stages[2].train.optimizer.weight_decay=0.2", "seed=4")
    assert code == 2
    assert "was made with another configuration:" in said
    assert "stages[2].train.optimizer.weight_decay" in said
    assert "seed" in said
    assert whole_run.contents() == before


def test_more_ranks_than_samples_are_refused_by_the_worker_too(site: Site):
    code, said = run_warm(site.config("idle"), 3, "stages[0].train.batch_size=2")
    assert code == 2
    assert "stages[0].train.batch_size: 2 is less than one sample for each of 3 ranks" in said


def diverge(world: World, config: str) -> tuple[int, str]:
    from ligo_dist import engine

    step = engine.Engine.train_step

    def broken(self: engine.Engine, *arguments: object) -> engine.StepResult:
        result = step(self, *arguments)  # type: ignore[arg-type]
        broken.count += 1  # type: ignore[attr-defined]
        return engine.StepResult(float("nan"), 1.0) if broken.count == 4 else result  # type: ignore[attr-defined]

    broken.count = 0  # type: ignore[attr-defined]
    engine.Engine.train_step = broken  # type: ignore[method-assign,assignment]
    try:
        return worker_main(world, [config])
    finally:
        engine.Engine.train_step = step  # type: ignore[method-assign]


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_way_back(site: Site):
    files = site.config("diverged")
    (code, said), (other_code, _) = run_ranks(diverge, 2, str(files.config))
    assert (code, other_code) == (CANNOT_GO_ON, CANNOT_GO_ON)
    last = files.run_dir / "checkpoints" / "step-00000002-0-train"
    assert said == (
        "ligo-dist: stage small, train step 4 (global step 4): loss is nan;"
        f" the last good checkpoint is {last}\n"
    )
    assert files.statuses() == ["FAILED", "FAILED"]


# --- the launcher, for real ---


def test_the_launcher_runs_it_tracks_it_and_keeps_a_second_run_out(site: Site, whole_run: RunFiles):
    from mlflow.tracking import MlflowClient

    files = site.config("launched")
    uri = f"sqlite:///{site.directory / 'launched.db'}"
    arguments = ["tracking.mlflow=true", f"tracking.uri={uri}"]
    command = launcher("run", str(files.config), *arguments, "--nproc", "2")
    log = Path(f"{files.config}.log")
    with log.open("w") as output:
        first = subprocess.Popen(
            command, env=environment(), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 240
        while not read_records(files.run_dir / "metrics.jsonl"):
            assert first.poll() is None and time.monotonic() < deadline, log.read_text()  # noqa: PT018
            time.sleep(0.02)
        assert run_warm(files, 1) == (
            2,
            f"ligo-dist: run_dir: another run is using {files.run_dir}; wait for it, or choose another directory\n",
        )
        assert first.wait(240) == 0, log.read_text()
    finally:
        first.terminate()
        first.wait()
    assert files.numbers() == whole_run.numbers()
    assert_same_weights(files, whole_run)
    assert has_finished(files)
    assert log.read_text().startswith("ligo-dist: 2 ranks on this machine; ")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("ligo_dist")
    assert experiment is not None
    tracked = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(tracked) == {"launched", "small", "medium", "large"}
    assert all(run.info.status == "FINISHED" for run in tracked.values())
    history = client.get_metric_history(tracked["large"].info.run_id, "train/loss")
    assert len(history) == 5
    assert os.path.exists(tracked["large"].data.tags["export.path"])
