"""Saving in the background: nothing is complete before every rank is done, and nothing that comes later gets in."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
import torch

from engines import build_engine, causal
from ligo_dist.checkpoints import MANIFEST, files, newest_sound, read_groups, write_rank_file
from ligo_dist.checkpoints import writer as module
from ligo_dist.engine import World, WrittenFile, barrier, tensor_file
from ligo_dist.training import snapshot_of
from ranks import run_ranks
from small_models import library_model, small_shape, token_ids, weights_of
from snapshots import ALONE, GROUPS, full_tensors, save, snapshot, state_at, writer

FIRST, SECOND = "step-00000003-0-train", "step-00000005-0-train"


@contextmanager
def write_with(replacement: Callable[..., WrittenFile]) -> Iterator[None]:
    """Another way to write a rank's file."""
    real = module.write_rank_file
    module.write_rank_file = replacement
    try:
        yield
    finally:
        module.write_rank_file = real


@contextmanager
def held(world: World, rank: int = 0) -> Iterator[Event]:
    """One rank's files wait for an event before they are written."""
    go_on, real = Event(), module.write_rank_file

    def write(path: Path, *arguments: Any) -> WrittenFile:
        if world.rank == rank:
            assert go_on.wait(60)
        return real(path, *arguments)

    with write_with(write):
        yield go_on


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_save_returns_before_the_file_is_written_and_advance_completes_it(tmp_path: Path):
    checkpoints = writer(ALONE, tmp_path)
    checkpoints.advance()  # nothing is being written
    with held(ALONE) as go_on:
        checkpoints.save(state_at(3), 3, snapshot(ALONE))
        checkpoints.advance()
        assert (names(tmp_path), checkpoints.last) == ([f".writing-{FIRST}"], None)
        assert not (tmp_path / f".writing-{FIRST}" / MANIFEST).exists()
        go_on.set()
        while checkpoints.last is None:
            checkpoints.advance()
    assert (names(tmp_path), checkpoints.last) == ([FIRST], tmp_path / FIRST)
    assert names(tmp_path / FIRST) == [MANIFEST, "rank-00000.safetensors"]


def test_the_state_is_the_one_at_the_time_of_saving(tmp_path: Path):
    checkpoints, state = writer(ALONE, tmp_path), state_at(3)
    with held(ALONE) as go_on:
        checkpoints.save(state, 3, snapshot(ALONE))
        before = copy.deepcopy(state)
        state.step = 4
        state.add(tokens=1, flops=1.0, hardware_flops=1.5, seconds=1.0)
        state.record.final_loss = 7.0
        go_on.set()
        checkpoints.settle()
    checkpoint, _ = newest_sound(tmp_path, lambda checkpoint: None, ALONE)
    assert checkpoint is not None
    assert checkpoint.state == before


def train_while_saving(world: World, directory: Path) -> None:
    model = small_shape("gpt2")
    engine = build_engine(world, "gpt2", model, weights_of(library_model("gpt2", model)))
    batch = causal(token_ids(2))
    engine.train_step(
        [(batch, len(batch["input_ids"]))], world.size * len(batch["input_ids"]), {"model": 1e-2}
    )
    before, after = snapshot_of(engine, "model"), snapshot_of(engine, "model")
    checkpoints = writer(world, directory)
    with held(world, rank=world.rank) as go_on:
        checkpoints.save(state_at(1), 1, after)
        engine.train_step(
            [(batch, len(batch["input_ids"]))], world.size * len(batch["input_ids"]), {"model": 1e-2}
        )
        go_on.set()
        checkpoints.settle()
    checkpoint, _ = newest_sound(directory, lambda checkpoint: None, world)
    assert checkpoint is not None
    read = read_groups(checkpoint, world, ("model", "exp_avg", "exp_avg_sq"))
    changed = engine.read_shards()
    assert any(not torch.equal(changed[name], shard) for name, shard in before.groups["model"].items())
    for group, shards in before.groups.items():
        for name, shard in shards.items():
            assert torch.equal(read[group][name], shard), (group, name)


def test_a_step_that_is_taken_while_it_is_written_does_not_get_in(tmp_path: Path):
    run_ranks(train_while_saving, 2, tmp_path)


def one_rank_is_slow(world: World, directory: Path) -> list[list[str]]:
    checkpoints, seen = writer(world, directory), []
    with held(world, rank=1) as go_on:
        checkpoints.save(state_at(3), 3, snapshot(world))
        for _ in range(3):
            checkpoints.advance()
            barrier()
            seen.append(names(directory))
        go_on.set()
        while checkpoints.last is None:
            checkpoints.advance()
    barrier()
    return [*seen, names(directory)]


def test_it_is_complete_when_the_slowest_rank_is_done_and_on_all_ranks_at_once(tmp_path: Path):
    assert run_ranks(one_rank_is_slow, 2, tmp_path) == [[[f".writing-{FIRST}"]] * 3 + [[FIRST]]] * 2


def test_a_save_waits_for_the_one_before(tmp_path: Path):
    checkpoints = writer(ALONE, tmp_path)
    with held(ALONE) as go_on:
        checkpoints.save(state_at(3), 3, snapshot(ALONE))
        Timer(0.2, go_on.set).start()
        checkpoints.save(state_at(5), 5, snapshot(ALONE))
        assert checkpoints.last == tmp_path / FIRST
        assert checkpoints.settle() == tmp_path / SECOND
    assert names(tmp_path) == [FIRST, SECOND]


def test_a_state_that_is_saved_already_is_not_saved_again(tmp_path: Path):
    checkpoints = writer(ALONE, tmp_path)
    with held(ALONE) as go_on:
        checkpoints.save(state_at(3), 3, snapshot(ALONE))
        go_on.set()
        checkpoints.save(state_at(3), 3, snapshot(ALONE))
        assert names(tmp_path) == [FIRST]
    assert checkpoints.settle() == tmp_path / FIRST


def test_a_resumed_run_that_comes_to_the_same_step_again_replaces_what_is_there(tmp_path: Path):
    first = save(ALONE, tmp_path)
    (first / "leftover").touch()
    assert save(ALONE, tmp_path) == first
    assert names(tmp_path) == [FIRST]
    assert names(first) == [MANIFEST, "rank-00000.safetensors"]


def test_the_last_few_stay(tmp_path: Path):
    checkpoints = writer(ALONE, tmp_path, keep=3)
    for step in (2, 9, 10, 100):
        checkpoints.save(state_at(step), step, snapshot(ALONE))
    assert names(tmp_path)[1:] == ["step-00000002-0-train", "step-00000009-0-train", "step-00000010-0-train"]
    checkpoints.settle()
    assert names(tmp_path) == ["step-00000009-0-train", "step-00000010-0-train", "step-00000100-0-train"]


def test_an_old_one_goes_only_when_the_new_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(ALONE, tmp_path, step=3, keep=1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "remove_old", killed)
    with pytest.raises(KeyboardInterrupt):
        save(ALONE, tmp_path, step=5, keep=1)
    assert names(tmp_path) == [FIRST, SECOND]
    checkpoint, reports = newest_sound(tmp_path, lambda checkpoint: None, ALONE)
    assert checkpoint is not None
    assert (checkpoint.path.name, reports) == (SECOND, [])
    assert set(read_groups(checkpoint, ALONE, GROUPS)["model"]) == set(full_tensors()["model"])


def one_rank_has_a_defect(world: World, directory: Path) -> str:
    def write(*arguments: Any) -> WrittenFile:
        raise TypeError("a defect of the code")

    real = module.write_rank_file
    checkpoints = writer(world, directory, on_failure="continue")
    with write_with(write if world.rank == 1 else real):
        checkpoints.save(state_at(3), 3, snapshot(world))
        with pytest.raises(TypeError) as caught:
            checkpoints.settle()
    return str(caught.value)


def test_a_defect_in_the_thread_is_not_taken_for_a_full_disk(tmp_path: Path):
    assert run_ranks(one_rank_has_a_defect, 2, tmp_path) == ["a defect of the code"] * 2


FAILS_WHILE_WRITING = """
import sys, time
from pathlib import Path
from ligo_dist.checkpoints import writer as module
from snapshots import ALONE, snapshot, state_at, writer
module.write_rank_file = lambda *arguments: time.sleep(3600)
writer(ALONE, Path(sys.argv[1])).save(state_at(3), 3, snapshot(ALONE))
raise RuntimeError("the run fails")
"""


@pytest.mark.slow
def test_a_run_that_fails_does_not_wait_for_its_disk(tmp_path: Path):
    environment = {"PYTHONPATH": ":".join(sys.path), "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", FAILS_WHILE_WRITING, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 1
    assert "RuntimeError: the run fails" in done.stderr


@pytest.mark.parametrize("takes", [[True, True, True], [True, False, False], [False, False, False]])
def test_only_a_disk_that_takes_something_is_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: list[bool]
):
    """The heart beats once when the wait begins, and then for each time that the disk has taken some more."""
    checkpoints, beats = writer(ALONE, tmp_path), []
    waits = iter(takes)
    monkeypatch.setattr(module, "beat", beats.append)
    with held(ALONE) as go_on:
        checkpoints.save(state_at(3), 3, snapshot(ALONE))
        assert checkpoints._pending is not None
        write = checkpoints._pending.write

        def join(seconds: float) -> None:
            match next(waits, None):
                case True:
                    write._advance()
                case None:
                    go_on.set()
                    real(60)

        real = write._thread.join
        monkeypatch.setattr(write._thread, "join", join)
        checkpoints.settle()
    assert len(beats) == 1 + sum(takes)


def test_the_disk_says_how_far_it_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensor_file, "_CHUNK_BYTES", 16)
    taken: list[int] = []
    write_rank_file(tmp_path / "file", {"a": torch.ones(10), "b": torch.ones(5)}, lambda: taken.append(1))
    assert len(taken) == 1 + 3 + 2 + 1, "the header, the parts of each tensor, and when all of it is on disk"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_are_for_whom_the_umask_allows(tmp_path: Path, umask: int):
    before = os.umask(umask)
    try:
        path = save(ALONE, tmp_path / "checkpoints")
        made = [path, *path.iterdir()]
    finally:
        os.umask(before)
    for file in made:
        assert file.stat().st_mode & 0o777 == (0o777 if file.is_dir() else 0o666) & ~umask, file


def test_what_cannot_be_removed_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Held open on a network disk, say: an old checkpoint leaves its name all the same, twice if need be."""
    monkeypatch.setattr(files.shutil, "rmtree", lambda path, ignore_errors=False: None)
    for step in (3, 5):
        save(ALONE, tmp_path, step=step, keep=1)
    save(ALONE, tmp_path, step=3, keep=9)
    save(ALONE, tmp_path, step=9, keep=1)
    assert names(tmp_path) == [
        f".removing-{FIRST}",
        f".removing-{FIRST}-2",
        f".removing-{SECOND}",
        "step-00000009-0-train",
    ]
