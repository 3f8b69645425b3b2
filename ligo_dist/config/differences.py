"""What changed between two resolved configurations."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from ligo_dist.config.schema import Config

_OF_A_PHASE = ("micro_batch_size", "activation_checkpointing")

MAY_CHANGE: dict[str, tuple[str, ...]] = {
    "": ("run_dir", "tracking", "checkpoints", "distributed", "profile", "compile", "liger"),
    "model": ("attention",),
    "data": ("workers", "cache_dir"),
    "evaluation": ("every_steps", "micro_batch_size", "compare_random", "harness"),
    "stages[]": ("nodes",),
    "stages[].train": _OF_A_PHASE,
    "stages[].grow.learn": _OF_A_PHASE,
    "deepspeed": (
        "aio", "comms_logger", "disable_python_gc", "dump_state", "flops_profiler", "log_level", "memory_breakdown",
        "steps_per_print", "timers", "wall_clock_breakdown",
    ),
    "deepspeed.zero_optimization": (
        "offload_optimizer", "offload_param", "overlap_comm", "contiguous_gradients", "sub_group_size",
        "reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size",
        "stage3_param_persistence_threshold", "stage3_model_persistence_threshold", "stage3_max_live_parameters",
        "stage3_max_reuse_distance", "stage3_module_granularity_threshold", "stage3_use_all_reduce_for_fetch_params",
        "stage3_allgather_sequential", "zero_hpz_partition_size", "memory_efficient_linear", "log_trace_cache_warnings",
    ),
}  # fmt: skip
"""What may change when a run goes on, by section: it changes no number of the run, or the rounding alone. All else is
refused."""

_OF_THE_CORPUS = (
    "source", "files", "name", "subset", "split", "document", "include_tests", "text_column", "token_column",
    "image_column", "label_column", "streaming", "broken_lines", "max_documents", "validation_fraction",
)  # fmt: skip
_STANDS_FOR = {
    "corpus_fingerprint": (
        *(f"data.{place}{key}" for place in ("", "mixture.*.") for key in _OF_THE_CORPUS),
        "tokenizer",
    ),
    "source_fingerprint": ("stages.0.from",),
}
"""Keys of what a run was made with, each with those that say where that lies or how it was made: of no account where
the result is the same."""


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What keeps a run that was made with one recorded configuration from going on with another, a line each."""
    old, new = completed(old), completed(new)
    same = (key for key in _STANDS_FOR if old.get(key) is not None and old.get(key) == new.get(key))
    of_no_account = [path for key in same for path in _STANDS_FOR[key]]
    if "auto" in (old.get("precision"), new.get("precision")):  # whatever it is, it stays
        of_no_account.append("precision")
    return difference(comparable(old, of_no_account), comparable(new, of_no_account))


def what_may_change() -> str:
    """The list, for a message."""
    sections = [(f"{section}." if section else "", keys) for section, keys in MAY_CHANGE.items()]
    return ", ".join(
        f"{section}{{{', '.join(keys)}}}"
        if section and len(keys) > 1
        else ", ".join(section + key for key in keys)
        for section, keys in sections
    )


def completed(recorded: dict[str, Any]) -> dict[str, Any]:
    """A recorded configuration with the keys that the version which made it did not have, at their defaults; as it is
    where this version cannot read it. A copy."""
    own = {key: value for key, value in recorded.items() if key not in _STANDS_FOR}
    try:
        return {**recorded, **Config.model_validate(own).resolved()}
    except ValidationError:
        return copy.deepcopy(recorded)


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line per value that differs: its dotted path, `old -> new`; a part that only one has is `absent` in
    the other.

    Empty where the two say the same.
    """
    return list(_changes("", old, new))


def comparable(config: dict[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """A recorded configuration without what may change when a run goes on, and without the dotted paths that are
    named."""
    config = copy.deepcopy(config)
    for section, keys in MAY_CHANGE.items():
        for values in _sections(config, section):
            for key in keys:
                values.pop(key, None)
    for path in without:
        section, _, key = path.rpartition(".")
        for values in _sections(config, section):
            values.pop(key, None)
    if not config.get("deepspeed", {}).get("zero_optimization", True):
        del config["deepspeed"]["zero_optimization"]
    return config


def _sections(config: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """The sections at a dotted path, of which `[]` is each item of a list, `*` each value of a section and a number one
    of a list; those that are there."""
    found: list[Any] = [config]
    for key in path.replace("[]", ".[]").split(".") if path else ():
        if key == "[]":
            found = [item for one in found for item in one]
        elif key == "*":
            found = [value for one in found for value in one.values()]
        elif key.isdecimal():
            found = [one[int(key)] for one in found]
        else:
            found = [one[key] for one in found if one.get(key)]
    return found


_ABSENT = object()


def _changes(path: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(f"{path}.{key}" if path else str(key), key) for key in keys]
        lines = [_changes(name, old.get(key, _ABSENT), new.get(key, _ABSENT)) for name, key in pairs]
        return [line for group in lines for line in group]
    if isinstance(old, list) and isinstance(new, list) and any(isinstance(item, dict) for item in old + new):
        width = max(len(old), len(new))
        padded = [items + [_ABSENT] * (width - len(items)) for items in (old, new)]
        lines = [_changes(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(*padded, strict=True))]
        return [line for group in lines for line in group]
    return [] if old == new else [f"{path}: {_show(old)} -> {_show(new)}"]


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, dict) and "name" in value:
        return f"{value['name']!r}"
    return repr(value)
