"""The sizes by which ZeRO-3 gathers and reduces: what the engine sets, and what a plan reckons with. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Zero3:
    """Keys of DeepSpeed's `zero_optimization`, in elements: the project's own values, and DeepSpeed's for the rest.

    Attributes:
        reduce_bucket: gradients that are reduced together; a real buffer.
        prefetch_bucket: weights that are gathered ahead of their use.
        persistence_threshold: weights of so many elements or fewer stay whole between steps.
        reuse_distance: a weight stays whole between two uses with fewer elements than these in between.
        sub_group: elements of a partition that the optimizer updates at a time.
        offloads: something lies in the processors' memory.
    """

    reduce_bucket: int = 5_000_000
    prefetch_bucket: int = 5_000_000
    persistence_threshold: int = 10_000
    reuse_distance: int = 1_000_000_000
    sub_group: int = 1_000_000_000
    offloads: bool = False

    @classmethod
    def from_keys(cls, deepspeed: Mapping[str, Any]) -> Zero3:
        """What a configuration's `deepspeed` section comes to."""
        keys: Mapping[str, Any] = deepspeed.get("zero_optimization") or {}
        given = {name: int(keys[key]) for key, name in _KEYS.items() if _is_number(keys.get(key))}
        return cls(**given, offloads=any(_is_used(keys.get(f"offload_{what}")) for what in _OFFLOADED))


_OFFLOADED = ("param", "optimizer")
_KEYS = {
    "reduce_bucket_size": "reduce_bucket",
    "stage3_prefetch_bucket_size": "prefetch_bucket",
    "stage3_param_persistence_threshold": "persistence_threshold",
    "stage3_max_reuse_distance": "reuse_distance",
    "sub_group_size": "sub_group",
}


def _is_number(value: Any) -> bool:
    """What is none DeepSpeed refuses, in the ranks; the preflight reckons before that."""
    try:
        int(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_used(section: Any) -> bool:
    return isinstance(section, Mapping) and section.get("device", "none") != "none"
