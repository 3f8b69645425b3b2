"""Which MLflow store a run is tracked in."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ligo_dist.errors import LigoError

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
DATABRICKS = ("databricks", "databricks-uc", "uc")
EMBEDDED = "sqlite:///"
"""What the URI of a database file begins with; its path follows."""

_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")


def tracking_address(uri: str | None, run_dir: Path) -> str:
    """The tracking URI of a run, the path of an SQLite file made absolute.

    It is `uri`, else the environment's `MLFLOW_TRACKING_URI`, else `mlflow.db` beside the run directory.

    Raises:
        LigoError: MLflow knows no such store, or keeps nothing in it.
    """
    given_by = "tracking.uri"
    if uri is None:
        uri, given_by = os.environ.get("MLFLOW_TRACKING_URI") or None, "MLFLOW_TRACKING_URI"
    if uri is None:
        return f"{EMBEDDED}{run_dir.absolute().parent / 'mlflow.db'}"
    uri = uri.strip()
    suggestion = f"use {EMBEDDED}{run_dir.absolute().parent / 'mlflow.db'} or the address of a server, http://HOST:PORT"
    scheme, colon, _ = uri.partition(":")
    kind = scheme.lower().partition("+")[0]
    if kind == "file" or (not colon and scheme not in DATABRICKS):
        raise LigoError(f"{given_by}: {uri!r} is a directory, which MLflow no longer writes to; {suggestion}")
    if kind not in (*DATABASES, *SERVERS, *DATABRICKS, *_plugin_schemes()):
        near = difflib.get_close_matches(kind, (*DATABASES, *SERVERS, *DATABRICKS), 1)
        hint = f"did you mean {near[0]!r}?" if near else suggestion
        raise LigoError(f"{given_by}: {redact(uri)!r} has the unknown scheme {kind!r}; {hint}")
    if kind in SERVERS and not _hostname(uri):
        raise LigoError(f"{given_by}: {redact(uri)!r} names no host; write http://HOST:PORT")
    if kind == "sqlite":
        head, _, path = uri.partition(":///")
        if not path or path.startswith(":memory:"):
            raise LigoError(f"{given_by}: {uri!r} names no file; {suggestion}")
        return f"{head}:///{Path(path).absolute()}"
    return uri


def database_file(address: str) -> Path | None:
    """The file of an SQLite store; None for another store."""
    scheme, _, path = address.partition(":///")
    return Path(path.partition("?")[0]) if scheme.partition("+")[0].lower() == "sqlite" else None


def artifact_directory(address: str, run_dir: Path) -> Path | None:
    """Where artifacts go, `mlartifacts` beside the SQLite file or the run; None where a server decides it."""
    if (file := database_file(address)) is not None:
        return file.parent / "mlartifacts"
    is_database = address.lower().startswith(DATABASES)
    return run_dir.absolute().parent / "mlartifacts" if is_database else None


def how_to_open(address: str) -> str:
    """What a person does to see the runs: the command for a database, the address of a server."""
    if address.lower().startswith(DATABASES) and redact(address) == address:
        return f"mlflow ui --backend-store-uri {shlex.quote(address)}"
    return redact(address)


def redact(text: str) -> str:
    """`text` without the users, passwords and tokens in its URIs and in MLflow's environment variables."""
    text = re.sub(r"(?<=://)[^\s'\"/][^\s'\"]*@", "***@", text)
    text = re.sub(r"(?i)([?&][^=&\s]*(?:password|token|secret|key)[^=&\s]*=)[^&\s'\"]+", r"\1***", text)
    for variable in _SECRET_VARIABLES:
        if value := os.environ.get(variable):
            text = text.replace(value, "***")
    return text


def secrets_of(address: str) -> tuple[str, ...]:
    """The password within an address, as written and decoded: it may turn up in messages without its URI."""
    try:
        password = urlsplit(address).password
    except ValueError:
        return ()
    return (password, unquote(password)) if password else ()


def _hostname(uri: str) -> str | None:
    try:
        return urlsplit(uri).hostname
    except ValueError:
        return None


def _plugin_schemes() -> set[str]:
    return {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}
