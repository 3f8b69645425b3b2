"""The plan of a dry run: what the worker itself will count, and what it says of the function."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from launcher.dry_run import print_plan
from launcher.plan import plan_stages
from launcher.preflight import check_before_start, vocabulary_size
from ligo_dist import costs
from ligo_dist.architectures import get_architecture
from ligo_dist.config import Config, config_from
from ligo_dist.config.overrides import apply_overrides
from ligo_dist.config.shapes import tokens_per_sample
from ligo_dist.config.yaml_text import parse_yaml
from ligo_dist.errors import ConfigError
from ligo_dist.stages import build_stages

_CONFIG = """
run_dir: runs/test
model: {family: gpt2, max_positions: 64}
stages:
  - name: small
    size: {layers: 2, width: 32, heads: 4}
    train: {steps: 10, batch_size: 8, micro_batch_size: 2}
  - name: large
    size: {layers: 3, width: 48, heads: 6}
    grow: {learn: {steps: 5}}
    train: {steps: 10, batch_size: 8, micro_batch_size: 2, activation_checkpointing: true}
data: {sequence_length: 64}
tokenizer: {vocab_size: 512}
tracking: {mlflow: false}
"""
_IMAGES = (
    "model={family: deit, patch_size: 4}",
    "data={source: digits, image_size: 8, labels: 10}",
    "tokenizer={}",
)
_MASKED = ("model.family=bert",)


def config(*overrides: str) -> Config:
    raw = parse_yaml(_CONFIG)
    assert apply_overrides(raw, overrides) == []
    return config_from(raw)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        _IMAGES,
        (*_MASKED, "stages[1].grow={method: lossless, optimizer_state: grown}", "stages[1].size.width=64",
         "stages[1].size.heads=8"),
        ("stages[1].grow={method: bert2bert-aki, learn: {steps: 3}}",),
        ("stages[1].grow={method: progressive, optimizer_state: asymmetric}", "stages[0].size.layers=0"),
        ("stages[1].grow={learn: {steps: 4, sweep: {learning_rates: [1e-3, 1e-2, 1e-1], steps: 7}}}",),
        ("stages[1].grow={learn: {steps: 0, sweep: {learning_rates: [1e-3, 1e-2], steps: 7}}}",),
        ("stages[1].grow={method: scratch}",),
        ("stages[0].train.steps=0",),
    ],
)  # fmt: skip
@pytest.mark.parametrize("world_size", [1, 2])
def test_the_plan_is_what_the_worker_counts(overrides, world_size):
    asked = config(*overrides)
    architecture = get_architecture(asked.model.family)
    pieces = vocabulary_size(asked)
    stages = build_stages(asked, pieces)
    tokens = tokens_per_sample(architecture, stages[0].shape, asked.data.sequence_length)
    plans = plan_stages(asked, pieces, world_size)
    assert sum(plan.total.flops for plan in plans) == costs.schedule(architecture, stages, tokens, world_size)


def shown(*overrides: str) -> str:
    asked, text = config(*overrides), io.StringIO()
    print_plan(plan_stages(asked, vocabulary_size(asked), 1), text)
    return text.getvalue()


def test_a_dry_run_says_whether_growing_keeps_the_function():
    lossless = shown("stages[1].grow={method: lossless, learn: {steps: 0}}")
    assert "large: starts as the function of small, which the run verifies right after growing" in lossless
    noisy = shown("stages[1].grow={method: lossless, noise: 0.01}")
    assert "large: does not start as the function of small: noise of 0.01 is added to the new units" in noisy
    replaced = shown("stages[1].grow={method: lossless, depth: stack}")
    assert "lossless + stack" in replaced
    assert "large: does not start as the function of small: depth 'stack' adds layers" in replaced
    assert "large: does not start as the function of small: 'scratch' starts anew" in shown(
        "stages[1].grow={method: scratch}"
    )


def refused(directory: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_before_start(config(f"run_dir={directory}/run", *overrides), 1, 0, "my.yaml")
    return [str(fault) for fault in caught.value.faults]


def test_a_tokenizer_that_is_larger_than_the_embedding(tmp_path):
    assert refused(tmp_path, "model.vocab_size=500") == [
        "model.vocab_size: 500 is less than the 512 pieces of the tokenizer; at least 512 would be right"
    ]


def test_a_hugging_face_tokenizer_that_cannot_be_used(tmp_path):
    (said,) = refused(tmp_path, f"tokenizer={{huggingface: {tmp_path}}}")
    assert said.startswith(f"tokenizer.huggingface: '{tmp_path}' has no tokenizer.json")
    (tmp_path / "file").write_text("x")
    (said,) = refused(tmp_path, f"tokenizer={{huggingface: {tmp_path}/file}}")
    assert said == f"tokenizer.huggingface: '{tmp_path}/file' is a file, not a Hugging Face directory"


def test_a_source_without_weights(tmp_path):
    sizes = ("model.vocab_size=512", f"stages[0].from={tmp_path}")
    (said,) = refused(tmp_path, *sizes)
    assert said.startswith(
        f"stages[0].from: {tmp_path}: no weights; there should be one of model.safetensors, "
    )
