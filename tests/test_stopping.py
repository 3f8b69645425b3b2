"""Whole runs that are stopped: by signals, for want of nodes, by what breaks; and how they go on."""

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

from ligo_dist.engine.world import World
from ranks import run_ranks
from runs import (
    RunFiles,
    Site,
    assert_same_weights,
    environment,
    has_finished,
    measured,
    run_warm,
    started_by_hand,
    worker_main,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def whole_run(site: Site) -> RunFiles:
    """A run on two ranks that nobody disturbed."""
    files = site.config("whole")
    assert run_warm(files, 2) == (0, "")
    return files


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


@pytest.mark.parametrize(
    ("name", "call", "rank", "where", "newest"),
    [
        ("train_step", 5, 0, "small train step 5 (global step 5)", "step-00000005-0-train"),
        ("train_step", 8, 0, "medium learn step 3 (global step 8)", "step-00000008-1-learn"),
        ("grown_shards", 1, 1, "growing into medium", "step-00000010-1-train"),
    ],
)
def test_a_run_that_one_signalled_rank_stops_goes_on_as_if_it_had_not_been(
    site: Site, whole_run: RunFiles, name: str, call: int, rank: int, where: str, newest: str
):
    files = site.config(f"stopped-{name}-{call}")
    (code, said), (other_code, other_said) = run_ranks(
        run_with_signal, 2, [str(files.config)], name, call, rank, timeout=300
    )
    reason = f"SIGTERM after {where}; the same command goes on from the last checkpoint"
    assert (code, other_code) == (75, 75)
    assert (said, other_said) == (f"ligo-dist: {reason}\n", "")
    assert f"  stopped: {reason}\n" in (files.run_dir / "run.log").read_text()
    assert files.checkpoints()[-1] == newest
    assert files.statuses() == ["KILLED", *(["FINISHED"] if "medium" in where else []), "KILLED"]
    assert run_warm(files, 2) == (0, "")
    assert files.statuses() == ["FINISHED"] * 4
    assert files.numbers() == whole_run.numbers()
    assert_same_weights(files, whole_run)


def test_a_signal_in_the_last_step_of_all_leaves_the_run_to_its_end(site: Site, whole_run: RunFiles):
    files = site.config("last-step")
    answers = run_ranks(run_with_signal, 2, [str(files.config)], "train_step", 25, 0, timeout=300)
    assert answers == [(0, ""), (0, "")]
    assert has_finished(files)
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
    from mlflow.tracking import MlflowClient

    files = site.config("interrupted")
    uri = f"sqlite:///{site.directory / 'mlflow.db'}"
    text = files.config.read_text().replace("mlflow: false", f"mlflow: true, uri: '{uri}'")
    files.config.write_text(text.replace("steps: 5\n", "steps: 5000\n"))
    with started_by_hand(files, 2) as processes:
        wait_for(measured(files, "small", "train", 3), files)
        for process in processes:
            process.send_signal(signal.SIGINT)
        assert [process.wait(120) for process in processes] == [130, 130]
    output = files.config.with_suffix(".out").read_text()
    assert "Traceback" not in output
    assert "  interrupted\n" in output
    assert "  interrupted\n" in (files.run_dir / "run.log").read_text()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("ligo_dist")
    assert experiment is not None
    statuses = [run.info.status for run in client.search_runs([experiment.experiment_id])]
    assert statuses == ["KILLED", "KILLED"]


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

    def launch() -> tuple[int, str]:
        (code, said), other = run_ranks(run_on_nodes, 2, argv, 2, timeout=300)
        assert other == (code, "")
        return code, said

    assert launch() == (
        76,
        "ligo-dist: stage medium is done, and large asks for 3 nodes (stages[2].nodes); there are 2. The same command"
        " on 3 nodes goes on; on fewer it goes on with what it is given\n",
    )
    assert (files.run_dir / "export" / "medium" / "model.safetensors").exists()
    assert files.checkpoints()[-1] == "step-00000015-1-train"
    assert launch() == (0, ""), "it takes what it is given"
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
            "large export exporting transformer.h.6.mlp.c_proj.weight",
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
