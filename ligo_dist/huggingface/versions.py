"""What differs between the versions of `transformers` that can be installed: what only the newer ones do right is done
here, so that all of them give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import guard_torch_init_functions

from ligo_dist.engine import written_by_first_rank


def initialize_partitioned(model: PreTrainedModel) -> None:
    """The library's initialisation of a model whose parameters are partitions, by the first rank. Collective.

    A module is whole while it is initialised, and so are its direct children, whose weights some modules draw anew
    (GPT-2's attention). `initialize_weights_zero3` of the library leaves those as they were before version 5.23.
    """
    with torch.no_grad(), guard_torch_init_functions():
        _initialize(model, model._initialize_weights, model.is_remote_code())


def _initialize(module: nn.Module, initialize: Callable[..., Any], is_remote_code: bool) -> None:
    children = list(module.children())
    for child in children:
        own = child._initialize_weights if isinstance(child, PreTrainedModel) else initialize
        _initialize(child, own, is_remote_code)
    modules = [module, *(child for child in children if not isinstance(child, PreTrainedModel))]
    parameters = [parameter for one in modules for parameter in one.parameters(recurse=False)]
    with written_by_first_rank(parameters) as writes:
        if writes or not parameters:
            initialize(module, is_remote_code)
