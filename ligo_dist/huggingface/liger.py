"""Liger's kernels (github.com/linkedin/Liger-Kernel) in the place of what a model of the library computes itself."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from importlib.util import find_spec

import transformers
from transformers import PreTrainedModel

from ligo_dist.architectures import Architecture
from ligo_dist.engine import get_accelerator_name
from ligo_dist.runtime.errors import Fault

FUSED_HEAD = "fused_linear_cross_entropy"
_ALL = (FUSED_HEAD, "cross_entropy", "rms_norm", "swiglu", "rope")
"""What Liger turns on unless told not to."""


def liger_faults(architecture: Architecture, kernels: Sequence[str]) -> list[Fault]:
    """Why this machine cannot train models of a family with these kernels.

    Args:
        architecture: the family.
        kernels: keys of the section `liger` that are on; none: there is nothing to check.
    """
    if not kernels:
        return []
    if get_accelerator_name() == "cpu":
        return [Fault(f"liger.{kernels[0]}", "Liger's kernels run on GPUs alone; false would be right here")]
    if find_spec("liger_kernel") is None:
        wrong = "the package liger-kernel is not installed; pip install 'ligo_dist[liger]' installs it"
        return [Fault(f"liger.{kernels[0]}", wrong)]
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as known

    family = getattr(transformers, architecture.config_class).model_type
    if family not in known:
        return [Fault(f"liger.{kernels[0]}", f"liger-kernel has nothing for {family}; false would be right")]
    taken = inspect.signature(known[family]).parameters
    lacking = [name for name in kernels if name not in taken]
    there = [name for name in _ALL if name in taken]
    return [Fault(f"liger.{name}", f"liger-kernel has {', '.join(there)} for {family}") for name in lacking]


def apply_liger(model: PreTrainedModel, kernels: Collection[str]) -> None:
    """Let a model compute with these kernels. The rotary positions are those of its whole family, in this process, from
    then on.

    The fused loss takes the head's weight and never calls the head. ZeRO-3, which gathers a module's weights when it is
    called, gathers this one when it is asked for."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model, **{name: name in kernels for name in _ALL})
