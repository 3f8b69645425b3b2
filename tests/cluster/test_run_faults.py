"""Hosts, ranks and launchers that go while a run is on three hosts: it ends as if nothing had happened, and no process
survives."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from cluster_runs import ClusterRun, assert_same
from runs import RunFiles, Site
from testbed import Testbed


def test_whatever_strikes_a_run_changes_no_number(testbed: Testbed, site: Site, undisturbed: RunFiles):
    """A rank frozen in training, all processes of a node killed in learning, a rank killed in growing, a link cut: one
    run, started again each time."""
    files = site.config("struck", "cluster")
    with ClusterRun(testbed, files, ["cluster.max_restarts=4", "cluster.hang_seconds=12.0"]) as run:
        strikes: list[tuple[str, Callable[[], object], str]] = [
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
            run.wait_for(f"restart {number} of 4 in .* s from step-")
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
