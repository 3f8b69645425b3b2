"""The files through which a launcher and its ranks speak to each other."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rank_processes import wait_until

from ligo_dist.runtime import launch as module
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.launch import (
    STOP_FILE,
    LaunchDirectory,
    Lines,
    RankEnd,
    forget_request,
    remove_stale_environments,
)


@pytest.fixture
def launch(tmp_path: Path) -> LaunchDirectory:
    return LaunchDirectory.make(tmp_path)


def test_launches_are_numbered_after_the_highest_there_is(tmp_path: Path):
    assert LaunchDirectory.newest(tmp_path / "run") is None
    made = [LaunchDirectory.make(tmp_path / "run").path for _ in range(2)]
    assert [path.name for path in made] == ["001", "002"]
    made[0].rmdir()
    for other in ("041", "7x", "notes"):
        (tmp_path / "run" / "logs" / other).mkdir()
    assert LaunchDirectory.make(tmp_path / "run").path == tmp_path / "run" / "logs" / "042"
    (tmp_path / "run" / "logs" / "999").mkdir()
    newest = LaunchDirectory.make(tmp_path / "run")
    assert newest.path.name == "1000"
    assert LaunchDirectory.newest(tmp_path / "run") == newest


def test_its_path_does_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert LaunchDirectory.make(Path("run")).path == tmp_path / "run" / "logs" / "001"


def test_the_environment_names_it(tmp_path: Path):
    assert LaunchDirectory.given({"LIGO_DIST_LAUNCH": str(tmp_path)}) == LaunchDirectory(tmp_path)
    assert LaunchDirectory.given({"LIGO_DIST_LAUNCH": ""}) is None
    assert LaunchDirectory.given({}) is None


def test_files_of_ranks_are_in_order_of_their_names(launch: LaunchDirectory):
    assert (launch.log(7).name, launch.end(12345).name) == ("rank-00007.log", "rank-12345.end")


def test_variables_are_for_their_owner_alone_and_can_be_forgotten(launch: LaunchDirectory):
    variables = {"HF_TOKEN": "s3cret", "GREETING": "grüß\nGott", "EMPTY": ""}
    before = os.umask(0)
    try:
        launch.write_environment(variables)
    finally:
        os.umask(before)
    assert stat.S_IMODE((launch.path / "environment").stat().st_mode) == 0o600
    assert launch.environment() == variables
    for _ in range(2):
        launch.forget_environment()
        assert launch.environment() == {}


def test_a_file_that_somebody_has_put_there_is_not_written_into(launch: LaunchDirectory):
    (launch.path / "environment").touch(mode=0o644)
    with pytest.raises(FileExistsError):
        launch.write_environment({"HF_TOKEN": "s3cret"})
    assert (launch.path / "environment").read_text() == ""


def test_the_launcher_counts(launch: LaunchDirectory):
    assert launch.counted() is None
    for number in (1, 2):
        launch.count(number)
        assert launch.counted() == str(number)
    (launch.path / "launcher").write_bytes(b"\xff")
    assert launch.counted() is None


def test_it_counts_on_until_it_is_done_whatever_it_waits_for(launch: LaunchDirectory):
    with launch.counting(lost_seconds=0.05):
        wait_until(lambda: int(launch.counted() or 0) > 2)
    last = launch.counted()
    time.sleep(0.05)
    assert launch.counted() == last


@pytest.mark.parametrize(("lost_seconds", "pause"), [(5, 1), (25, 5), (30, 5)])
def test_it_counts_several_times_before_it_is_lost(
    launch: LaunchDirectory, lost_seconds: float, pause: float, monkeypatch: pytest.MonkeyPatch
):
    pauses: list[float] = []

    class Done(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            pauses.append(timeout)
            return True

    started = SimpleNamespace(Event=Done, Thread=threading.Thread)
    monkeypatch.setattr(module, "threading", started)
    with launch.counting(lost_seconds):
        wait_until(lambda: pauses == [pause])


def test_the_launcher_asks_for_one_thing_at_a_time(launch: LaunchDirectory):
    assert launch.asked() is None
    launch.ask("preempt")
    assert launch.asked() == "preempt"
    launch.ask("stop")
    assert launch.asked() == "stop"


def test_what_an_earlier_run_has_left_and_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Secrets of a launcher of another member of the group are in nobody's way; a request to stop is."""
    launch = LaunchDirectory.make(tmp_path)
    launch.write_environment({})
    os.utime(launch.path / "environment", (0, 0))
    (tmp_path / STOP_FILE).touch()

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        remove_stale_environments(tmp_path)
        with pytest.raises(LigoError, match="asks the run to stop, and cannot be removed: Permission denied"):
            forget_request(tmp_path)
    remove_stale_environments(tmp_path)
    forget_request(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_full_disk_does_not_end_who_asks(launch: LaunchDirectory, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "replace_text", full)
    launch.ask("stop")
    assert launch.asked() is None


@pytest.mark.parametrize("content", [b"", b"halt\n", b"stop stop", b"\xff\xfe"])
def test_nonsense_asks_for_nothing(launch: LaunchDirectory, content: bytes):
    (launch.path / "stop").write_bytes(content)
    assert launch.asked() is None


def test_how_ranks_ended_comes_back_as_it_was_written(launch: LaunchDirectory):
    ends = {
        0: RankEnd(0, "node1", 0, "ended with exit code 0"),
        12: RankEnd(12, "node2", None, "was killed", "small train step 7", "SIGTERM", ["grün", "rot"]),
    }
    assert launch.ends() == {}
    for end in ends.values():
        launch.write_end(end)
    launch.log(3).write_text("not an end")
    for rank, unreadable in ((4, b""), (5, b'{"rank": 5, "ho'), (6, b"\xff")):
        launch.end(rank).write_bytes(unreadable)
    launch.end(7).symlink_to("gone")
    assert launch.ends() == ends


def test_a_rank_that_has_begun_and_not_ended_may_run_still(launch: LaunchDirectory):
    assert not launch.has_open_ends()
    for rank in range(2):
        launch.log(rank).touch()
        assert launch.has_open_ends()
        launch.write_end(RankEnd(rank, "node", 0, "ended with exit code 0"))
        assert not launch.has_open_ends()


def test_ends_that_are_known_are_not_read_again(launch: LaunchDirectory):
    first, second = (RankEnd(rank, "node", 1, "ended with exit code 1") for rank in range(2))
    launch.write_end(first)
    known = launch.ends()
    launch.end(0).write_text("would not be understood")
    launch.write_end(second)
    assert launch.ends(known) == {0: first, 1: second}
    assert known == {0: first}


def test_nothing_has_ended_where_there_is_no_directory(tmp_path: Path):
    assert LaunchDirectory(tmp_path / "gone").ends() == {}


@pytest.mark.parametrize(("age", "left"), [(540, True), (660, False)])
def test_secrets_of_a_launcher_that_was_killed_go_when_no_rank_can_want_them(
    launch: LaunchDirectory, tmp_path: Path, age: float, left: bool
):
    launch.write_environment({"HF_TOKEN": "s3cret"})
    then = time.time() - age
    os.utime(launch.path / "environment", (then, then))
    remove_stale_environments(tmp_path)
    assert (launch.path / "environment").exists() == left


def test_a_run_that_was_never_launched_has_left_nothing(tmp_path: Path):
    remove_stale_environments(tmp_path)


def test_lines_come_once_they_are_whole(tmp_path: Path):
    lines, path = Lines(tmp_path / "log"), tmp_path / "log"
    assert lines.new() == []
    with path.open("wb", buffering=0) as file:
        for written, new in ((b"one\ntw", ["one"]), (b"o", []), (b"\n\n\xff\n", ["two", "", "\ufffd"])):
            file.write(written)
            assert lines.new() == new
        assert list(lines.tail) == ["one", "two", "", "\ufffd"]
        file.write(b"".join(b"%d\n" % number for number in range(31)))
    assert len(lines.new()) == 31
    assert list(lines.tail) == [str(number) for number in range(1, 31)]
