"""Whole runs and their checkpoints: damaged ones, a full disk, another number of ranks at each start."""

from __future__ import annotations

import errno
import math
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from ligo_dist.checkpoints import read_manifest
from ligo_dist.engine import World, WrittenFile
from ligo_dist.runtime.errors import CANNOT_GO_ON, MISTAKE
from ligo_dist.tracking import read_state
from ranks import run_ranks
from runs import RunFiles, Site, run_warm, worker_main

pytestmark = pytest.mark.slow

Groups = list[tuple[str, float, float]]
"""Kind, learning rate and weight decay of each of the optimizer's groups."""


def run_on(world: World, argv: list[str], native: bool, stop_at: int | None) -> int:
    """The worker on a rank that computes bf16 natively, or does not."""
    from ligo_dist.training import run

    real, run.has_native_bf16 = run.has_native_bf16, lambda device: native
    try:
        return run_and_note(world, argv, stop_at)[0]
    finally:
        run.has_native_bf16 = real


def run_and_note(world: World, argv: list[str], stop_at: int | None = None) -> tuple[int, list[Groups]]:
    """The worker on one rank: its exit code, and the optimizer's groups at each step that it took.

    Args:
        world: the ranks.
        argv: of the worker.
        stop_at: the step, of those taken here, whose loss is no number, so that the run stops; None: it comes to
            its end.
    """
    from ligo_dist.engine import Engine, StepResult

    real, taken = Engine.train_step, []

    def step(engine: Engine, *arguments: Any) -> StepResult:
        result = real(engine, *arguments)
        groups = engine._engine.optimizer.param_groups
        taken.append([(group["kind"], group["lr"], group["weight_decay"]) for group in groups])
        return StepResult(math.nan, 1.0) if len(taken) == stop_at else result

    Engine.train_step = step  # type: ignore[method-assign]
    try:
        code, _ = worker_main(world, argv)
    finally:
        Engine.train_step = real  # type: ignore[method-assign]
    return code, taken


@pytest.fixture(scope="module")
def noted_run(site: Site) -> tuple[RunFiles, list[Groups]]:
    """A run on two ranks that nobody disturbed: five steps of `train`, five of `learn`, five of `train`."""
    files = site.config("whole-two-stages", "two stages")
    (code, taken), _ = run_ranks(run_and_note, 2, [str(files.config)], timeout=300)
    assert (code, len(taken)) == (0, 15)
    return files, taken


@pytest.fixture(scope="module")
def whole_run(noted_run: tuple[RunFiles, list[Groups]]) -> RunFiles:
    return noted_run[0]


def assert_same_run(files: RunFiles, reference: RunFiles) -> None:
    """Bit by bit."""
    assert files.numbers() == reference.numbers()
    weights, expected = files.weights("large"), reference.weights("large")
    assert set(weights) == set(expected)
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name


def log(files: RunFiles) -> str:
    return (files.run_dir / "run.log").read_text()


# --- another number of ranks ---

LEGS = (  # ranks, the step of this leg that stops it, steps of the run that its checkpoint has
    (3, 9, 0),  # in `learn`
    (2, 3, 7),  # in `learn` again
    (3, 4, 9),  # over the growth, into `train`
    (2, 3, 12),
    (3, None, 14),
)


def test_the_number_of_ranks_may_change_at_any_start_in_any_phase(
    site: Site, noted_run: tuple[RunFiles, list[Groups]]
):
    """Weights, moments, the frozen source and its moments are cut anew each time; the groups are as they were."""
    whole_run, expected = noted_run
    files = site.config("elastic", "two stages")
    for ranks, stop_at, done in LEGS:
        if done:
            newest = files.run_dir / "checkpoints" / files.checkpoints()[-1]
            assert newest.name.startswith(f"step-{done:08d}-")
            assert read_manifest(newest).world_size != ranks
        answers = run_ranks(run_and_note, ranks, [str(files.config)], stop_at, timeout=300)
        assert {code for code, _ in answers} == {CANNOT_GO_ON if stop_at else 0}
        for _, taken in answers:
            assert taken == expected[done : done + len(taken)]
    assert files.numbers("loss") == pytest.approx(whole_run.numbers("loss"), abs=1e-4)
    assert files.numbers("cumulative/tokens") == whole_run.numbers("cumulative/tokens")
    for name, weight in whole_run.weights("large").items():
        torch.testing.assert_close(files.weights("large")[name], weight, atol=1e-4, rtol=0)


def test_the_groups_differ(noted_run: tuple[RunFiles, list[Groups]]):
    """Else the test above would show nothing of them."""
    _, taken = noted_run
    (depth, depth_rate, _), (width, width_rate, decay) = taken[8]
    assert (depth, width, decay) == ("depth", "width", 0.05)
    assert depth_rate == width_rate
    (_, rate, decay), (_, other_rate, no_decay) = taken[12]
    assert (rate, decay, no_decay) == (other_rate, 0.1, 0.0)


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_run_keeps_the_precision_that_it_began_with(site: Site, native: bool, precision: str):
    """On a machine where `auto` would be another one; checkpoints and records say what it is."""
    files = site.config(f"auto-{precision}", "two stages")
    argv = [str(files.config), "precision=auto"]
    for here, stop_at in ((native, 4), (not native, None)):
        (code,) = run_ranks(run_on, 1, argv, here, stop_at, timeout=300)
        assert code == (CANNOT_GO_ON if stop_at else 0)
        newest = files.run_dir / "checkpoints" / files.checkpoints()[-1]
        assert read_manifest(newest).config["precision"] == precision
    begun, resumed = (line for line in log(files).splitlines() if "precision:" in line)
    assert f"precision: {precision}, " in begun
    assert f"precision: {precision}, as the run began; begun here it would be" in resumed
    state = read_state(files.run_dir)
    assert state is not None
    assert {run.parameters["precision"] for _, run in state.runs() if "precision" in run.parameters} == {
        precision
    }


# --- damaged ---


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_reported_and_the_run_goes_on_from_the_one_before(whole_run: RunFiles):
    files = whole_run.copy("damaged")
    older, newest = (files.run_dir / "checkpoints" / name for name in files.checkpoints())
    file = newest / "rank-00001.safetensors"
    damage(file)
    content = file.read_bytes()
    assert run_warm(files, 2) == (0, "")
    said = log(files)
    assert (
        f"  damaged checkpoint: {file} is not what was written (checksum);"
        f" set aside as damaged-{newest.name}, going on from {older.name}\n"
    ) in said
    assert f"resumed from {older}\n" in said
    assert (newest.with_name(f"damaged-{newest.name}") / file.name).read_bytes() == content
    assert_same_run(files, whole_run)


def test_where_every_checkpoint_is_damaged_the_run_does_not_begin_anew(whole_run: RunFiles):
    files = whole_run.copy("all-damaged")
    older, newest = (files.run_dir / "checkpoints" / name for name in files.checkpoints())
    damage(newest / "rank-00001.safetensors")
    (older / "rank-00000.safetensors").unlink()
    before = files.contents()
    for world_size in (2, 1):
        code, said = run_warm(files, world_size)
        assert code == MISTAKE
        assert said == (
            f"ligo-dist: no checkpoint in {newest.parent} can be gone on from:\n"
            f"  {newest / 'rank-00001.safetensors'} is not what was written (checksum)\n"
            f"  {older / 'rank-00000.safetensors'} is missing\n"
            "put an undamaged copy of one of them back, or move them elsewhere to begin anew\n"
        )
    assert files.contents() == before


# --- a full disk ---


def run_with_a_full_disk(world: World, argv: list[str], writes: int) -> tuple[int, str]:
    """The worker on a disk that is full, for the second rank, when it comes to its `writes`th file; and only then."""
    from ligo_dist.checkpoints import files

    real, count = files.write_tensors, 0

    def write_tensors(path: Path, tensors: Any, **more: Any) -> WrittenFile:
        nonlocal count
        count += 1
        if world.rank == 1 and count == writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, tensors, **more)

    files.write_tensors = write_tensors
    try:
        return worker_main(world, argv)
    finally:
        files.write_tensors = real


def test_a_full_disk_stops_the_run_and_it_goes_on_when_there_is_room(site: Site, whole_run: RunFiles):
    files = site.config("full-disk", "two stages")
    answers = run_ranks(run_with_a_full_disk, 2, [str(files.config)], 5)
    assert [code for code, _ in answers] == [MISTAKE, MISTAKE]
    assert answers[0][1].startswith(f"ligo-dist: rank 1 on {socket.gethostname()}: {files.run_dir}")
    assert answers[0][1].endswith(": No space left on device; the checkpoints before it are intact\n")
    assert len(files.checkpoints()) == 2
    assert not list((files.run_dir / "checkpoints").glob(".*"))
    assert run_warm(files, 2) == (0, "")
    assert_same_run(files, whole_run)


def run_with_a_failing_export(world: World, argv: list[str], error: Exception) -> tuple[int, str, int]:
    """The worker, whose first rank cannot write its export; and the steps that it takes."""
    from ligo_dist.engine import Engine
    from ligo_dist.huggingface import writer

    def fail(*arguments: Any) -> None:
        raise error

    real, real_step, taken = writer.write_tensors, Engine.train_step, []

    def step(engine: Engine, *arguments: Any) -> Any:
        taken.append(1)
        return real_step(engine, *arguments)

    writer.write_tensors = fail
    Engine.train_step = step  # type: ignore[method-assign]
    try:
        return *worker_main(world, argv), len(taken)
    finally:
        writer.write_tensors, Engine.train_step = real, real_step  # type: ignore[method-assign]


def test_an_export_that_fails_costs_no_step(whole_run: RunFiles):
    """A disk that is full when the training is done, as Python tells it and as Rust does, and something in the way."""
    files = whole_run.copy("no-export")
    shutil.rmtree(files.run_dir / "export")
    shutil.rmtree(files.run_dir / "checkpoints" / files.checkpoints()[-1])  # so that one step is left
    errors = [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        Exception("No space left on device (os error 28)"),
        NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(files.run_dir / "export")),
    ]
    for error, steps in zip(errors, (1, 0, 0), strict=True):
        answers = run_ranks(run_with_a_failing_export, 2, [str(files.config)], error, timeout=300)
        assert [(code, taken) for code, _, taken in answers] == [(MISTAKE, steps)] * 2
        said = answers[0][1]
        assert said.startswith(f"ligo-dist: export {files.run_dir / 'export' / 'large'} cannot be written: ")
        newest = files.run_dir / "checkpoints" / files.checkpoints()[-1]
        assert said.endswith(f"; the same command goes on from {newest}\n")
        assert (said.count("\n"), answers[1][1]) == (1, "")
    assert run_warm(files, 2) == (0, "")
    assert_same_run(files, whole_run)


def test_a_run_may_go_on_without_the_checkpoint_that_a_full_disk_has_no_room_for(
    site: Site, whole_run: RunFiles
):
    files = site.config("full-disk-goes-on", "two stages")
    argv = [str(files.config), "checkpoints.on_failure=continue"]
    assert run_ranks(run_with_a_full_disk, 2, argv, 5) == [(0, ""), (0, "")]
    warned = [line for line in log(files).splitlines() if "not written" in line]
    assert len(warned) == 1
    assert f"checkpoint not written: rank 1 on {socket.gethostname()}: " in warned[0]
    assert "No space left on device; going on, the last complete one is " in warned[0]
    assert_same_run(files, whole_run)
    assert files.checkpoints() == whole_run.checkpoints()


def test_what_is_in_the_way_of_the_export_is_told_before_training(site: Site):
    files = site.config("in-the-way")
    (files.run_dir / "export").mkdir(parents=True)
    (files.run_dir / "export" / "large").touch()
    code, said = run_warm(files, 2)
    assert code == 2
    assert "large is no directory, and in the way of an export of that name" in said
    assert files.checkpoints() == []
