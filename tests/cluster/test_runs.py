"""`ligo-dist run --hostfile` over real ssh: the same numbers as on one host, whatever happens to the hosts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster_runs import LAST_STEP, MODEL, ROOT, ClusterRun, overrides
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
    try:
        with ClusterRun(testbed, files) as run:
            while run.process.poll() is None:
                seen |= command_lines()
            assert run.end() == 0, run.said
            assert "3 ranks on node1, node2, node3" in run.said
            assert planted not in run.said
    finally:
        del os.environ["MLFLOW_TRACKING_TOKEN"]
    assert_same(files, undisturbed)
    assert any("launcher.agent" in words for words in seen)
    assert not [words for words in seen if planted in words], "ps shows it"
    for path in files.run_dir.rglob("*"):
        assert path.is_dir() or planted.encode() not in path.read_bytes(), path
    logs = sorted(path.name for path in (files.run_dir / "logs/001").iterdir())
    assert logs == ["connections.log", *(f"rank-0000{rank}.log" for rank in range(3))]


def command_lines() -> set[str]:
    """What `ps` would show."""
    lines = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines


def test_through_pdsh(testbed: Testbed, site: Site, undisturbed: RunFiles):
    files = site.config("pdsh", "cluster")
    with ClusterRun(testbed, files, ["cluster.transport=pdsh"]) as run:
        assert run.end() == 0, run.said
    assert_same(files, undisturbed)
    assert not list(files.run_dir.glob(".launch-*"))


def test_deepspeed_by_hand_runs_the_same_worker(testbed: Testbed, site: Site, undisturbed: RunFiles):
    files = site.config("by_hand", "cluster")
    variables = {"GLOO_SOCKET_IFNAME": "eth0", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    exports = files.config.with_name("deepspeed_env")
    exports.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    environ = {**os.environ, **variables, "DS_ENV_FILE": str(exports)}
    environ["PDSH_SSH_ARGS_APPEND"] = " ".join(testbed.ssh_options)
    command = [str(Path(sys.executable).with_name("deepspeed")), "--hostfile", str(testbed.hostfile())]
    command += ["--no_ssh_check", "--master_addr", testbed.hosts["node1"], "--no_local_rank", "--quiet"]
    command += ["--module", "ligo_dist", str(files.config), *overrides()]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(files, undisturbed)


# --- faults: each time the run ends as if nothing had happened, and no process survives ---


def test_a_killed_rank(testbed: Testbed, site: Site, undisturbed: RunFiles, record_time_lost: Recorder):
    files = site.config("killed_train", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"small train +5/8")
        os.kill(run.rank(1), signal.SIGKILL)
        assert run.end() == 0, run.said
        assert "rank 1 on node2 was killed by SIGKILL at " in run.said
        assert "restart 1 of 3 in 0.5 s from step-" in run.said
        record_time_lost("rank killed in train", run)
    assert_same(files, undisturbed)


def test_a_killed_rank_while_learning(
    testbed: Testbed, site: Site, undisturbed: RunFiles, record_time_lost: Recorder
):
    files = site.config("killed_learn", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"medium learn +3/6")
        os.kill(run.rank(2), signal.SIGKILL)
        assert run.end() == 0, run.said
        assert "rank 2 on node3 was killed by SIGKILL at " in run.said
        record_time_lost("rank killed in learn", run)
    assert_same(files, undisturbed)


def test_a_killed_rank_while_growing(
    testbed: Testbed, site: Site, undisturbed: RunFiles, record_time_lost: Recorder
):
    files = site.config("killed_grow", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"medium learn +6/6 done")
        os.kill(run.rank(0), signal.SIGKILL)
        assert run.end() == 0, run.said
        assert "rank 0 on node1 was killed by SIGKILL" in run.said
        record_time_lost("rank killed in grow", run)
    assert_same(files, undisturbed)


def test_a_killed_rank_while_a_checkpoint_is_written(
    testbed: Testbed, site: Site, undisturbed: RunFiles, record_time_lost: Recorder
):
    files = site.config("killed_checkpoint", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"small train +2/8")
        pid = run.rank(1)
        run.wait_for(lambda: list((files.run_dir / "checkpoints").glob(".writing-*")))
        os.kill(pid, signal.SIGKILL)
        assert run.end() == 0, run.said
        assert "rank 1 on node2 was killed by SIGKILL" in run.said
        record_time_lost("rank killed in checkpoint", run)
    assert_same(files, undisturbed)
    assert not list((files.run_dir / "checkpoints").glob(".writing-*"))


def test_all_processes_of_a_node_are_killed(
    testbed: Testbed, site: Site, undisturbed: RunFiles, record_time_lost: Recorder
):
    files = site.config("killed_node", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"small train +5/8")
        for pid in testbed.all_processes_on("node2"):
            os.kill(pid, signal.SIGKILL)
        assert run.end() == 0, run.said
        assert "node2 has lost its agent" in run.said
        record_time_lost("node killed", run)
    assert_same(files, undisturbed)


def test_a_frozen_rank(testbed: Testbed, site: Site, undisturbed: RunFiles, record_time_lost: Recorder):
    files = site.config("frozen", "cluster")
    with ClusterRun(testbed, files, ["cluster.hang_seconds=12.0"]) as run:
        run.wait_for(r"small train +5/8")
        os.kill(run.rank(2), signal.SIGSTOP)
        assert run.end() == 0, run.said
        assert "rank 2 on node3 was stopped (SIGSTOP) at small train" in run.said
        record_time_lost("rank frozen", run)
    assert_same(files, undisturbed)


def test_a_cut_link(testbed: Testbed, site: Site, undisturbed: RunFiles, record_time_lost: Recorder):
    files = site.config("cut", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"small train +5/8")
        testbed.cut("node3")
        run.wait_for("node3 (has not been heard of|has lost its agent)")
        run.wait_for("node3 stays away")
        testbed.mend("node3")
        assert run.end() == 0, run.said
        record_time_lost("link cut", run)
    assert_same(files, undisturbed)


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


def test_a_warned_launcher_writes_a_checkpoint_and_asks_for_a_requeue(
    testbed: Testbed, site: Site, undisturbed: RunFiles, record_time_lost: Recorder
):
    files = site.config("warned", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"small train +5/8")
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 75, run.said
        spent = run.seconds
    with ClusterRun(testbed, files) as run:
        assert run.end() == 0, run.said
        run.began -= spent
        record_time_lost("launcher warned", run)
    assert_same(files, undisturbed)


def test_ctrl_c_leaves_no_process_on_any_host(testbed: Testbed, site: Site):
    with ClusterRun(testbed, site.config("interrupted", "cluster")) as run:
        run.wait_for(r"small train +3/8")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 130, run.said


def test_a_killed_launcher_leaves_no_process_on_any_host(testbed: Testbed, site: Site):
    files = site.config("orphans", "cluster")
    with ClusterRun(testbed, files) as run:
        run.wait_for(r"small train +3/8")
        run.process.kill()
        run.process.wait()
        run.assert_none_survives()
    assert any(path.name > "step-00000003" for path in (files.run_dir / "checkpoints").glob("step-*")), (
        "saved"
    )


def test_resuming_on_two_hosts_and_on_three_again(testbed: Testbed, site: Site, undisturbed: RunFiles):
    files = site.config("elastic", "cluster")

    def until(what: str, nodes: tuple[str, ...]) -> None:
        with ClusterRun(testbed, files, nodes=nodes) as run:
            run.wait_for(what)
            run.process.send_signal(signal.SIGUSR1)
            assert run.end() == 75, run.said

    until(r"small train +4/8", ("node1", "node2", "node3"))
    until(r"small train +6/8", ("node1", "node2"))
    until(r"medium learn +2/6", ("node1", "node2", "node3"))
    until(r"medium learn +4/6", ("node2", "node3"))
    with ClusterRun(testbed, files) as run:
        assert run.end() == 0, run.said
    assert_same(files, undisturbed, 1e-4)


Recorder = Callable[[str, ClusterRun], None]


@pytest.fixture(scope="module")
def record_time_lost(undisturbed: RunFiles, request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """Takes what each fault cost, beside the first run on the hosts; all of it is printed at the end."""
    rows: list[str] = []
    yield lambda fault, run: rows.append(f"  {fault:<28} {run.seconds:6.1f} s for the whole run")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\ntime of runs that were disturbed:", *rows, sep="\n")
