"""What is written is read exactly, on any number of ranks; what is damaged is seen, reported and never lost."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ligo_dist.checkpoints import MANIFEST, Checkpoint, files, newest_sound, read_groups, remove_leftovers
from ligo_dist.engine import Shards, World, partition_size, shard_of
from ligo_dist.runtime.errors import CheckpointError
from ligo_dist.schedule import LEARN, TRAIN
from ranks import run_ranks
from snapshots import ALONE, GROUPS, SHAPES, full_tensors, save, state_at


def accept_any(checkpoint: Checkpoint) -> None:
    pass


def find(world: World, directory: Path) -> tuple[Path | None, list[str]]:
    checkpoint, reports = newest_sound(directory, accept_any, world)
    return None if checkpoint is None else checkpoint.path, reports


def latest(directory: Path) -> Checkpoint:
    checkpoint, reports = newest_sound(directory, accept_any, ALONE)
    assert checkpoint is not None
    assert reports == []
    return checkpoint


def read(world: World, directory: Path) -> dict[str, Shards]:
    checkpoint, _ = newest_sound(directory, accept_any, world)
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
    assert find(ALONE, tmp_path) == (None, [])
    assert find(ALONE, tmp_path / "nothing") == (None, [])


def test_at_one_global_step_train_comes_after_learn_and_a_new_stage_after_the_old(tmp_path: Path):
    for stage, phase in ((1, TRAIN), (0, TRAIN), (1, LEARN)):
        save(ALONE, tmp_path, step=5, keep=9, stage=stage, phase=phase)
    assert latest(tmp_path).path.name == "step-00000005-1-train"


def test_a_half_written_or_half_removed_one_is_never_picked_up(tmp_path: Path):
    good = save(ALONE, tmp_path, step=3)
    leftovers = [
        tmp_path / ".writing-step-00000005-0-train",
        tmp_path / ".removing-step-00000006-0-train",
        tmp_path / ".removing-step-00000002-0-train",
    ]
    for leftover in leftovers:
        leftover.mkdir()
        (leftover / "rank-00000.safetensors").write_bytes(b"half")
    assert latest(tmp_path).path == good
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [good]
    save(ALONE, tmp_path, step=5)
    assert latest(tmp_path).path.name == "step-00000005-0-train"


def test_what_is_no_checkpoint_by_its_name_is_left_alone(tmp_path: Path):
    good = save(ALONE, tmp_path)
    for name in ("step-00000009-0-train.copy", "step-by-step", "damaged-step-00000009-0-train"):
        (tmp_path / name).mkdir()
    save(ALONE, tmp_path, step=4, keep=1)
    assert not good.exists()
    assert len(list(tmp_path.iterdir())) == 4
    assert latest(tmp_path).path.name == "step-00000004-0-train"


# --- damaged ones ---


def flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 1)


def edit_manifest(file: Path) -> None:
    """A number in it is another: it can still be read."""
    file.write_text(file.read_text().replace('"step": 4', '"step": 5'))


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "cut": ("rank-00000.safetensors", cut, "has {less} bytes, {size} were written"),
    "missing": ("rank-00000.safetensors", Path.unlink, "is missing"),
    "changed": ("rank-00000.safetensors", flip_last_byte, "is not what was written (checksum)"),
    "no manifest": (MANIFEST, Path.unlink, "is missing"),
    "empty manifest": (MANIFEST, lambda file: file.write_text(""), "cannot be read (Expecting value"),
    "cut manifest": (MANIFEST, cut, "cannot be read ("),
    "another manifest": (MANIFEST, lambda file: file.write_text("[]"), "cannot be read ("),
    "strange bytes": (MANIFEST, lambda file: file.write_bytes(b"\xff"), "cannot be read ('utf-8' codec"),
    "changed manifest": (MANIFEST, edit_manifest, "is not what was written (checksum)"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_reported_and_set_aside_and_the_one_before_is_taken(tmp_path: Path, damage: str):
    name, do_damage, said = DAMAGES[damage]
    older, newest = save(ALONE, tmp_path, step=3), save(ALONE, tmp_path, step=4)
    size = (newest / name).stat().st_size
    do_damage(newest / name)
    content = {file.name: file.read_bytes() for file in newest.iterdir()}
    path, (report,) = find(ALONE, tmp_path)
    assert path == older
    assert report.startswith(f"damaged checkpoint: {newest / name} {said.format(size=size, less=size - 1)}")
    assert report.endswith(
        "; set aside as damaged-step-00000004-0-train, going on from step-00000003-0-train"
    )
    assert "\n" not in report
    aside = tmp_path / "damaged-step-00000004-0-train"
    assert {file.name: file.read_bytes() for file in aside.iterdir()} == content, "nothing of it is lost"
    assert sorted(tmp_path.iterdir()) == sorted([aside, older])
    assert find(ALONE, tmp_path) == (older, []), "it is reported once"


UNREADABLE = [
    (MANIFEST, errno.EACCES),
    ("rank-00000.safetensors", errno.EACCES),
    ("rank-00000.safetensors", errno.EIO),
    ("", errno.EACCES),
]


@pytest.mark.parametrize(("name", "number"), UNREADABLE)
def test_what_cannot_be_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
):
    """Another member of the group, a disk that does not answer: nothing is set aside, nor begun anew."""
    save(ALONE, tmp_path, step=3)
    newest = save(ALONE, tmp_path, step=4)
    refused = newest / name if name else tmp_path

    def refuse(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            if Path(path) == refused:
                raise OSError(number, os.strerror(number))
            return real(path, *arguments, **more)

        return call

    monkeypatch.setattr(Path, "open", refuse(Path.open))
    monkeypatch.setattr(Path, "read_text", refuse(Path.read_text))
    monkeypatch.setattr(files.os, "listdir", refuse(os.listdir))
    said = find_message(ALONE, tmp_path)
    monkeypatch.undo()
    assert said == f"{refused} cannot be read: {os.strerror(number)}; nothing says that it is damaged"
    assert find(ALONE, tmp_path) == (newest, []), "it is where it was"


def test_leftovers_that_cannot_be_removed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    leftovers = [
        tmp_path / name for name in (".writing-step-00000005-0-train", ".removing-step-00000002-0-train")
    ]
    for leftover in leftovers:
        leftover.mkdir()

    def busy(path: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(files.shutil, "rmtree", busy)
    assert remove_leftovers(tmp_path) == [
        f"{leftover}, which a run before has left, cannot be removed: Device or resource busy; going on"
        for leftover in leftovers
    ]


def test_the_same_one_damaged_again_does_not_take_the_place_of_the_first(tmp_path: Path):
    save(ALONE, tmp_path, step=3)
    for _ in range(3):
        flip_last_byte(save(ALONE, tmp_path, step=4, keep=9) / "rank-00000.safetensors")
        find(ALONE, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "damaged-step-00000004-0-train",
        "damaged-step-00000004-0-train-2",
        "damaged-step-00000004-0-train-3",
        "step-00000003-0-train",
    ]


@pytest.mark.parametrize("read_on", [1, 2, 3])
def test_the_ranks_share_the_reading_and_agree(tmp_path: Path, read_on: int):
    """Each of the two newest is damaged in the file of another rank."""
    paths = [run_ranks(save, 2, tmp_path, step, 9)[0] for step in (3, 4, 5)]
    flip_last_byte(paths[2] / "rank-00001.safetensors")
    cut(paths[1] / "rank-00000.safetensors")
    answers = run_ranks(find, read_on, tmp_path)
    assert answers == [answers[0]] * read_on
    path, (first, second) = answers[0]
    assert path == paths[0]
    assert f"{paths[2] / 'rank-00001.safetensors'} is not what was written" in first
    assert f"{paths[1] / 'rank-00000.safetensors'} has " in second


def find_message(world: World, directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        find(world, directory)
    return str(caught.value)


def test_where_all_are_damaged_nothing_begins_anew_in_silence(tmp_path: Path):
    older, newest = save(ALONE, tmp_path, step=3), save(ALONE, tmp_path, step=4)
    flip_last_byte(newest / "rank-00000.safetensors")
    (older / MANIFEST).unlink()
    expected = (
        f"no checkpoint in {tmp_path} can be gone on from:\n"
        f"  {newest / 'rank-00000.safetensors'} is not what was written (checksum)\n"
        f"  {older / MANIFEST} is missing\n"
        "put an undamaged copy of one of them back, or move them elsewhere to begin anew"
    )
    assert run_ranks(find_message, 2, tmp_path) == [expected] * 2
    assert find_message(ALONE, tmp_path) == expected, "they stay where they are: the next start says so again"


def test_another_format_is_named_and_not_taken_for_damage(tmp_path: Path):
    save(ALONE, tmp_path, step=3)
    path = save(ALONE, tmp_path, step=4)
    values = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**values, "format": 99}))
    assert find_message(ALONE, tmp_path) == f"{path / MANIFEST}: format 99, this version reads 2"
    assert path.exists()


def test_one_that_is_not_accepted_is_not_read_nor_set_aside(tmp_path: Path):
    save(ALONE, tmp_path, step=3)
    path = save(ALONE, tmp_path, step=4)
    flip_last_byte(path / "rank-00000.safetensors")

    def refuse(checkpoint: Checkpoint) -> None:
        raise CheckpointError("another configuration")

    with pytest.raises(CheckpointError, match="another configuration"):
        newest_sound(tmp_path, refuse, ALONE)
    assert path.exists()
