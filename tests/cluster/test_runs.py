"""`ligo-dist run --hostfile` over real ssh: the same numbers as on one host, whatever happens to the hosts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster_runs import (
    LAST_STEP,
    MODEL,
    ROOT,
    ClusterRun,
    assert_none_survives,
    command_lines,
    overrides,
    words_of,
)
from runs import MODELS, RunFiles, Site
from testbed import Testbed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    MODELS["cluster"] = MODEL
    yield Site.make(tmp_path_factory.mktemp("cluster"))
    del MODELS["cluster"]


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> RunFiles:
    """The same schedule on as many ranks of this machine alone."""
    files = site.config("undisturbed", "cluster")
    command = [sys.executable, "-m", "launcher", "run", str(files.config), "--nproc", "3", *overrides()]
    environ = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environ.pop("GLOO_SOCKET_IFNAME", None)
    done = subprocess.run(
        [word for word in command if "gloo_interface" not in word],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return files


def assert_same(files: RunFiles, undisturbed: RunFiles, tolerance: float = 0.0) -> None:
    """Every number that was measured, at every step, is the undisturbed run's; with a tolerance, every loss: what
    learning costs depends on the number of ranks."""
    only = "loss" if tolerance else ""
    ours, theirs = files.numbers(only), undisturbed.numbers(only)
    assert ours.keys() == theirs.keys()
    for place, value in ours.items():
        assert value == pytest.approx(theirs[place], rel=tolerance, abs=tolerance), place
    assert max(step for _, _, step, _ in ours) == LAST_STEP


def test_a_whole_schedule_equals_the_one_on_a_single_host(
    testbed: Testbed, site: Site, undisturbed: RunFiles
):
    files = site.config("whole", "cluster")
    planted = "planted-4f1d2c"
    os.environ["MLFLOW_TRACKING_TOKEN"] = planted
    seen: set[str] = set()
    secret_files: dict[str, int] = {}
    try:
        with ClusterRun(testbed, files) as run:
            while run.process.poll() is None:
                seen |= command_lines()
                secret_files |= files_with(planted, files.run_dir)
            assert run.end() == 0, run.said
            assert "3 ranks on node1, node2, node3" in run.said
            assert planted not in run.said
    finally:
        del os.environ["MLFLOW_TRACKING_TOKEN"]
    assert_same(files, undisturbed)
    shown = re.search(r"^  (deepspeed --hostfile .*)$", run.said, re.MULTILINE)
    assert shown is not None
    typed = " ".join(shlex.split(shown[1]))
    assert any(words.endswith(f"/{typed} ") or words.rstrip().endswith(f"/{typed}") for words in seen), (
        "as it says"
    )
    assert not [words for words in seen if planted in words], "ps shows it"
    assert secret_files == {"environment": 0o600}, secret_files
    assert files_with(planted, files.run_dir) == {}, "gone"
    left = sorted(path.name for path in (files.run_dir / "logs/001").glob("rank-*"))
    assert left == [f"rank-0000{rank}.{kind}" for rank in range(3) for kind in ("end", "log")]


def files_with(planted: str, directory: Path) -> dict[str, int]:
    """The files that hold a text, by name, with who may read them."""
    found = {}
    for folder, _, names in os.walk(directory):
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(OSError):
                if planted.encode() in path.read_bytes():
                    found[path.name] = path.stat().st_mode & 0o777
    return found


def hand_typed(testbed: Testbed, files: RunFiles, *more: str) -> tuple[list[str], dict[str, str]]:
    """A `deepspeed` command as one types it for the hosts, and its environment."""
    variables = {"GLOO_SOCKET_IFNAME": "eth0", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    exports = files.config.with_name("deepspeed_env")
    exports.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    environ = {**os.environ, **variables, "DS_ENV_FILE": str(exports)}
    environ["PDSH_SSH_ARGS_APPEND"] = " ".join(testbed.ssh_options)
    command = [str(Path(sys.executable).with_name("deepspeed")), "--hostfile", str(testbed.hostfile())]
    command += ["--no_ssh_check", "--master_addr", testbed.hosts["node1"], "--no_local_rank", "--quiet"]
    return [*command, "--module", "ligo_dist", str(files.config), *overrides(*more)], environ


def test_deepspeed_by_hand_runs_the_same_ranks(testbed: Testbed, site: Site, undisturbed: RunFiles):
    files = site.config("by_hand", "cluster")
    command, environ = hand_typed(testbed, files)
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(files, undisturbed)


# --- faults: each time the run ends as if nothing had happened, and no process survives ---


def test_whatever_strikes_a_run_changes_no_number(testbed: Testbed, site: Site, undisturbed: RunFiles):
    """A rank killed in training, one frozen, all processes of a node killed in learning, a rank killed in growing, a
    link cut: one run, started again each time."""
    files = site.config("struck", "cluster")
    with ClusterRun(testbed, files, ["cluster.max_restarts=5", "cluster.hang_seconds=12.0"]) as run:
        strikes: list[tuple[str, Callable[[], object], str]] = [
            (r"small train +3/8", lambda: os.kill(run.rank(1), signal.SIGKILL), "rank 1 on node2 was killed"),
            (
                r"small train +6/8",
                lambda: os.kill(run.rank(2), signal.SIGSTOP),
                r"rank 2 on node3 was stopped \(SIGSTOP\) at small train",
            ),
            (r"medium learn +3/6", lambda: kill_all_on(testbed, "node2"), "node2 has lost its connection"),
            (
                r"medium learn +6/6 done",
                lambda: os.kill(run.rank(0), signal.SIGKILL),
                "rank 0 on node1 was killed",
            ),
            (r"medium train +3/8", lambda: testbed.cut("node3"), "node3 has lost its connection"),
        ]
        for number, (moment, strike, told) in enumerate(strikes, 1):
            run.wait_for(moment)
            strike()
            run.wait_for(told)
            if number == len(strikes):
                run.wait_for("node3 stays away")
                testbed.mend("node3")
            run.wait_for(f"restart {number} of 5 in .* s from step-")
            run.forget()
        assert run.end() == 0, run.said
    assert_same(files, undisturbed)
    assert not list((files.run_dir / "checkpoints").glob(".writing-*"))


def kill_all_on(testbed: Testbed, node: str) -> None:
    for pid in testbed.all_processes_on(node):
        os.kill(pid, signal.SIGKILL)


def test_a_node_that_stays_away_is_done_without(testbed: Testbed, site: Site, undisturbed: RunFiles):
    files = site.config("fewer", "cluster")
    with ClusterRun(testbed, files, ["cluster.min_nodes=2", "cluster.node_wait_seconds=3.0"]) as run:
        run.wait_for(r"small train +5/8")
        testbed.cut("node3")
        assert run.process.wait(300) == 0, run.said
        assert "going on with 2 of 3 nodes" in run.said
        assert "2 ranks on node1, node2" in run.said
        run.assert_none_survives()
    assert_same(files, undisturbed, 1e-4)


def test_a_killed_launcher_leaves_no_process_and_its_checkpoint(
    testbed: Testbed, site: Site, undisturbed: RunFiles
):
    files = site.config("orphans", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"small train +3/8")
        run.process.kill()
        run.process.wait()
        with ClusterRun(
            testbed, files
        ) as again:  # typed again at once: it waits for ranks of the first that are left
            assert again.end() == 0, again.said
            assert "resumed from " in again.said
        run.assert_none_survives()
    assert_same(files, undisturbed)


def test_a_frozen_rank_of_a_command_typed_by_hand(testbed: Testbed, site: Site):
    """It is the only one of its host, where nothing else would end it."""
    files = site.config("frozen_by_hand", "cluster")
    command, environ = hand_typed(testbed, files, "cluster.hang_seconds=6.0")
    with files.config.with_suffix(".out").open("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
        deadline = time.monotonic() + 240
        while not (files.run_dir / "metrics.jsonl").exists() or len(files.records()) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (rank,) = (pid for pid in testbed.processes_on("node3", "RANK=2") if b"ligo_dist" in words_of(pid))
        os.kill(rank, signal.SIGSTOP)
        assert process.wait(120) != 0
    assert_none_survives(testbed)
    (ends,) = ([json.loads(path.read_text()) for path in (files.run_dir / "logs/001").glob("*.end")],)
    assert {end["rank"]: end["reason"] for end in ends}[2] == "was stopped (SIGSTOP)"


def test_warned_it_goes_on_on_two_hosts_and_on_three_again(
    testbed: Testbed, site: Site, undisturbed: RunFiles
):
    files = site.config("elastic", "cluster")

    def until(what: str, nodes: tuple[str, ...], signum: signal.Signals) -> None:
        with ClusterRun(testbed, files, nodes=nodes) as run:
            run.wait_for(what)
            run.process.send_signal(signum)
            assert run.end() == 75, run.said

    until(r"small train +5/8", ("node1", "node2", "node3"), signal.SIGTERM)
    until(r"medium learn +3/6", ("node2", "node3"), signal.SIGUSR1)
    with ClusterRun(testbed, files) as run:
        assert run.end() == 0, run.said
    assert_same(files, undisturbed, 1e-4)
