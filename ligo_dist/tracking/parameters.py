"""Names and values as MLflow takes them: flat, of bounded length, of a limited set of characters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ligo_dist.runtime.redaction import redact

KEY_LENGTH = 250
PARAMETER_LENGTH = 500  # what servers of all ages take; newer ones take 6000
TAG_LENGTH = 5000
BATCH = 100  # parameters or tags in one request
METRIC_BATCH = 1000


def flatten(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Nested parameters with dotted keys: `{"stages": [{"size": {"width": 8}}]}` has `stages.0.size.width`.

    Lists of plain values stay one parameter, in JSON. Passwords in URIs are hidden, long values are cut.
    """
    flat: dict[str, str] = {}
    for path, value in _leaves("", parameters) if parameters else []:
        flat[clean_key(path)] = cut(redact(_text(value)), PARAMETER_LENGTH)
    return flat


def clean_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags with the keys and values that MLflow takes."""
    return {clean_key(key): cut(redact(str(value)), TAG_LENGTH) for key, value in tags.items()}


def clean_key(key: str) -> str:
    """`key` with `_` for each character that MLflow does not take, at most 250 long."""
    return re.sub(r"[^\w\-./ ]", "_", key, flags=re.ASCII)[:KEY_LENGTH] or "_"


def cut(text: str, length: int) -> str:
    """`text`, ending in `...` where it is longer than `length`."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return [(path, value)]
    return [leaf for key, item in items for leaf in _leaves(f"{path}.{key}" if path else key, item)]


def _text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
