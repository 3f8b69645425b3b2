"""Whether DeepSpeed takes the keys that a configuration gives it: its own models of a configuration say so.

It loads DeepSpeed, so the launcher asks it in a process apart (`ligo_dist.runtime.apart`); a rank calls the function
itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from pydantic import ValidationError

from ligo_dist.engine.zero3 import engine_config
from ligo_dist.runtime.errors import Fault, did_you_mean, innermost_words

ZERO_KEYS = tuple(field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items())
"""Keys of `zero_optimization`. Some have a second name, which a plan would not know."""


def refused_keys(keys: Mapping[str, Any]) -> list[Fault]:
    """What DeepSpeed refuses of the section `deepspeed`, key by key, else of all of it.

    Args:
        keys: merged into the project's own settings, as in a run; none that the project sets itself.
    """
    if not keys:
        return []
    unknown = [
        Fault(f"deepspeed.zero_optimization.{key}", f"unknown key{did_you_mean(key, ZERO_KEYS)}")
        for key in keys.get("zero_optimization") or {}
        if key not in ZERO_KEYS
    ]
    if unknown:
        return unknown
    alone = [fault for key in keys for fault in _refused(f"deepspeed.{key}", {key: keys[key]}, keys[key])]
    return alone or _refused("deepspeed", keys, keys)


def _refused(path: str, keys: Mapping[str, Any], value: Any) -> list[Fault]:
    """Why DeepSpeed refuses keys; `path` and `value` name all of them."""
    try:
        DeepSpeedConfig(engine_config("fp32", 1, 1, 1.0, keys))
    except ValidationError as error:
        return [
            Fault(
                path + _inner_path(details["loc"]),
                f"{details['input']!r}: DeepSpeed refuses it: {details['msg']}",
            )
            for details in error.errors()
        ]
    except Exception as error:  # whatever DeepSpeed raises is its verdict
        return [Fault(path, f"{value!r}: DeepSpeed refuses it: {innermost_words(error)}")]
    return []


def _inner_path(keys: Sequence[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)


def answer_apart(request: Any) -> Any:
    """The answer to a question that was asked through `ligo_dist.runtime.apart`."""
    return [[fault.path, fault.message] for fault in refused_keys(request)]
