"""A configuration whose last stage grows, as a file in an empty working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFIG = """
run_dir: runs/set
seed: 7
model: {family: gpt2, max_positions: 64}
defaults: {train: {steps: 10, batch_size: 8, micro_batch_size: 4}}
stages:
  - name: small
    size: {layers: 2, width: 32, heads: 4}
  - name: large
    size: {layers: 3, width: 48, heads: 6}
    grow: {method: lossless, noise: 0.25, learn: {steps: 5, batch_size: 6, schedule: {warmup_steps: 2}}}
data: {source: stdlib, sequence_length: 64}
tokenizer: {vocab_size: 512}
compare: {methods: [scratch, stack, ligo], seeds: [0, 4]}
"""


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "set.yaml").write_text(CONFIG)
    return Path("set.yaml")
