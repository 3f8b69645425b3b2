"""An MLflow server that goes away, for a while or for good, costs a run neither time nor anything of its record; and
no password or token gets into anything that is written."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import torch
from mlflow.tracking import MlflowClient
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from ligo_dist.tracking import build_tracker
from runs import ROOT, RunFiles, Site, environment, launcher, started_by_hand
from servers import MlflowServer, stored_points, stored_runs

pytestmark = pytest.mark.slow

SECRETS = {
    "HF_TOKEN": "hf_planted0000",
    "MLFLOW_TRACKING_PASSWORD": "planted-password",
    "SITE_SECRET_ACCESS_KEY": "planted-access-key",
}
IN_THE_ADDRESS = "planted-in-the-uri"
STAGES = ("small", "large")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server") / "mlflow")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets in the environment of the run and of what is started after it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def tracked(files: RunFiles, port: int) -> RunFiles:
    """The run, tracked in a server whose address holds a password, in an experiment of its own; its model is to be
    registered under the run's name."""
    uri, name = f"http://ada:{IN_THE_ADDRESS}@127.0.0.1:{port}", files.run_dir.name
    section = f"{{uri: '{uri}', experiment: {name}, register_model: {name}, "
    files.config.write_text(files.config.read_text().replace("{mlflow: false, ", section))
    return files


def wait_for(moment: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 180
    while not moment():
        assert time.monotonic() < deadline, f"{what}: the moment never came"
        time.sleep(0.1)


def sync(files: RunFiles, *arguments: str) -> str:
    command = launcher("sync", str(files.run_dir), *arguments)
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def recorded_points(files: RunFiles, stage: str | None) -> Counter[tuple[str, int]]:
    """How many points a run's metrics file has, by metric and step; of one stage, or of all."""
    return Counter(
        (name, record["step"])
        for record in files.records()
        if stage in (None, record["stage"])
        for name in set(record) - {"time", "stage", "phase", "step"}
    )


def assert_all_is_there(files: RunFiles, uri: str) -> None:
    """Every point of the run, its parameters, its tags, its artifact, its registered model and how it ended."""
    name = files.run_dir.name
    runs = stored_runs(uri, name)
    assert set(runs) == {name, *STAGES}
    for run, stage in ((name, None), *((stage, stage) for stage in STAGES)):
        assert stored_points(uri, runs[run]) == recorded_points(files, stage)
        assert runs[run].info.status == "FINISHED"
    assert runs[name].data.params["seed"] == "3"
    assert runs[name].data.params["tracking.uri"].startswith("http://***@127.0.0.1:")
    assert "export.path" in runs["large"].data.tags
    assert runs["large"].data.params["grow.optimizer_state"] == "grown"
    assert Path(runs[name].data.tags["checkpoints.path"]).is_dir()
    (version,) = MlflowClient(uri).search_model_versions(f"name = '{name}'")
    assert version.run_id == runs["large"].info.run_id
    assert_same_logits(downloaded_model(uri, f"models:/{name}/1"), files.run_dir / "export" / "large")


def downloaded_model(uri: str, model: str) -> Path:
    """The directory of a registered model, as its users get it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        return Path(mlflow.artifacts.download_artifacts(model))


def assert_same_logits(*directories: Path) -> None:
    models = [AutoModelForCausalLM.from_pretrained(directory) for directory in directories]
    first, second = (model(torch.arange(32)[None]).logits for model in models)
    assert torch.equal(first, second)


def assert_no_secret(directory: Path) -> None:
    """Not in any file: logs, checkpoints, exports, the database, the artifacts."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for secret in (*SECRETS.values(), IN_THE_ADDRESS):
            assert secret.encode() not in content, path


def test_a_server_that_comes_back_misses_nothing(server: MlflowServer, tmp_path: Path):
    section = SimpleNamespace(mlflow=True, uri=server.uri, experiment="back", run_name=None)
    config: Any = SimpleNamespace(tracking=section)
    said: list[str] = []
    files = RunFiles(tmp_path / "config.yaml", tmp_path / "run")
    tracker = build_tracker(config, files.run_dir, 0, None, said.append)
    tracker.start_run("back", {"seed": 0}, {"host": "a"})
    tracker.start_stage("small", {})
    for step in range(1, 50):
        tracker.log({"train/loss": 1 / step, "train/gradient_norm": float("inf")}, step)
    wait_for(
        lambda: "small" in (runs := stored_runs(server.uri, "back")) and runs["small"].data.metrics,
        "delivery",
    )
    server.kill()
    for step in range(50, 100):
        tracker.log({"train/loss": 1 / step}, step)
    tracker.artifact("while it was away", "note.txt")
    wait_for(lambda: said, "outage")
    tracker.end_stage()
    tracker.start_stage("large", {"width": 8})
    tracker.log({"train/loss": 0.0}, 100)
    sizes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 32, "vocab_size": 40}
    exported = files.run_dir / "export" / "large"
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).save_pretrained(exported)
    tracker.register_model("back", exported)
    server.start()
    tracker.log({"train/loss": 0.0, "bad": float("nan")}, 101)
    tracker.close()

    runs = stored_runs(server.uri, "back")
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ("back", "small", "large"), "FINISHED"
    )
    for run, stage in (("back", None), ("small", "small"), ("large", "large")):
        assert stored_points(server.uri, runs[run]) == recorded_points(files, stage)
    assert runs["large"].data.params == {"width": "8"}
    assert [path.read_text() for path in server.directory.rglob("note.txt")] == ["while it was away"]
    assert_same_logits(downloaded_model(server.uri, "models:/back/1"), exported)
    outage, registered, back = said
    assert "; going on and trying again now and then" in outage  # refused, or reset: as the kill met it
    assert back == "MLflow: answers again"
    assert registered == f"MLflow: {exported} is version 1 of the registered model back"
    assert sync(files).endswith("nothing was missing\n")


def test_a_server_that_is_killed_for_good_costs_a_run_nothing(
    site: Site, server: MlflowServer, planted: None
):
    files = tracked(site.config("killed-server", "two stages"), server.port)
    with started_by_hand(files, 1) as (process,):
        wait_for(lambda: "small" in stored_runs(server.uri, "killed-server"), "a stage in the store")
        assert process.poll() is None, "the run was over before the server was killed"
        server.kill()
        assert process.wait(300) == 0
    log = (files.run_dir / "run.log").read_text().splitlines()
    remedy = f"`ligo-dist sync {files.run_dir}` delivers the rest"
    outage, end = (line for line in log if "MLflow: " in line)
    assert "trying again now and then" in outage
    assert outage.endswith(remedy)
    assert end.endswith(f"not everything of this run was recorded; {remedy}")

    server.start()
    before = stored_points(server.uri, stored_runs(server.uri, "killed-server")["killed-server"])
    said = sync(files)
    total = recorded_points(files, None).total()
    assert (
        f"killed-server: {before.total()} points were there, {total - before.total()} sent, {total} in all"
        in said
    )
    assert_all_is_there(files, server.uri)
    assert sync(files).endswith("nothing was missing\n")
    assert_all_is_there(files, server.uri)
    assert_no_secret(files.run_dir)
    assert_no_secret(server.directory)
    for secret in (*SECRETS.values(), IN_THE_ADDRESS):
        assert secret not in files.config.with_suffix(".out").read_text() + said
