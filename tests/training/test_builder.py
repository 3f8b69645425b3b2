"""What of a configuration reaches an engine."""

from __future__ import annotations

import pytest

from ligo_dist.config import config_from, parse_yaml
from ligo_dist.engine import World
from ligo_dist.schedule import Plan
from ligo_dist.training import Builder
from ranks import run_ranks

CONFIG = """
run_dir: runs/test
precision: fp32
model: {family: gpt2, max_positions: 16, vocab_size: 300}
stages:
  - name: small
    size: {layers: 2, width: 8, heads: 2}
    train: {steps: 1, batch_size: 1, micro_batch_size: 1}
data: {source: stdlib, sequence_length: 16}
tokenizer: {vocab_size: 300}
"""


def compiled_blocks(world: World, compiles: bool) -> list[bool]:
    """Of each block, whether it has a forward pass of its own: that which torch compiles when it is called."""
    plan = Plan.of(config_from({**parse_yaml(CONFIG), "compile": compiles}), 300, world.size)
    engine = Builder(plan, world).model_engine(plan.stages[0])
    found = ["forward" in vars(block) for block in engine.module.get_submodule("transformer.h").children()]
    engine.release()
    return found


@pytest.mark.parametrize("compiles", [False, True])
def test_blocks_are_compiled_where_it_is_asked_for(compiles: bool):
    assert run_ranks(compiled_blocks, 1, compiles) == [[compiles] * 2]
