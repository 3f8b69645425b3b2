"""Whole runs that are stopped: by kills, by signals, for want of nodes, by what breaks; and how they go on."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main as launch
from ligo_dist.engine import World
from ranks import run_ranks
from runs import (
    ROOT,
    RunFiles,
    Site,
    assert_same_weights,
    checkpointed,
    environment,
    has_finished,
    measured,
    started_by_hand,
    worker_main,
)

pytestmark = pytest.mark.slow


# --- SIGKILL ---


def kill_when(files: RunFiles, moment: Callable[[], bool], timeout: float = 120.0) -> None:
    """Start the run on two ranks and SIGKILL all of it when the moment has come."""
    with started_by_hand(files, 2) as processes:
        deadline = time.monotonic() + timeout
        while not moment():
            output = files.config.with_suffix(".out")
            assert time.monotonic() < deadline, f"the moment never came\n{output.read_text()}"
            assert all(process.poll() is None for process in processes), output.read_text()
            time.sleep(0.0005)
    assert all(process.returncode == -9 for process in processes)


def assert_part_of(files: RunFiles, reference: RunFiles) -> None:
    expected = reference.numbers()
    for key, value in files.numbers().items():
        assert value == expected[key], key


def kill_in_every_phase(files: RunFiles, whole_run: RunFiles) -> None:
    """Kill and resume a run while it learns, grows and trains; what it leaves is a part of the undisturbed one."""
    # Checkpoints come every second step, and are complete some steps later: those are lost and taken again.
    kill_when(files, checkpointed(files, "step-00000007-1-learn"))
    assert measured(files, "medium", "learn", 8)()
    assert_part_of(files, whole_run)
    kill_when(files, checkpointed(files, "step-00000010-1-learn"))
    assert not checkpointed(files, "step-*-1-train")(), "it was too late: the grown model is saved already"
    assert_part_of(files, whole_run)
    # In `train`. A checkpoint of this size is written in milliseconds: perhaps it is complete just in time.
    for _ in range(5):
        kill_when(files, checkpointed(files, ".writing-step-000000[12][24]-?-train"))
        if checkpointed(files, ".writing-*")():
            break
    assert checkpointed(files, ".writing-*")()
    assert_part_of(files, whole_run)


def test_a_run_killed_in_every_phase_ends_as_if_it_had_not_been(
    site: Site, whole_run: RunFiles, capsys: pytest.CaptureFixture[str]
):
    """The last leg is the command that `--dry-run` prints, typed by hand."""
    files = site.config("killed")
    kill_in_every_phase(files, whole_run)
    assert launch(["run", str(files.config), "--nproc", "2", "--dry-run"]) == 0
    dry = capsys.readouterr().out
    (command,) = (line for line in dry.splitlines() if " --module ligo_dist " in line)
    assert "nothing was started" in dry
    typed = subprocess.run(
        command,
        shell=True,
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert typed.returncode == 0, typed.stderr
    assert "resumed from" in typed.stdout
    assert files.numbers() == whole_run.numbers()
    assert_same_weights(files, whole_run)
    assert not checkpointed(files, ".writing-*")()


# --- SIGTERM and what else is polite ---


def run_with_signal(world: World, argv: list[str], name: str, call: int, rank: int) -> tuple[int, str]:
    """A run in which one rank is signalled, at the n-th call of a function of the grower's or of the engine's step."""
    from ligo_dist.engine import Engine
    from ligo_dist.training import grower

    owner: Any = Engine if name == "train_step" else grower
    function, calls = getattr(owner, name), 0

    def signalling(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and world.rank == rank:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **keywords)

    setattr(owner, name, signalling)
    try:
        return worker_main(world, argv)
    finally:
        setattr(owner, name, function)


LEGS = (  # the function and its call in this leg, the rank, where the run is then, its newest checkpoint
    ("train_step", 5, 0, "small train step 5 (global step 5)", "step-00000005-0-train"),
    ("train_step", 3, 0, "medium learn step 3 (global step 8)", "step-00000008-1-learn"),
    ("grown_shards", 1, 1, "growing into medium", "step-00000010-1-train"),
)


def test_a_run_that_one_signalled_rank_stops_goes_on_as_if_it_had_not_been(site: Site, whole_run: RunFiles):
    """Again and again; and a signal in the last step of all leaves the run to its end."""
    files = site.config("signalled")
    argv = [str(files.config)]
    for name, call, rank, where, newest in LEGS:
        answers = run_ranks(run_with_signal, 2, argv, name, call, rank, timeout=300)
        reason = f"SIGTERM after {where}; the same command goes on from the last checkpoint"
        assert answers == [(75, f"ligo-dist: {reason}\n"), (75, "")]
        assert f"  stopped: {reason}\n" in (files.run_dir / "run.log").read_text()
        assert files.checkpoints()[-1] == newest
        assert files.statuses() == ["KILLED", *(["FINISHED"] if "medium" in where else []), "KILLED"]
    answers = run_ranks(run_with_signal, 2, argv, "train_step", 15, 0, timeout=300)
    assert answers == [(0, ""), (0, "")]
    assert has_finished(files)
    assert files.statuses() == ["FINISHED"] * 4
    assert files.numbers() == whole_run.numbers()
    assert_same_weights(files, whole_run)


def handles(process: subprocess.Popen[bytes], signum: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    assert mask is not None
    return bool(int(mask[1], 16) >> (signum - 1) & 1)


def wait_for(moment: Callable[[], bool], files: RunFiles, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < deadline, files.config.with_suffix(".out").read_text()
        time.sleep(0.005)


def test_a_signal_before_training_ends_a_rank_at_once(site: Site):
    files = site.config("early")
    with started_by_hand(files, 2) as processes:
        first, second = processes
        wait_for(lambda: handles(first, signal.SIGTERM) and handles(second, signal.SIGHUP), files)
        first.send_signal(signal.SIGTERM)
        second.send_signal(signal.SIGHUP)
        assert [process.wait(60) for process in processes] == [75, 75]
    said = files.config.with_suffix(".out").read_text()  # of both: their line ends may come together
    host = socket.gethostname()
    assert f"ligo-dist: rank 1 on {host}: stopped by SIGHUP before training; the same command goes on" in said
    assert "ligo-dist: stopped by SIGTERM before training; the same command goes on" in said
    assert "Traceback" not in said
    assert not files.run_dir.exists()


# --- SIGINT ---


def test_an_interrupt_ends_all_ranks_at_once_without_a_traceback(site: Site):
    files = site.config("interrupted")
    files.config.write_text(files.config.read_text().replace("steps: 5\n", "steps: 5000\n"))
    with started_by_hand(files, 2) as processes:
        wait_for(measured(files, "small", "train", 3), files)
        for process in processes:
            process.send_signal(signal.SIGINT)
        assert [process.wait(120) for process in processes] == [130, 130]
    output = files.config.with_suffix(".out").read_text()
    assert "Traceback" not in output
    assert "  interrupted\n" in output
    assert "  interrupted\n" in (files.run_dir / "run.log").read_text()
    assert files.statuses() == ["KILLED", "KILLED"]


# --- more nodes ---


def run_on_nodes(world: World, argv: list[str], nodes: int) -> tuple[int, str]:
    os.environ["CROSS_SIZE"] = str(nodes)
    try:
        return worker_main(world, argv)
    finally:
        del os.environ["CROSS_SIZE"]


def test_a_stage_that_asks_for_more_nodes_stops_the_run_before_it_once(site: Site, whole_run: RunFiles):
    files = site.config("nodes")
    argv = [str(files.config), "stages[1].nodes=2", "stages[2].nodes=3", "checkpoints.export_stages=true"]

    def on_two_nodes() -> tuple[int, str]:
        (code, said), other = run_ranks(run_on_nodes, 2, argv, 2, timeout=300)
        assert other == (code, "")
        return code, said

    assert on_two_nodes() == (
        76,
        "ligo-dist: stage medium is done, and large asks for 3 nodes (stages[2].nodes); there are 2. The same command"
        " on 3 nodes goes on; on fewer it goes on with what it is given\n",
    )
    assert (files.run_dir / "export" / "medium" / "model.safetensors").exists()
    assert files.checkpoints()[-1] == "step-00000015-1-train"
    assert on_two_nodes() == (0, ""), "it takes what it is given"
    assert files.numbers() == whole_run.numbers()
    assert_same_weights(files, whole_run)


# --- the heartbeat ---


def run_noting_beats(world: World, argv: list[str]) -> tuple[int, list[str]]:
    """A run in which every beat counts, and where it was at each of them."""
    from ligo_dist.runtime import heartbeat

    tell, seconds, places = heartbeat.watchdog.tell, heartbeat.SECONDS, []

    def noting(**facts: Any) -> None:
        if "doing" in facts:
            places.append(heartbeat.where())

    heartbeat.watchdog.tell, heartbeat.SECONDS = noting, 0.0
    try:
        code, _ = worker_main(world, argv)
    finally:
        heartbeat.watchdog.tell, heartbeat.SECONDS = tell, seconds
    return code, places


def test_whatever_takes_time_is_a_beat_on_every_rank(site: Site):
    argv = [str(site.config("beats").config)]
    for code, places in run_ranks(run_noting_beats, 2, argv, timeout=300):
        assert code == 0
        assert places[-1].startswith("large export ")
        assert {
            *(f"small train step {n}" for n in range(1, 6)),
            *(f"large learn step {n}" for n in range(1, 6)),
            "medium train evaluating after step 3",
            "medium grow applying the operator",
            "medium grow evaluating",
            "medium grow growing exp_avg_sq",
            "large grow comparing with the source",
            "large export exporting transformer.h.4.mlp.c_proj.weight",
        } <= set(places), sorted(set(places))
    for _, places in run_ranks(run_noting_beats, 2, argv, timeout=300):
        assert "resume reading model/transformer.wte.weight" in places


# --- what breaks ---


def test_a_rank_that_cannot_prepare_says_so_itself_and_all_stop(site: Site):
    files = site.config("one-cannot")
    answers = run_ranks(run_with_own_config, 2, [str(files.config), f"{files.config}.missing"])
    assert [code for code, _ in answers] == [2, 2]
    (_, first), (_, second) = answers
    assert first == ""
    assert second.startswith(f"ligo-dist: rank 1 on {socket.gethostname()}: ")
    assert f"{files.config}.missing" in second


def run_with_own_config(world: World, configs: list[str]) -> tuple[int, str]:
    return worker_main(world, [configs[world.rank]])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("RuntimeError('broken')", 1, "[rank 0] failed on {host} at: small train step 2"),
        (
            "__import__('ligo_dist.runtime.errors').runtime.errors.DataError('no image')",
            2,
            "ligo-dist: no image",
        ),
    ],
)
def test_what_breaks_in_training_is_told_with_its_place(site: Site, error: str, code: int, said: str):
    files = site.config(f"broken-{code}")
    body = f"""
import sys
from ligo_dist import __main__
from ligo_dist.training import loop

def broken(items, where, beating=loop.beating):
    yield from beating(items, where)
    if where == "step 2":
        raise {error}

loop.beating = broken
sys.exit(__main__.main([{str(files.config)!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", body], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1] == said.format(host=socket.gethostname())
    assert ("[rank 0] Traceback (most recent call last):" in lines) == (code == 1)
