"""YAML as this project reads it - a key given twice is an error, `1e-3` is a number, and what only looks like one
(`12:00:00`, `007`, `2026-11-29`) stays the text that it is - and values written where a dotted path leads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
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
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_TAG = "tag:yaml.org,2002:"
_RESOLVED_AS_BEFORE = (f"{_TAG}null", f"{_TAG}merge")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and booleans. In 1.1, PyYAML's, `1e-3` is text, `no` is false, `12:00:00` is 43200 (base 60),
    `010` is 8 and `2026-11-29` a date."""

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
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _RESOLVED_AS_BEFORE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that either reader would take for something else."""


for _reads in (_Loader, _Dumper):
    _reads.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
    _reads.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
    _reads.add_implicit_resolver(f"{_TAG}bool", _BOOL, list("tTfF"))


def parse_yaml(text: str) -> Any:
    """The plain value that a YAML text stands for; what an alias repeats is a value of its own.

    Raises:
        ValueError: the text is no YAML, or a mapping has a key twice; the message says where.
    """
    with _one_line_errors():
        return _unshared(yaml.load(text, Loader=_Loader))


def dump_yaml(values: dict[str, Any]) -> str:
    """The text that `parse_yaml` reads these plain values from, keys in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def holds_comment(text: str) -> bool:
    """Whether YAML leaves out a part of the text.

    Raises:
        ValueError: the text is no YAML.
    """
    with _one_line_errors():
        tokens = list(yaml.scan(text, Loader=_Loader))
    gaps = (text[one.end_mark.index : next_.start_mark.index] for one, next_ in pairwise(tokens))
    return any(gap.strip() for gap in gaps)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
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
PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d+\])*")

Key = str | int


def dotted(keys: Sequence[Key]) -> str:
    """`("stages", 1, "train")` as `stages[1].train`."""
    path = ""
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else key
    return path


def words_of(path: str) -> list[str]:
    """`stages[1].train` as `["stages", "1", "train"]`."""
    return _INDEX.sub(r".\1", path).split(".")


def set_value(raw: dict[str, Any], path: str, value: Any) -> Fault | None:
    """Write a value where a dotted path leads, `stages[1].train.steps` or `stages.1.train.steps`; sections that are
    absent come to be. Gives what is wrong with the path."""
    if not PATH.fullmatch(path):
        return Fault(path, "is no key; write it as stages[1].train.steps")
    keys = words_of(path)
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
