from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest

from ligo_dist.tracking import environment_tags, git_state, source_tags
from recorded_runs import SMALL, Recorder


def test_tags_say_how_to_repeat_the_run() -> None:
    command = ["ligo-dist", "run", "a b.yaml", "tracking.uri=http://me:secret@host"]
    tags = environment_tags(command, 3, ["b", "a", "b"])
    assert tags["command"] == "ligo-dist run 'a b.yaml' tracking.uri=http://***@host"
    assert tags["mlflow.source.name"] == "a b.yaml"
    assert (tags["world_size"], tags["hosts"]) == ("3", "a, b")
    assert tags["version.python"] == platform.python_version()
    assert {"version.torch", "version.deepspeed", "version.transformers", "version.ligo_dist"} <= set(tags)


def test_a_source_is_known_by_its_place_and_the_run_that_exported_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Recorder(tmp_path / "run")
    run.record(SMALL)
    export, other = tmp_path / "run" / "export" / "small", tmp_path / "model"
    export.mkdir(parents=True)
    other.mkdir()
    (tmp_path / "link").symlink_to(export)
    monkeypatch.chdir(tmp_path)
    identity = json.loads((tmp_path / "run" / "tracking.json").read_text())["identity"]
    for given in ("run/export/small", str(export), "link"):
        assert source_tags(given) == {"source.path": str(export), "source.run": identity}
    assert source_tags("model") == {"source.path": str(other)}
    assert source_tags("hub/name") == source_tags(None) == {}


def test_commit_and_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init")
    (tmp_path / "code.py").write_text("1")
    assert git_state(tmp_path) is None  # in a repository, but not part of it
    git("add", "code.py")
    git("commit", "-m", "begin")
    assert git_state(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path) == (git("rev-parse", "HEAD"), True)


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None
