"""Directories that are complete or absent."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from ligo_dist.corpus import cache_key, make_once
from ligo_dist.runtime.errors import DataError


def _sound(directory: Path) -> str | None:
    return None if (directory / "result").is_file() else "no result"


def _make(directory: Path) -> None:
    (directory / "result").write_text("made")


def test_keys_are_equal_for_equal_inputs_alone() -> None:
    assert cache_key({"a": 1, "b": [2, "x"]}) == cache_key({"b": [2, "x"], "a": 1})
    assert cache_key({"a": 1}) != cache_key({"a": 2})
    assert cache_key({"a": "\udcff"}) != cache_key({"a": "?"})  # a path that is not UTF-8


def test_what_exists_and_is_sound_is_left_alone(tmp_path: Path) -> None:
    make_once(tmp_path / "cache" / "key", _make, _sound)
    make_once(tmp_path / "cache" / "key", lambda directory: pytest.fail("made twice"), _sound)
    assert (tmp_path / "cache" / "key" / "result").read_text() == "made"


def test_what_is_damaged_is_made_anew_and_this_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "rubbish").touch()
    make_once(tmp_path / "key", _make, _sound)
    assert [path.name for path in (tmp_path / "key").iterdir()] == ["result"]
    assert "is damaged (no result) and is made anew" in caplog.text


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        _make(directory)
        raise DataError("no")

    with pytest.raises(DataError, match=r"no"):
        make_once(tmp_path / "key", fail, _sound)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["key.lock"])
    make_once(tmp_path / "key", _make, _sound)


def test_left_overs_of_killed_processes_are_removed(tmp_path: Path) -> None:
    left_over = tmp_path / f"key.partial-{socket.gethostname()}-1"
    elsewhere = tmp_path / "key.partial-another_host-1"
    another_key = tmp_path / f"key2.partial-{socket.gethostname()}-1"
    for directory in (left_over, elsewhere, another_key):
        directory.mkdir()
        _make(directory)
    make_once(tmp_path / "key", _make, _sound)
    assert not left_over.exists()
    assert elsewhere.exists()
    assert another_key.exists()


@pytest.mark.parametrize("damaged", [False, True])
def test_threads_that_start_together_do_the_work_once(tmp_path: Path, damaged: bool) -> None:
    """And look at what is there side by side: one that waited takes the other's word."""
    made: list[Path] = []
    looking = threading.Barrier(4 if damaged else 1, timeout=10)
    if damaged:
        (tmp_path / "key").mkdir()

    def slowly(directory: Path) -> None:
        made.append(directory)
        time.sleep(0.1)
        _make(directory)

    def fault(directory: Path) -> str | None:
        looking.wait()
        assert damaged, "there was nothing to look at"
        return _sound(directory)

    threads = [threading.Thread(target=make_once, args=(tmp_path / "key", slowly, fault)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert _sound(tmp_path / "key") is None


def test_where_locks_do_not_hold_the_first_one_done_is_taken(tmp_path: Path) -> None:
    """Another host makes the same while this one does, as on a network disk."""

    def make_beside_another(directory: Path) -> None:
        _make(directory)
        (tmp_path / "key").mkdir()
        (tmp_path / "key" / "result").write_text("made by the other")

    make_once(tmp_path / "key", make_beside_another, _sound)
    assert (tmp_path / "key" / "result").read_text() == "made by the other"
    assert not list(tmp_path.glob("key.partial-*"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"data.cache_dir: '.*file' cannot be used: "):
        make_once(tmp_path / "file" / "key", _make, _sound)
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(DataError, match=r"data.cache_dir: .* Permission denied"):
            make_once(tmp_path / "closed" / "key", _make, _sound)
