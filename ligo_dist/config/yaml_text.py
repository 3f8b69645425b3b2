"""YAML as this project reads it - a key given twice is an error, and `1e-3` is a number - and `key.path=value` written
over it from the command line: `stages[1].train.steps=5` or `stages.1.train.steps=5`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from ligo_dist.runtime.errors import Fault

_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_RESOLVED_HERE = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and booleans (1.1, PyYAML's, takes `1e-3` for text and `no` for false)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, yaml.Mark] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            first = seen.setdefault(key_node.value, key_node.start_mark)
            if first is not key_node.start_mark:
                where = f"on line {first.line + 1} for the first time"
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key_node.value!r} is given twice, {where}",
                    problem_mark=key_node.start_mark,
                )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _RESOLVED_HERE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_RESOLVED_HERE[0], _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver(_RESOLVED_HERE[1], _BOOL, list("tTfF"))


def parse_yaml(text: str) -> Any:
    """The plain value that a YAML text stands for; what an alias repeats is a value of its own.

    Raises:
        ValueError: the text is no YAML, or a mapping has a key twice; the message says where.
    """
    try:
        return _unshared(yaml.load(text, Loader=_Loader))
    except RecursionError:
        raise ValueError("an anchor holds itself") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


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


def set_value(raw: dict[str, Any], path: str, value: Any) -> Fault | None:
    """Write a value where a dotted path leads, `stages[1].train.steps` or `stages.1.train.steps`; sections that are
    absent come to be. Gives what is wrong with the path."""
    if not _PATH.fullmatch(path):
        return Fault(path, "is no key; write it as stages[1].train.steps")
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


def _apply(raw: dict[str, Any], override: str) -> Fault | None:
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not _PATH.fullmatch(path):
        return Fault(override, "is no override; write key.path=value, such as stages[1].train.steps=5")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        return Fault(path, f"the value {text!r} is not YAML: {error}")
    return set_value(raw, path, value)
