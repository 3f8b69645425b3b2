"""`key.path=value` written over a configuration from the command line: `stages[1].train.steps=5` or
`stages.1.train.steps=5`. A value is text as it was typed, unless the key's type says otherwise."""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ligo_dist.config.schema import Config
from ligo_dist.config.yaml_text import PATH, holds_comment, parse_yaml, set_value, words_of
from ligo_dist.runtime.errors import Fault

_QUOTED = re.compile(r"""\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*""", re.DOTALL)
_NULL = ("", "~", "null", "Null", "NULL")
_PATHS = ("cluster", "deepspeed")
"""Sections that may be the path of a file."""


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> list[Fault]:
    """Write each override into the plain values of a configuration, in order; sections that are absent come to be.
    Gives what could not be applied."""
    faults = (_apply(raw, override) for override in overrides)
    return [fault for fault in faults if fault is not None]


def _apply(raw: dict[str, Any], override: str) -> Fault | None:
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not PATH.fullmatch(path):
        return Fault(override, "is no override; write key.path=value, such as stages[1].train.steps=5")
    try:
        if _is_typed_text(text, words_of(path)):
            return set_value(raw, path, text)
        if holds_comment(text):
            return Fault(path, f"{text!r} has a comment: what follows # would be left out; quote or drop it")
        return set_value(raw, path, parse_yaml(text))
    except ValueError as error:
        return Fault(path, f"the value {text!r} is not YAML: {error}")


def _is_typed_text(text: str, words: Sequence[str]) -> bool:
    """Whether the value of a key is the very text, rather than the YAML in it."""
    if text.strip() in _NULL or _QUOTED.fullmatch(text):
        return False
    if words[0] in _PATHS and len(words) == 1:
        return not text.lstrip().startswith("{")
    return any(map(_is_text, _types_at(Config, words)))


def _types_at(model: type[BaseModel], words: Sequence[str]) -> list[Any]:
    """The types that the schema allows where a path leads; none where it does not say."""
    found: list[Any] = [model]
    for word in words:
        found = [inner for one in found for inner in _inside(one, word)]
    return found


def _inside(type_: Any, word: str) -> list[Any]:
    origin, arguments = get_origin(type_), get_args(type_)
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        fields = {field.alias or name: field for name, field in type_.model_fields.items()}
        return _members(fields[word].annotation) if word in fields else []
    if origin in (list, tuple):
        return _members(arguments[0])
    return _members(arguments[1]) if origin is dict else []


def _members(type_: Any) -> list[Any]:
    """A type, or those of a union."""
    if get_origin(type_) is Annotated:
        return _members(get_args(type_)[0])
    if get_origin(type_) in (types.UnionType, Union):
        return [member for one in get_args(type_) for member in _members(one)]
    return [type_]


def _is_text(type_: Any) -> bool:
    choices = get_args(type_) if get_origin(type_) is Literal else ()
    return type_ is str or any(isinstance(choice, str) for choice in choices)
