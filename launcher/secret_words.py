"""Passwords and tokens do not belong on a command line, which everyone on the machine can read (`ps`)."""

from __future__ import annotations

from collections.abc import Iterable

from ligo_dist.errors import LigoError
from ligo_dist.redaction import holds_secret


def refuse_secrets(words: Iterable[str]) -> None:
    """See that no `key=value` word carries a password or a token.

    Raises:
        LigoError: one does; it names the keys alone.
    """
    keys = [word.partition("=")[0] for word in words if holds_secret(word)]
    if keys:
        raise LigoError(
            f"{', '.join(keys)}: holds a password or token, and everyone on this machine can read a command line;"
            " give user and password of an MLflow server in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,"
            " and any other address that needs one in MLFLOW_TRACKING_URI"
        )
