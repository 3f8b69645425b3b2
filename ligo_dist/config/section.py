"""What every part of a configuration is made of: sections without unknown keys, and the kinds of values."""

from __future__ import annotations

import os
import types
from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
PositiveOrZero = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[Text, AfterValidator(os.path.expanduser)]
"""A path, a pattern of paths, or a name; `~` is the home directory."""
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A mapping of the file: no unknown keys, no values turned into another type, not changed once read."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def types_at(model: type[BaseModel], path: Iterable[object]) -> list[Any]:
    """The types that a model allows where keys and numbers of items lead; none where it does not say."""
    found: list[Any] = [model]
    for key in path:
        found = [inner for one in found for inner in _inside(one, str(key))]
    return found


def _inside(type_: Any, key: str) -> list[Any]:
    origin, arguments = get_origin(type_), get_args(type_)
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        fields = {field.alias or name: field for name, field in type_.model_fields.items()}
        return _members(fields[key].annotation) if key in fields else []
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
