"""The part of `liger_kernel.transformers` that is used here."""

from __future__ import annotations

from liger_kernel.transformers.monkey_patch import (
    _apply_liger_kernel_to_instance as _apply_liger_kernel_to_instance,
)
