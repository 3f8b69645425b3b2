"""A whole run on a GPU, where there is one: the same numbers as on processors, within what the arithmetic allows."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest
import torch

from runs import ROOT, RunFiles, Site, environment, has_finished, launcher

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("gpu"))


def run_on(site: Site, name: str, accelerator: str, *overrides: str) -> RunFiles:
    files = site.config(name)
    environ = {**environment(), "DS_ACCELERATOR": accelerator}
    command = launcher("run", str(files.config), "--nproc", "1", *overrides)
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert has_finished(files)
    return files


@pytest.fixture(scope="module")
def on_processors(site: Site) -> RunFiles:
    return run_on(site, "processors", "cpu")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("bf16", 5e-2)])
def test_losses_on_a_gpu_are_those_on_processors(
    site: Site, on_processors: RunFiles, precision: str, tolerance: float
):
    files = run_on(site, f"gpu-{precision}", "cuda", f"precision={precision}")
    assert files.numbers("loss") == pytest.approx(on_processors.numbers("loss"), abs=tolerance)


def test_the_optimizer_may_lie_in_the_processors_memory(site: Site, on_processors: RunFiles):
    offload = "deepspeed={zero_optimization: {offload_optimizer: {device: cpu}}}"
    files = run_on(site, "offloaded", "cuda", offload)
    losses = files.numbers("loss")
    assert losses == pytest.approx(on_processors.numbers("loss"), abs=1e-2)
    assert Path(files.run_dir / "export" / "large" / "model.safetensors").exists()


@pytest.mark.parametrize("keys", ["{}", "{zero_optimization: {offload_optimizer: {device: cpu}}}"])
def test_muon_takes_the_same_steps(site: Site, keys: str):
    own = ("precision=fp32", "defaults.train.optimizer.kind=muon", f"deepspeed={keys}")
    name = "muon-offloaded" if "offload" in keys else "muon"
    losses = [run_on(site, f"{name}-{on}", on, *own).numbers("loss") for on in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-2)


def test_blocks_may_be_compiled(site: Site, on_processors: RunFiles):
    losses = run_on(site, "compiled", "cuda", "precision=fp32", "compile=true").numbers("loss")
    assert losses == pytest.approx(on_processors.numbers("loss"), abs=1e-2)


def test_a_trace_shows_the_gpus_kernels(site: Site):
    files = run_on(site, "profiled", "cuda", "profile={steps: 1, start_step: 1}")
    (trace, *_) = (files.run_dir / "profile").glob("*/train-rank-0.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)
