"""Blocks compiled by torch, one by one, under ZeRO-3."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from deepspeed.utils import set_z3_leaf_module
from torch import nn


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Have each block compiled when it is first called; equal ones share what is compiled.

    ZeRO-3 gathers all weights of a block before it and drops them after it: its hooks around each module inside would
    break the graph at every one of them. Called once per model, before its engine is built.
    """
    torch._dynamo.reset()  # what was compiled for the stage before counts against the limit of versions
    for block in blocks:
        set_z3_leaf_module(block, True)
        # Micro-batches are of one shape each in training and in evaluation.
        block.forward = torch.compile(block.forward, dynamic=False)
