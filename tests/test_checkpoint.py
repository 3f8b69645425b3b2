"""Checkpoints: complete or absent, exact, and readable on any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ligo_dist.checkpoint import (
    MANIFEST,
    Checkpoint,
    Snapshot,
    latest_checkpoint,
    read_groups,
    remove_unfinished,
    save_checkpoint,
)
from ligo_dist.distributed import World
from ligo_dist.errors import CheckpointError
from ligo_dist.shards import Shards, partition_size, shard_of
from ligo_dist.stages import LEARN, TRAIN, RunState
from ranks import run_ranks

ALONE = World(0, 1, torch.device("cpu"))
SHAPES = {"a.weight": (5, 7), "a.bias": (3,), "scale": (1,), "b": (4, 2)}
GROUPS = ("model", "exp_avg")


def full_tensors() -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        group: {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for group in GROUPS
    }


def snapshot(world: World) -> Snapshot:
    full = full_tensors()
    groups = {
        group: {name: shard_of(tensor, world.rank, world.size) for name, tensor in tensors.items()}
        for group, tensors in full.items()
    }
    return Snapshot(
        groups, {group: {n: t.numel() for n, t in tensors.items()} for group, tensors in full.items()}
    )


def state_at(step: int, stage: int = 0, phase: str = TRAIN) -> RunState:
    state = RunState()
    if stage:
        state.enter(stage, phase)
    state.phase, state.step = phase, step
    state.add(tokens=100, flops=1e9, seconds=2.5)
    return state


def save(
    world: World, directory: Path, step: int = 3, keep: int = 2, stage: int = 0, phase: str = TRAIN
) -> Path:
    state = state_at(step, stage, phase)
    return save_checkpoint(directory, state, step, snapshot(world), {"seed": 1}, keep, world)


def read(world: World, directory: Path) -> dict[str, Shards]:
    checkpoint = latest_checkpoint(directory)
    assert checkpoint is not None
    return read_groups(checkpoint, world, GROUPS)


@pytest.mark.parametrize(("written_on", "read_on"), [(1, 1), (2, 2), (2, 1), (2, 3), (3, 2), (4, 3), (1, 4)])
def test_what_is_written_is_read_exactly_on_any_number_of_ranks(
    written_on: int, read_on: int, tmp_path: Path
):
    paths = run_ranks(save, written_on, tmp_path)
    assert set(paths) == {tmp_path / "step-00000003-0-train"}
    for rank, groups in enumerate(run_ranks(read, read_on, tmp_path)):
        for group, tensors in full_tensors().items():
            assert set(groups[group]) == set(SHAPES)
            for name, tensor in tensors.items():
                shard = groups[group][name]
                assert shard.shape == (partition_size(tensor.numel(), read_on),)
                assert torch.equal(shard, shard_of(tensor, rank, read_on)), (group, name)


def latest(directory: Path) -> Checkpoint:
    checkpoint = latest_checkpoint(directory)
    assert checkpoint is not None
    return checkpoint


def test_the_state_and_the_configuration_come_back(tmp_path: Path):
    save(ALONE, tmp_path, step=7, stage=1, phase=LEARN)
    checkpoint = latest(tmp_path)
    assert checkpoint.state == state_at(7, 1, LEARN)
    assert checkpoint.config == {"seed": 1}
    assert checkpoint.world_size == 1
    assert checkpoint.numels["model/a.weight"] == 35


def test_only_the_groups_that_are_asked_for_are_read(tmp_path: Path):
    save(ALONE, tmp_path)
    assert set(read_groups(latest(tmp_path), ALONE, ("model", "operator"))) == {"model"}


def test_there_may_be_none(tmp_path: Path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nothing") is None


def test_the_newest_counts_and_the_last_few_stay(tmp_path: Path):
    for step in (2, 9, 10, 100):
        save(ALONE, tmp_path, step=step, keep=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000009-0-train", "step-00000010-0-train", "step-00000100-0-train"]
    assert latest(tmp_path).path.name == "step-00000100-0-train"


def test_at_one_global_step_train_comes_after_learn_and_a_new_stage_after_the_old(tmp_path: Path):
    for stage, phase in ((1, TRAIN), (0, TRAIN), (1, LEARN)):
        save(ALONE, tmp_path, step=5, keep=9, stage=stage, phase=phase)
    assert latest(tmp_path).path.name == "step-00000005-1-train"


def test_writing_the_same_one_again_replaces_it(tmp_path: Path):
    first = save(ALONE, tmp_path)
    (first / "leftover").touch()
    assert save(ALONE, tmp_path) == first
    assert sorted(path.name for path in first.iterdir()) == [MANIFEST, "rank-00000.safetensors"]


def test_a_half_written_one_is_never_picked_up(tmp_path: Path):
    good = save(ALONE, tmp_path, step=3)
    half = tmp_path / ".writing-step-00000005-0-train"
    half.mkdir()
    (half / "rank-00000.safetensors").write_bytes(b"half")
    unnamed = tmp_path / "step-00000006-0-train"  # the removal of an old one was cut short
    unnamed.mkdir()
    (unnamed / "rank-00000.safetensors").write_bytes(b"half")
    assert latest(tmp_path).path == good
    remove_unfinished(tmp_path)
    assert not half.exists()
    assert good.exists()
    save(ALONE, tmp_path, step=5)
    assert latest(tmp_path).path.name == "step-00000005-0-train"


def message(tmp_path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(ALONE, tmp_path)
    return str(caught.value)


def test_a_truncated_file_is_named_with_the_way_out(tmp_path: Path):
    older, newest = save(ALONE, tmp_path, step=3), save(ALONE, tmp_path, step=4)
    file = newest / "rank-00000.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(size - 1)
    assert message(tmp_path) == (
        f"damaged checkpoint: {file} has {size - 1} bytes, {size} were written;"
        f" remove {newest} to go on from {older.name}"
    )
    file.unlink()
    assert f"{file} is missing" in message(tmp_path)
    assert older.exists()
    assert newest.exists(), "nothing is removed on the user's behalf"


def test_a_single_damaged_checkpoint_says_that_there_is_no_other(tmp_path: Path):
    path = save(ALONE, tmp_path)
    (path / "rank-00000.safetensors").write_bytes(b"")
    assert message(tmp_path).endswith("there is no older one to go on from")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', "\udcff"])
def test_an_unreadable_manifest_is_named(tmp_path: Path, content: str):
    path = save(ALONE, tmp_path)
    (path / MANIFEST).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert message(tmp_path).startswith(f"damaged checkpoint: {path / MANIFEST} cannot be read (")


def test_another_format_is_named(tmp_path: Path):
    path = save(ALONE, tmp_path)
    values = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**values, "format": 99}))
    assert message(tmp_path) == f"{path / MANIFEST}: format 99, this version reads 1"


def flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def read_message(world: World, directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(world, directory)
    return str(caught.value)


def test_a_file_whose_content_changed_is_an_error_on_every_rank(tmp_path: Path):
    path = run_ranks(save, 2, tmp_path)[0]
    flip_last_byte(path / "rank-00001.safetensors")
    expected = (
        f"damaged checkpoint: {path / 'rank-00001.safetensors'} is not what was written (checksum);"
        f" remove {path} to go on from the one before it"
    )
    assert run_ranks(read_message, 2, tmp_path) == [expected] * 2
    assert run_ranks(read_message, 3, tmp_path) == [expected] * 3


def save_fails(world: World, directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        save(world, directory)
    return str(caught.value)


def test_a_directory_that_cannot_be_made_is_an_error_on_every_rank(tmp_path: Path):
    (tmp_path / "file").touch()
    messages = run_ranks(save_fails, 2, tmp_path / "file" / "checkpoints")
    assert messages[0] == messages[1]
    unfinished = tmp_path / "file" / "checkpoints" / ".writing-step-00000003-0-train"
    assert messages[0] == f"checkpoint directory {unfinished} cannot be made: Not a directory"


def second_rank_cannot_write(world: World, directory: Path) -> str:
    """A disk that is full on one rank's machine alone."""
    from ligo_dist import checkpoint

    def full_disk(tensors: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    real = checkpoint.save_file
    if world.rank == 1:
        checkpoint.save_file = full_disk
    try:
        return save_fails(world, directory)
    finally:
        checkpoint.save_file = real


def test_a_full_disk_on_one_rank_stops_all_and_harms_nothing(tmp_path: Path):
    good = run_ranks(save, 2, tmp_path, 2)[0]
    for text in run_ranks(second_rank_cannot_write, 2, tmp_path):
        assert text.endswith("No space left on device; the checkpoints before it are intact")
    assert latest(tmp_path).path == good
