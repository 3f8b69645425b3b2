"""Which MLflow store a run is tracked in."""

from __future__ import annotations

import os
import shlex
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from ligo_dist.runtime.errors import LigoError, did_you_mean
from ligo_dist.runtime.redaction import redact

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
DATABRICKS = ("databricks", "databricks-uc", "uc")
EMBEDDED = "sqlite:///"
"""What the URI of a database file begins with; its path follows."""


def tracking_address(uri: str | None, run_dir: Path, given_by: str = "tracking.uri") -> str:
    """The tracking URI of a run, the path of an SQLite file made absolute.

    It is `uri`, else the environment's `MLFLOW_TRACKING_URI`, else `mlflow.db` beside the run directory.

    Args:
        uri: the address that was asked for, if any.
        run_dir: the run's directory.
        given_by: what messages call the place that `uri` is from.

    Raises:
        LigoError: MLflow knows no such store, or keeps nothing in it.
    """
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
        hint = did_you_mean(kind, (*DATABASES, *SERVERS, *DATABRICKS), f"; {suggestion}")
        raise LigoError(f"{given_by}: {redact(uri)!r} has the unknown scheme {kind!r}{hint}")
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


def _hostname(uri: str) -> str | None:
    try:
        return urlsplit(uri).hostname
    except ValueError:
        return None


def _plugin_schemes() -> set[str]:
    return {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}
