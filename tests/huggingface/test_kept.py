"""What a run keeps of its source: enough to go on when the source has gone."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.huggingface import (
    has_weights,
    keep_source,
    locate_source,
    resolve_directory,
    source_fingerprint,
    weights_fingerprint,
)
from ligo_dist.huggingface import kept as module
from ligo_dist.runtime.errors import CheckpointError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    for name in ("config.json", "tokenizer.json", "vocab.txt", "model.safetensors", "notes.md"):
        (directory / name).write_text(name)
    return directory


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def keep(run_dir: Path, name: str, directory: Path) -> Path:
    keep_source(run_dir, name, directory, weights_fingerprint(directory))
    return run_dir / "source"


def offline(*arguments: Any, **more: Any) -> Path:
    raise CheckpointError("cannot be had from the hub")


def test_all_but_the_weights_is_kept(source: Path, run_dir: Path):
    copy = keep(run_dir, str(source), source)
    assert sorted(path.name for path in copy.iterdir()) == [
        "config.json",
        "kept.json",
        "tokenizer.json",
        "vocab.txt",
    ]
    assert (has_weights(source), has_weights(copy)) == (True, False)
    assert source_fingerprint(copy) == source_fingerprint(source) == weights_fingerprint(source)


def test_a_directory_that_has_gone_is_not_looked_for_on_the_hub(
    source: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        module, "resolve_directory", lambda *arguments, **more: pytest.fail("it asks the hub")
    )
    copy = keep(run_dir, str(source), source)
    assert locate_source(run_dir, str(source)) == str(source)
    shutil.rmtree(source)
    assert locate_source(run_dir, str(source)) == str(copy)
    assert resolve_directory(locate_source(run_dir, str(source))) == copy
    assert locate_source(run_dir, "another/model") == "another/model"
    keep_source(run_dir, str(source), copy, "its own")
    assert source_fingerprint(copy) != "its own", "what is kept is not kept once more"


def test_a_name_on_the_hub_that_cannot_be_reached(
    source: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = keep(run_dir, "someone/model", source)
    monkeypatch.setattr(module, "resolve_directory", lambda *arguments, **more: source)
    assert locate_source(run_dir, "someone/model") == "someone/model"
    monkeypatch.setattr(module, "resolve_directory", offline)
    assert locate_source(run_dir, "someone/model") == str(copy)


def test_a_run_that_keeps_nothing(source: Path, run_dir: Path):
    assert locate_source(run_dir, str(source)) == str(source)
    assert locate_source(run_dir, "no/such") == "no/such"


def test_a_full_disk_keeps_what_was_kept_before(source: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    copy = keep(run_dir, str(source), source)
    before = source_fingerprint(copy)
    (source / "model.safetensors").write_text("other weights")
    monkeypatch.setattr(module.shutil, "copyfile", full)
    keep(run_dir, str(source), source)
    assert source_fingerprint(copy) == before
    monkeypatch.undo()
    keep(run_dir, str(source), source)
    assert source_fingerprint(copy) == source_fingerprint(source) != before
