"""Blocks of a model under ZeRO-3: gathered as a whole, and compiled by torch if so wished."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from deepspeed.utils import set_z3_leaf_module
from torch import nn


def gather_whole(blocks: Iterable[nn.Module], *, compiled: bool = False) -> None:
    """Have ZeRO-3 gather all weights of a block at once before it and drop them after it, in the place of hooks around
    each module inside. Called once per model, before its engine is built.

    Args:
        blocks: the model's.
        compiled: whether each is also compiled when it is first called; equal ones share what is compiled.
    """
    if compiled:
        torch._dynamo.reset()  # what was compiled for the stage before counts against the limit of versions
    for block in blocks:
        set_z3_leaf_module(block, True)
        if compiled:
            # Micro-batches are of one shape each in training and in evaluation.
            block.forward = torch.compile(block.forward, dynamic=False)
