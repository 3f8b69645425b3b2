"""A run's model in MLflow's registry: an ordinary directory of a model, one version for each run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from ligo_dist.tracking import MlflowStore, Refused, Tracker, main

if TYPE_CHECKING:
    from tests.tracking.conftest import Desk


@pytest.fixture
def model(desk: Desk) -> str:
    """A name of its own: all tests share one store."""
    return f"model of {desk.experiment}"


def train(tracker: Tracker, desk: Desk, model: str, seed: int = 0) -> Path:
    """A run of one stage, but for its end, whose model is registered; returns the model's directory."""
    directory = desk.run_dir / "export" / "large"
    torch.manual_seed(seed)
    sizes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 8, "vocab_size": 11}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).save_pretrained(directory)
    tracker.start_run("journey", {}, {})
    tracker.start_stage("large", {})
    tracker.register_model(model, directory)
    tracker.end_stage()
    return directory


def versions(desk: Desk, model: str) -> list[tuple[int, str]]:
    """Number and run of each version."""
    found = desk.client.search_model_versions(f"name = '{model}'")
    return sorted((int(version.version), version.run_id) for version in found)


def logits(directory: str | Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(directory)(torch.arange(8)[None]).logits


def test_what_is_registered_is_the_model(desk: Desk, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = desk.tracker()
    directory = train(tracker, desk, model)
    tracker.close()
    assert versions(desk, model) == [(1, desk.runs()["large"].info.run_id)]
    assert desk.warnings == [f"MLflow: {directory} is version 1 of the registered model {model}"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", desk.uri)
    there = mlflow.artifacts.download_artifacts(f"models:/{model}/1")
    assert there != str(directory)
    assert torch.equal(logits(there), logits(directory))


def test_a_run_is_registered_once_and_another_one_as_the_next_version(
    desk: Desk, model: str, tmp_path: Path
) -> None:
    other = type(desk)(tmp_path / "other", desk.uri)
    for some, resume_step in ((desk, None), (desk, 0), (other, None)):
        tracker = some.tracker(resume_step)
        train(tracker, some, model)
        tracker.close()
    (_, first), (number, second) = versions(desk, model)
    assert (number, first != second) == (2, True)
    assert main([str(desk.run_dir)]) == main([str(other.run_dir)]) == 0
    assert len(versions(desk, model)) == 2


def test_a_registry_that_refuses_is_told_and_costs_nothing_else(
    desk: Desk, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise Refused("it has no model registry")

    monkeypatch.setattr(MlflowStore, "register", refuse)
    tracker = desk.tracker()
    train(tracker, desk, model)
    tracker.close()
    said = f"model {model} was not registered: it has no model registry"
    assert desk.warnings == [
        f"MLflow: {said}; going on without it",
        f"MLflow: not everything of this run was recorded; `ligo-dist sync {desk.run_dir}` delivers the rest",
    ]
    assert {run.info.status for run in desk.runs().values()} == {"FINISHED"}
    assert main([str(desk.run_dir)]) == 1
    assert f"\n    {said}\n" in capsys.readouterr().out


def test_a_model_that_no_store_knows_is_delivered(
    desk: Desk, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = desk.tracker(mlflow=False)
    directory = train(tracker, desk, model)
    tracker.close()
    directory.rename(directory.with_name("away"))
    assert main([str(desk.run_dir), "--uri", desk.uri]) == 1
    assert f"artifact export was not stored: there is no {directory}" in capsys.readouterr().out
    assert versions(desk, model) == []

    directory.with_name("away").rename(directory)
    assert main([str(desk.run_dir), "--uri", desk.uri]) == 0
    assert f"export/model.safetensors, version 1 of the registered model {model}\n" in capsys.readouterr().out
    assert versions(desk, model) == [(1, desk.runs()["large"].info.run_id)]
    assert main([str(desk.run_dir), "--uri", desk.uri]) == 0
    assert capsys.readouterr().out.endswith("nothing was missing\n")
