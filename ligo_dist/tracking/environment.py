"""What a run was made with and where, as tags."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ligo_dist
from ligo_dist.runtime.files import EXPORTS_DIRECTORY
from ligo_dist.runtime.redaction import redact
from ligo_dist.tracking.state import read_state

_CONFIGS = (".yaml", ".yml")
SOURCE_PATH, SOURCE_RUN = "source.path", "source.run"
"""Tags of the model that a run begins with: its directory, and the identity of the run that exported it."""
PACKAGES = ("torch", "deepspeed", "transformers", "datasets")


def environment_tags(command: Sequence[str], world_size: int, hosts: Sequence[str]) -> dict[str, str]:
    """Tags that say how to repeat a run: code, versions, machines, command.

    Args:
        command: the words of the command that started the run; passwords in URIs are hidden.
        world_size: number of ranks.
        hosts: host name of each rank, in any order; each is named once.
    """
    text = redact(shlex.join(command))
    tags = {
        "command": text,
        "world_size": str(world_size),
        "hosts": ", ".join(sorted(set(hosts))),
        "platform": platform.platform(),
        "version.ligo_dist": ligo_dist.__version__,
        "version.python": platform.python_version(),
        # The names that begin so are what MLflow's pages show as the source: the last part of a path.
        "mlflow.source.name": next((word for word in command if word.endswith(_CONFIGS)), "ligo_dist"),
        "mlflow.source.type": "LOCAL",
    }
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    if code := git_state(Path(__file__).parent):
        commit, dirty = code
        tags |= {"git.commit": commit, "git.dirty": str(dirty).lower(), "mlflow.source.git.commit": commit}
    return tags


def source_tags(given: str | None) -> dict[str, str]:
    """Where the model lies that a run begins with, and which run exported it, if one did; none for a name on the hub,
    which is the same everywhere."""
    directory = None if given is None else Path(given).expanduser()
    if directory is None or not directory.is_dir():
        return {}
    path = directory.resolve()
    state = read_state(path.parent.parent) if path.parent.name == EXPORTS_DIRECTORY else None
    return {SOURCE_PATH: str(path), **({SOURCE_RUN: state.identity} if state else {})}


def git_state(directory: Path) -> tuple[str, bool] | None:
    """The commit that the files in `directory` are from and whether tracked files differ from it.

    None if git does not track this directory: an installed package may lie within another's repository.
    """
    if not _git(directory, "ls-files", "."):
        return None
    commit = _git(directory, "rev-parse", "HEAD")
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return (commit, bool(changes)) if commit and changes is not None else None


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
