"""A small configuration that is right, to be made wrong in one place at a time."""

from __future__ import annotations

from typing import Any

import pytest

from ligo_dist.config import Config, apply_overrides, config_from, parse_yaml
from ligo_dist.runtime.errors import ConfigError, Fault

_RIGHT = """
run_dir: runs/test
model: {family: gpt2, max_positions: 64}
stages:
  - name: small
    size: {layers: 2, width: 32, heads: 4}
    train: {steps: 10, batch_size: 8, micro_batch_size: 4}
  - name: large
    size: {layers: 3, width: 48, heads: 6}
    grow: {method: ligo, learn: {steps: 5}}
    train: {steps: 10, batch_size: 8, micro_batch_size: 4}
data: {source: stdlib, sequence_length: 64}
tokenizer: {vocab_size: 512}
"""


def raw_example(*overrides: str) -> dict[str, Any]:
    raw = parse_yaml(_RIGHT)
    assert apply_overrides(raw, overrides) == []
    return raw


def example(*overrides: str) -> Config:
    return config_from(raw_example(*overrides))


def with_one_stage(model: dict[str, Any], data: dict[str, Any], **sections: Any) -> Config:
    """A configuration for its data alone: a stage of the smallest model, hardly trained."""
    stage = {
        "name": "small",
        "size": {"layers": 1, "width": 16, "heads": 2},
        "train": {"steps": 1, "batch_size": 1, "micro_batch_size": 1},
    }
    return config_from(
        {"run_dir": "runs/x", "seed": 5, "model": model, "stages": [stage], "data": data, **sections}
    )


def faults_of(*overrides: str) -> list[Fault]:
    """What is wrong with the example, once it is changed."""
    with pytest.raises(ConfigError) as caught:
        example(*overrides)
    return caught.value.faults


def assert_told(faults: list[Fault], path: str, words: str) -> None:
    """One fault, at a path; of its message the words that say what is wrong, or what would be right."""
    assert [fault.path for fault in faults] == [path]
    assert words in faults[0].message
