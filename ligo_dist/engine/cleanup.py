"""What DeepSpeed keeps longer than it should: whole engines, and the order of forward passes that train nothing."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from deepspeed.accelerator import get_accelerator
from torch import nn


def forget_engine(root: nn.Module) -> None:
    """Drop the two process-wide references by which DeepSpeed keeps a destroyed engine alive (DeepSpeed #7204)."""
    try:
        from deepspeed.runtime.zero import parameter_offload

        stack = parameter_offload.FWD_MODULE_STACK
        stack[:] = [module for module in stack if module is not root]
        _clear_releases()
    except (ImportError, AttributeError, KeyError) as error:
        warnings.warn(f"this DeepSpeed may keep a finished stage's memory: {error!r}", stacklevel=2)


def forget_forward_passes(optimizer: Any) -> None:
    """Have DeepSpeed learn the order of the modules anew. Evaluations before the first step have taught it one that
    ends with the forward pass, and which weights to drop after each module: it would do so for ever, and gather all
    weights a second time for each backward pass."""
    try:
        coordinator = optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()
        _clear_releases()
    except (ImportError, AttributeError, KeyError) as error:
        warnings.warn(f"this DeepSpeed may gather weights more often than it must: {error!r}", stacklevel=2)


def _clear_releases() -> None:
    """Clear the cache of what DeepSpeed drops after each module, which outlives the order it was worked out from."""
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    method = vars(PartitionedParameterCoordinator)["_PartitionedParameterCoordinator__params_to_release"]
    cached: list[Callable[[], None]] = [
        cell.cell_contents.cache_clear
        for cell in method.__closure__ or ()
        if hasattr(cell.cell_contents, "cache_clear")
    ]
    for clear in cached:
        clear()


def return_freed_memory() -> None:
    """Give what was freed back to the device, or to the system where there is none."""
    get_accelerator().empty_cache()
    if get_accelerator().device_name() == "cpu":
        with suppress(AttributeError, OSError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)
