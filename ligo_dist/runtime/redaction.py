"""Keeping passwords and tokens out of whatever is written: messages, logs, records, checkpoints, MLflow."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
"""What stands in a secret's place."""

_NAMED = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "DATABRICKS_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACE_HUB_TOKEN",
)
_ENDINGS = ("_TOKEN", "_PASSWORD", "_SECRET", "_SECRET_ACCESS_KEY")
_SHORTEST = 6
"""Characters of a value, below which a variable that is not among the named ones is taken for no secret."""

_USER = re.compile(r"(?<=://)[^\s'\"/][^\s'\"]*@")
_PASSWORD = re.compile(r"://[^\s'\"/@:]*:(?!\d+[/?#])[^\s'\"]*@")
_QUERY = re.compile(r"(?i)([?&][^=&\s]*(?:password|token|secret|key)[^=&\s]*=)[^&\s'\"]+")


def redact(text: str) -> str:
    """`text` without the users, passwords and tokens of its URIs, and without the environment's secrets."""
    text = _USER.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    for secret in _environment_secrets():
        text = text.replace(secret, HIDDEN)
    return text


def redact_values(values: Any) -> Any:
    """Plain values (of JSON, of YAML) with each text in them redacted."""
    if isinstance(values, dict):
        return {key: redact_values(value) for key, value in values.items()}
    if isinstance(values, list):
        return [redact_values(value) for value in values]
    return redact(values) if isinstance(values, str) else values


def holds_secret(text: str) -> bool:
    """Whether there is a password or a token in `text`; a user's name alone is none."""
    found = _PASSWORD.search(text) or _QUERY.search(text)
    return bool(found) or any(secret in text for secret in _environment_secrets())


def names_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret, whatever its value."""
    return name.upper() in _NAMED or name.upper().endswith(_ENDINGS)


def secrets_of(address: str) -> tuple[str, ...]:
    """The password within an address, as written and decoded: it may turn up in messages without its URI."""
    try:
        password = urlsplit(address).password
    except ValueError:
        return ()
    return (password, unquote(password)) if password else ()


def _environment_secrets() -> list[str]:
    """The values of variables that hold secrets, the longest first: one may be a part of another."""
    secrets = {value for name, value in os.environ.items() if value and _is_secret(name.upper(), value)}
    return sorted(secrets, key=len, reverse=True)


def _is_secret(name: str, value: str) -> bool:
    return name in _NAMED or (name.endswith(_ENDINGS) and len(value) >= _SHORTEST)
