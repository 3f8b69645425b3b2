"""Pydantic's errors in this project's words: dotted path, the value, what would be right, the nearest valid
name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ligo_dist.config.section import types_at
from ligo_dist.config.yaml_text import Key, dotted
from ligo_dist.runtime.errors import Fault, did_you_mean

_FEW = 16
_UNKNOWN = "unknown key"

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text (in quotes, if it looks like a number)",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section (a mapping of keys to values)",
    "model_type": "a section (a mapping of keys to values)",
    "string_too_short": "text that is not empty",
}
NEEDED = (
    "what is trained on has no default: name it as data.source, such as text with data.files, hub with data.name, or "
    "stdlib (Python's own sources)"
)
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def suggestion(name: object, valid: Iterable[object]) -> str:
    """`; did you mean 'x'?` where a valid name is near, else what the valid names are if they are few."""
    names = [str(one) for one in valid]
    return did_you_mean(name, names, f"; there are: {', '.join(names)}" if 0 < len(names) <= _FEW else "")


def validation_faults(
    error: ValidationError, model: type[BaseModel], prefix: Sequence[Key] = ()
) -> list[Fault]:
    """One fault per error of pydantic's, under `prefix`, the path of the section that was validated as
    `model`."""
    return [_fault(details, model, prefix) for details in error.errors()]


def is_unknown_key(fault: Fault) -> bool:
    """Whether a fault is a key that there is not."""
    return fault.message.startswith(_UNKNOWN)


def _fault(details: Any, model: type[BaseModel], prefix: Sequence[Key]) -> Fault:
    kind, location, value = details["type"], details["loc"], details["input"]
    context = details.get("ctx", {})
    path = dotted([*prefix, *location])
    if kind == "extra_forbidden":
        return Fault(path, f"{_UNKNOWN}{suggestion(location[-1], _keys(types_at(model, location[:-1])))}")
    if kind == "missing":
        return Fault(path, f"is missing; {NEEDED if path == 'data' else 'it has no default'}")
    if kind == "literal_error":
        choices = _choices(types_at(model, location))
        return Fault(path, f"{value!r} is no {location[-1]}{suggestion(value, choices)}")
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return Fault(path, f"{value!r} should be {words} {context[bound]:g}")
    if kind in ("too_short", "too_long"):
        words, bound = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return Fault(path, f"has {context['actual_length']} items; {words} {context[bound]} would be right")
    if kind in _WANTED:
        return Fault(path, f"{value!r} should be {_WANTED[kind]}")
    return Fault(path, f"{value!r}: {details['msg']}")


def _keys(types: Iterable[Any]) -> list[str]:
    """Of sections, as the file has them: `from` is no name that Python allows."""
    sections = [one for one in types if isinstance(one, type) and issubclass(one, BaseModel)]
    return [field.alias or name for one in sections for name, field in one.model_fields.items()]


def _choices(types: Iterable[Any]) -> list[object]:
    """Of `Literal[...]`, and `null` where it may be that."""
    return [choice for one in types for choice in (get_args(one) or ["null"])]
