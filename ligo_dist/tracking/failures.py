"""How a store fails: out of reach for now, refusing one call, or no use at all."""

from __future__ import annotations

import re

from ligo_dist.runtime.redaction import redact, secrets_of

_PASSING_CODES = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
"""Error codes of MLflow that another try may not meet."""


class OutOfReach(Exception):
    """The store did not answer, or not now: the call is worth another try."""


class Refused(Exception):
    """The store refuses a call and would refuse it again."""


class Unusable(Exception):
    """The store can record nothing of this run: it is not called again."""


def translate(error: Exception, address: str) -> OutOfReach | Refused:
    """The failure that an exception of MLflow, of its database or of the network amounts to."""
    kind = OutOfReach if _may_pass(error) else Refused
    return kind(f"{redact(address)}: {describe(error, address)}")


def describe(error: Exception, address: str) -> str:
    """An error in one line without secrets; of a failed connection, the cause alone."""
    text = str(error) or type(error).__name__
    if connection := re.findall(r"\[Errno -?\d+\] ([^'\")>\n]+)", text):
        text = connection[-1]
    for secret in secrets_of(address):
        text = text.replace(secret, "***")
    return redact(text).strip().partition("\n")[0][:300]


def _may_pass(error: Exception) -> bool:
    if code := getattr(error, "error_code", None):
        return code in _PASSING_CODES
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
        return False
    return isinstance(error, OSError) or type(error).__module__.startswith("sqlalchemy")
