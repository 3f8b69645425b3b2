"""A small schedule to plan, changed in one place at a time."""

from __future__ import annotations

from ligo_dist.config import Config, apply_overrides, config_from, parse_yaml
from ligo_dist.planning import Forecast, PhaseEstimate, estimate_phases, get_gpu
from ligo_dist.schedule import Plan

_SCHEDULE = """
run_dir: runs/test
precision: fp32
model: {family: gpt2, max_positions: 64, vocab_size: 512}
stages:
  - name: small
    size: {layers: 2, width: 32, heads: 4}
    train: {steps: 10, batch_size: 8, micro_batch_size: 2}
  - name: large
    size: {layers: 3, width: 48, heads: 6}
    grow: {method: ligo, learn: {steps: 5}}
    train: {steps: 10, batch_size: 8, micro_batch_size: 2}
data: {source: stdlib, sequence_length: 64}
tokenizer: {vocab_size: 512}
"""


def schedule(*overrides: str) -> Config:
    raw = parse_yaml(_SCHEDULE)
    assert apply_overrides(raw, overrides) == []
    return config_from(raw)


def estimates(*overrides: str, ranks: int = 1) -> list[PhaseEstimate]:
    return estimate_phases(Plan.of(schedule(*overrides), 512, ranks))


def forecast(*overrides: str, ranks: int = 1, gpu: str = "1e12,1,10") -> Forecast:
    return Forecast(Plan.of(schedule(*overrides), 512, ranks), get_gpu(gpu), hfu=0.5)
