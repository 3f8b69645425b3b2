"""A checkpoint that cannot be written: all ranks learn of it, what was complete stays, the run stops or goes on."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from ligo_dist.checkpoints import CheckpointWriter, Snapshot, files, remove_old
from ligo_dist.checkpoints import writer as writer_module
from ligo_dist.engine import World, barrier
from ligo_dist.runtime.errors import CheckpointError
from ranks import run_ranks
from snapshots import save, snapshot, state_at, writer

MEGABYTE = 1 << 20
Policy = Literal["stop", "continue"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def save_and_settle(checkpoints: CheckpointWriter, world: World, step: int, snapshot: Snapshot) -> str | None:
    """Save; the message if that stops the run."""
    try:
        checkpoints.save(state_at(step), step, snapshot)
        checkpoints.settle()
    except CheckpointError as error:
        return str(error)
    finally:
        barrier()
    return None


def fill_the_disk(world: World, disk: Path, policy: Policy) -> dict[str, Any]:
    """A checkpoint takes 0.8 MB. With 0.6 MB of something else there is no room for a second one beside the first."""
    warnings: list[str] = []
    checkpoints = writer(world, disk / "checkpoints", keep=1, on_failure=policy, warn=warnings.append)
    large = Snapshot({"model": {"a": torch.zeros(100_000)}}, {"model": {"a": 200_000}})
    filler = disk / "filler"
    assert save_and_settle(checkpoints, world, 1, large) is None
    if world.is_first:
        filler.write_bytes(bytes(6 * MEGABYTE // 10))
    barrier()
    stopped = save_and_settle(checkpoints, world, 2, large)
    full = sorted(path.name for path in (disk / "checkpoints").iterdir())
    barrier()
    if world.is_first:
        filler.unlink()
    barrier()
    assert save_and_settle(checkpoints, world, 3, large) is None
    left = sorted(path.name for path in (disk / "checkpoints").iterdir())
    return {"warnings": warnings, "stopped": stopped, "full": full, "left": left}


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_disk_that_is_full_for_a_while(tiny_disk: Path, policy: Policy):
    answers = run_ranks(fill_the_disk, 2, tiny_disk, policy)
    assert answers == [answers[0]] * 2
    answer = answers[0]
    assert answer["full"] == ["step-00000001-0-train"], "the complete one stays, the remains of the other go"
    assert answer["left"] == ["step-00000003-0-train"], "with room again, the next one is written"
    said = answer["stopped"] if policy == "stop" else answer["warnings"][0]
    assert f" on {socket.gethostname()}: " in said
    assert str(tiny_disk / "checkpoints" / ".writing-step-00000002-0-train" / "rank-0000") in said
    assert "No space left on device" in said
    if policy == "stop":
        assert said.endswith("; the checkpoints before it are intact")
        assert answer["warnings"] == []
    else:
        assert answer["stopped"] is None
        assert len(answer["warnings"]) == 1
        assert said.startswith("checkpoint not written: rank ")
        last = tiny_disk / "checkpoints" / "step-00000001-0-train"
        assert said.endswith(f"; going on, the last complete one is {last}")


def full(*arguments: Any, **more: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def second_rank_cannot_write(world: World, directory: Path, policy: Policy) -> list[str]:
    """A disk that is full on one rank's machine alone."""
    warnings: list[str] = []
    checkpoints = writer(world, directory, on_failure=policy, warn=warnings.append)
    real = files.write_tensors
    if world.rank == 1:
        files.write_tensors = full
    try:
        stopped = save_and_settle(checkpoints, world, 5, snapshot(world))
    finally:
        files.write_tensors = real
    assert checkpoints.last is None
    return warnings if stopped is None else [stopped]


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_disk_that_is_full_on_one_rank_alone(tmp_path: Path, policy: Policy):
    good = run_ranks(save, 2, tmp_path, 2)[0]
    file = tmp_path / ".writing-step-00000005-0-train" / "rank-00001.safetensors"
    what = f"rank 1 on {socket.gethostname()}: {file}: No space left on device"
    message = {
        "stop": f"{what}; the checkpoints before it are intact",
        "continue": f"checkpoint not written: {what}; going on, there is no complete one yet",
    }[policy]
    assert run_ranks(second_rank_cannot_write, 2, tmp_path, policy) == [[message]] * 2
    assert list(tmp_path.iterdir()) == [good]


@pytest.mark.parametrize("place", ["write_manifest", "give_name", "remove_old"])
def test_a_disk_that_is_full_when_all_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    from snapshots import ALONE

    good = save(ALONE, tmp_path, 2)
    checkpoints = writer(ALONE, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, place, full)
        assert save_and_settle(checkpoints, ALONE, 5, snapshot(ALONE)) == (
            f"rank 0 on {socket.gethostname()}: {tmp_path / 'step-00000005-0-train'}: No space left on device;"
            " the checkpoints before it are intact"
        )
    remove_old(tmp_path, 2)
    assert good in tmp_path.iterdir()
    assert not list(tmp_path.glob(".*"))


def the_directory_cannot_be_made(world: World, directory: Path, policy: Policy) -> list[str]:
    warnings: list[str] = []
    checkpoints = writer(world, directory, on_failure=policy, warn=warnings.append)
    stopped = save_and_settle(checkpoints, world, 3, snapshot(world))
    return warnings if stopped is None else [stopped]


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_directory_that_cannot_be_made(tmp_path: Path, policy: Policy):
    (tmp_path / "file").touch()
    directory = tmp_path / "file" / "checkpoints"
    unfinished = directory / ".writing-step-00000003-0-train"
    what = (
        f"rank 0 on {socket.gethostname()}: checkpoint directory {unfinished} cannot be made: Not a directory"
    )
    message = {
        "stop": f"{what}; the checkpoints before it are intact",
        "continue": f"checkpoint not written: {what}; going on, there is no complete one yet",
    }[policy]
    assert run_ranks(the_directory_cannot_be_made, 2, directory, policy) == [[message]] * 2
