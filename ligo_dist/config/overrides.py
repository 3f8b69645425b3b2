"""`key.path=value` on the command line: `stages[1].train.steps=5` or `stages.1.train.steps=5`; values are
YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ligo_dist.config.yaml_text import parse_yaml
from ligo_dist.errors import Fault

_INDEX = re.compile(r"\[(\d+)\]")
_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d+\])*")

Key = str | int


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> list[Fault]:
    """Write each override into `raw`, in order; sections that are absent come to be. Gives what could not be
    applied."""
    faults = []
    for override in overrides:
        fault = _apply(raw, override)
        if fault is not None:
            faults.append(fault)
    return faults


def dotted(keys: Sequence[Key]) -> str:
    """`("stages", 1, "train")` as `stages[1].train`."""
    path = ""
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else key
    return path


def _apply(raw: dict[str, Any], override: str) -> Fault | None:
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not _PATH.fullmatch(path):
        return Fault(override, "is no override; write key.path=value, such as stages[1].train.steps=5")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        return Fault(path, f"the value {text!r} is not YAML: {error}")
    keys = _INDEX.sub(r".\1", path).split(".")
    node: Any = raw
    walked: list[Key] = []
    for position, word in enumerate(keys):
        if isinstance(node, list):
            if not word.isdecimal() or int(word) >= len(node):
                has = f"items 0 to {len(node) - 1}" if node else "no items"
                return Fault(path, f"{dotted(walked)} is a list with {has}, so there is no {word!r}")
            key: Key = int(word)
        elif isinstance(node, dict):
            key = word
        else:
            return Fault(path, f"{dotted(walked)} is the value {node!r}, not a section that holds {word!r}")
        walked.append(key)
        if position == len(keys) - 1:
            node[key] = value
        else:
            if isinstance(node, dict) and node.get(key) is None:
                node[key] = {}
            node = node[key]
    return None
