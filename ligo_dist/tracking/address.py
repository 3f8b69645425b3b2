"""Which MLflow store a run is tracked in."""

from __future__ import annotations

import os
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from ligo_dist.runtime.errors import LigoError, did_you_mean
from ligo_dist.runtime.redaction import redact

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
DATABRICKS = ("databricks", "databricks-uc", "uc")
EMBEDDED = "sqlite:///"
"""What the URI of a database file begins with; its path follows."""
_NETWORK = re.compile(
    r"(fuse\.)?(nfs\d?|cifs|smb\w*|lustre|gpfs|beegfs\w*|ceph\S*|glusterfs|panfs|wekafs|orangefs|pvfs2|afs|9p|sshfs|juicefs)"
)
"""File systems of other machines, by the names that the system gives them."""
_OPTIONS = re.compile(r"\w+=[^&]*(&\w+=[^&]*)*")
_ESCAPED = re.compile(r"%[0-9a-fA-F]{2}")


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
    beside = run_dir.absolute().parent / "mlflow.db"
    if uri is None:
        if "?" in str(beside) or _ESCAPED.search(str(beside)):
            raise LigoError(
                f"run_dir: the MLflow database would be {str(beside)!r}, and an address cannot hold a path with `?` or"
                " `%` in it; choose another directory, give tracking.uri, or set tracking.mlflow: false"
            )
        return f"{EMBEDDED}{beside}"
    uri = uri.strip()
    suggestion = f"use {EMBEDDED}{beside} or the address of a server, http://HOST:PORT"
    scheme, colon, _ = uri.partition(":")
    kind = scheme.lower().partition("+")[0]
    if kind == "file" or (not colon and scheme not in DATABRICKS):
        raise LigoError(f"{given_by}: {uri!r} is a directory, which MLflow no longer writes to; {suggestion}")
    if kind not in (*DATABASES, *SERVERS, *DATABRICKS, *_plugin_schemes()):
        hint = did_you_mean(kind, (*DATABASES, *SERVERS, *DATABRICKS), f"; {suggestion}")
        raise LigoError(f"{given_by}: {redact(uri)!r} has the unknown scheme {kind!r}{hint}")
    if kind in SERVERS:
        if not _names_host(uri):
            raise LigoError(f"{given_by}: {redact(uri)!r} names no host; write http://HOST:PORT")
        server = re.split("[?#]", uri)[0].rstrip("/")
        if server != uri.rstrip("/"):
            raise LigoError(
                f"{given_by}: {redact(uri)!r} is a page that a server shows; its own address is {redact(server)}"
            )
    if kind == "sqlite":
        head, _, path = uri.partition(":///")
        if not path or path.startswith(":memory:"):
            raise LigoError(f"{given_by}: {uri!r} names no file; {suggestion}")
        file, mark, options = path.partition("?")
        if (mark and not _OPTIONS.fullmatch(options)) or _ESCAPED.search(file):
            raise LigoError(
                f"{given_by}: {uri!r} would not be that file: after `?` come options, and `%` begins another sign;"
                f" choose a path without; {suggestion}"
            )
        return f"{head}:///{Path(path).absolute()}"
    return uri


def database_file(address: str) -> Path | None:
    """The file of an SQLite store; None for another store."""
    scheme, _, path = address.partition(":///")
    return Path(path.partition("?")[0]) if scheme.partition("+")[0].lower() == "sqlite" else None


def locks_warning(address: str) -> str | None:
    """What is to be told of an SQLite store on a network file system; None: it lies elsewhere, or is another store."""
    file = database_file(address)
    kind = None if file is None else _file_system(file.resolve())
    if kind is None or not _NETWORK.fullmatch(kind):
        return None
    return (
        f"MLflow: {file} lies on a network file system ({kind}), where the locks of SQLite may not hold: let one run at"
        " a time write to it, or give tracking.uri, a server or a file on a disk of this machine"
    )


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


def _file_system(path: Path) -> str | None:
    """The kind of file system that a path lies on, or will; None where the system does not say."""
    kinds = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((kinds[place] for place in path.parents if place in kinds), None)


def _names_host(uri: str) -> bool:
    """Whether there is a host, and a port that can be one, if any."""
    try:
        parts = urlsplit(uri)
        return parts.port != 0 and bool(parts.hostname) and not re.search(r"\s", uri)
    except ValueError:
        return False


def _plugin_schemes() -> set[str]:
    return {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}
