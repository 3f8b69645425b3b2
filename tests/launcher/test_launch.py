"""Launching with stand-ins for `deepspeed` and for the training: policy, exit codes, signals, restarts."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from ligo_dist.runtime.launch import LaunchDirectory

if TYPE_CHECKING:
    from tests.launcher.conftest import Site


def test_a_run_that_finishes(site: Site):
    code, out, err = site.launch("--nproc", "2", "seed=3", MLFLOW_TRACKING_TOKEN="planted-secret")
    assert (code, out) == (0, "rank 0 was started 1 times\n"), err
    said, command = err.splitlines()
    run_dir = site.directory / "run" / "logs" / "001"
    assert said == f"ligo-dist: 2 ranks on this machine; what each prints is in {run_dir}"
    assert command.startswith("  deepspeed --num_nodes 1 --num_gpus 2 --master_port ")
    (call, secrets), *_ = (
        json.loads(line) for line in (site.directory / "deepspeed-calls").read_text().splitlines()
    )
    assert (command.split()[1:], secrets) == (call, {})
    assert (run_dir / "rank-00001.log").read_text() == "rank 1 was started 1 times\n"
    first, second = sorted(site.starts, key=lambda start: start["RANK"])
    assert first["argv"][1:] == ["-u", "-m", "ligo_dist", str(run_dir / "config.yaml")]
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert (config["seed"], config["run_dir"]) == (3, "run")
    assert set(config["cluster"]) == {"hang_seconds", "lost_seconds", "grace_seconds"}
    assert {first["MLFLOW_TRACKING_TOKEN"], second["MLFLOW_TRACKING_TOKEN"]} == {"planted-secret"}
    written = [path for path in (site.directory / "run").rglob("*") if path.is_file()]
    assert "planted-secret" not in out + err + "".join(path.read_text() for path in written)
    assert {name: (first[name], second[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")} == {
        "RANK": ("0", "1"),
        "LOCAL_RANK": ("0", "1"),
        "WORLD_SIZE": ("2", "2"),
    }
    assert first["MASTER_ADDR"] == "127.0.0.1"


def test_the_rank_that_failed_is_named_with_its_last_lines(site: Site):
    site.behave(rank0=["wait"], rank1=["exit-1", "exit-4"])
    code, _, err = site.launch("--nproc", "2", "cluster.max_restarts=1")
    assert code == 1
    assert "ligo-dist: rank 1 on localhost ended with exit code 1 at small train step 7" in err
    assert "\n  [rank 1] RuntimeError: this is why\n" in err
    assert "ligo-dist: restart 1 of 1 in 0 s from the beginning" in err
    assert "ligo-dist: cluster.max_restarts: 1 is reached; the same command resumes from the beginning" in err
    assert "RuntimeError: this is why" in (site.directory / "run/logs/001/rank-00001.log").read_text()
    assert len(site.starts) == 4


def test_a_rank_that_is_killed_is_a_failure_and_the_run_goes_on(site: Site):
    site.behave(rank0=["work", "finish"], rank1=["die", "finish"])
    (site.directory / "run/checkpoints/step-00000004-0-train").mkdir(parents=True)
    (site.directory / "run/checkpoints/step-00000004-0-train/COMPLETE.json").touch()
    code, _, err = site.launch("--nproc", "2")
    assert code == 0
    assert "rank 1 on localhost was killed at small train step 7" in err
    assert "if it was the system that killed it (`dmesg` says so), memory has run out." in err
    assert "restart 1 of 3 in 0 s from step-00000004-0-train" in err
    assert [start["RANK"] for start in site.starts].count("0") == 2
    log = (site.directory / "run/run.log").read_text()
    assert "  rank 1 on localhost was killed at small train step 7\n" in log
    assert "  restart 1 of 3 in 0 s from step-00000004-0-train\n" in log


def test_how_the_first_rank_failed_is_told_once(site: Site):
    site.behave(rank0=["exit-1"], rank1=["wait"])
    code, out, err = site.launch("--nproc", "2", "cluster.max_restarts=0")
    assert code == 1
    assert "[rank 0]" not in out
    assert err.count("[rank 0] RuntimeError: this is why") == 1


def test_what_a_survivor_of_a_killed_rank_says_is_in_its_log_alone(site: Site):
    site.behave(rank0=["survive"], rank1=["die"])
    code, out, err = site.launch("--nproc", "2", "cluster.max_restarts=0")
    assert code == 1
    assert "rank 1 on localhost was killed at small train step 7" in err
    assert "[rank 0]" not in out + err
    said = (site.directory / "run/logs/001/rank-00000.log").read_text()
    assert "[rank 0] RuntimeError: Connection closed by peer" in said


def test_a_rank_that_does_not_get_on_is_a_failure(site: Site):
    site.behave(rank0=["work", "finish"], rank1=["wait", "finish"])
    code, _, err = site.launch("--nproc", "2", "cluster.hang_seconds=2.0")
    assert code == 0
    assert re.search(r"rank 1 on localhost has not got on for \d+ s at small train step 7", err)


def test_a_rank_that_was_stopped_is_named_though_all_hang(site: Site):
    site.behave(rank0=["wait", "finish"], rank1=["freeze", "finish"])
    code, _, err = site.launch("--nproc", "2", "cluster.hang_seconds=2.0")
    assert code == 0
    assert "rank 1 on localhost was stopped (SIGSTOP) at small train step 7" in err


def test_a_rank_that_was_stopped_before_the_ranks_have_met(site: Site):
    site.behave(rank0=["wait-early", "finish"], rank1=["freeze-early", "finish"])
    code, _, err = site.launch("--nproc", "2", "cluster.hang_seconds=2.0")
    assert code == 0
    assert "rank 1 on localhost was stopped (SIGSTOP)\n" in err


def test_a_rank_that_was_stopped_before_it_was_watched(site: Site):
    site.behave(rank0=["wait-early", "finish"], rank1=["freeze-first"])
    code, _, err = site.launch("--nproc", "2", "cluster.hang_seconds=2.0")
    assert code == 0
    assert "rank 1 on localhost has not begun, long after others have\n" in err


def test_ranks_whose_parent_is_killed_stop_and_are_started_again(site: Site):
    site.behave(rank0=["kill-parent", "finish"], rank1=["orderly", "finish"])
    code, _, err = site.launch("--nproc", "2")
    assert code == 0, err
    assert "what DeepSpeed runs there has gone, and its ranks have stopped" in err
    assert [start["RANK"] for start in site.starts].count("1") == 2


def test_a_command_that_starts_no_rank_is_told_with_what_it_says(site: Site):
    (site.directory / "bin" / "deepspeed").write_text("#!/bin/sh\necho no such cluster >&2\nexit 4\n")
    code, _, err = site.launch("--nproc", "2")
    assert code == 1
    assert "ligo-dist: `deepspeed` ended with exit code 4\n  no such cluster\n" in err
    assert "it failed in the same way as before" in err


@pytest.mark.parametrize("code", [3, 75, 76])
def test_what_is_hopeless_or_orderly_is_passed_on_and_not_started_again(site: Site, code: int):
    site.behave(rank0=[f"exit-{code}"], rank1=[f"exit-{code}"])
    done = site.launch("--nproc", "2")
    assert done[0] == code, done
    assert len(site.starts) == 2


def test_a_rank_that_deepspeed_stops_after_another_has_ended_orderly_has_not_failed(site: Site):
    site.behave(rank0=["exit-75"], rank1=["wait"])
    assert site.launch("--nproc", "2")[0] == 75
    assert len(site.starts) == 2


def test_a_warning_is_passed_on_and_asks_for_a_requeue(site: Site):
    site.behave(rank0=["orderly"], rank1=["orderly"])
    process = site.start("--nproc", "2")
    site.wait_for_starts(2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "no checkpoint" in err) == (75, False)
    site.assert_none_survives()


def test_ranks_that_do_not_heed_it_are_killed_after_the_grace(site: Site):
    site.behave(rank0=["stubborn"], rank1=["orderly"])
    process = site.start("--nproc", "2", "cluster.grace_seconds=1.0")
    site.wait_for_starts(2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "no checkpoint within cluster.grace_seconds: 1; the same command resumes" in err
    site.assert_none_survives()


def test_ctrl_c_ends_every_process(site: Site):
    site.behave(rank0=["wait"], rank1=["wait"])
    process = site.start("--nproc", "2")
    site.wait_for_starts(2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    site.assert_none_survives()


def test_a_second_ctrl_c_kills_at_once(site: Site):
    site.behave(rank0=["stubborn"], rank1=["stubborn"])
    process = site.start("--nproc", "2")
    site.wait_for_starts(2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=8)
    assert process.returncode == 130
    site.assert_none_survives()


def test_a_killed_launcher_leaves_nothing_behind(site: Site):
    site.behave(rank0=["orderly"], rank1=["orderly"])
    process = site.start("--nproc", "2", "cluster.lost_seconds=3.0")
    site.wait_for_starts(2)
    process.kill()
    process.communicate(timeout=60)
    site.assert_none_survives()
    ends = LaunchDirectory(site.directory / "run/logs/001").ends()
    assert {end.code for end in ends.values()} == {75}, "with a checkpoint"
    assert "LAUNCHER_GONE" in {end.asked for end in ends.values()}


def test_nobody_watches_any_more(site: Site):
    site.behave(rank0=["work", "finish"], rank1=["die", "finish"])
    process = site.start("--nproc", "2")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 0
    site.assert_none_survives()


def test_a_second_launcher_is_kept_out_of_a_run_directory(site: Site):
    site.behave(rank0=["orderly"], rank1=["orderly"])
    first = site.start("--nproc", "2")
    site.wait_for_starts(2)
    second = site.start("--nproc", "2")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert (
        err
        == f"ligo-dist: run_dir: another run is using {site.directory}/run; wait for it, or choose another\n"
    )
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 75


def test_ranks_of_an_earlier_launch_that_may_run_still_are_waited_for(site: Site):
    before = LaunchDirectory.make(site.directory / "run")
    before.log(1).touch()
    code, _, err = site.launch("--nproc", "1")
    assert code == 0, err
    assert (
        f"ranks of {before.path} have not said how they ended; if they still run, they are waited for" in err
    )


# --- several nodes ---


def test_ranks_of_several_nodes(site: Site):
    hosts = site.hostfile("alpha slots=1", "beta slots=2  # two", "")
    code, out, err = site.launch(
        *("--hostfile", hosts, "cluster.environment={GREETING: 'a, b c'}", "cluster.launcher_args=[-N]"),
        MLFLOW_TRACKING_TOKEN="planted-secret",
    )
    assert (code, out) == (0, "rank 0 was started 1 times\n"), err
    assert "3 ranks on alpha, beta" in err
    hosts = site.directory / "run/logs/001/hosts"
    words = f"deepspeed --hostfile {hosts} --launcher pdsh --master_addr alpha --launcher_args=-N "
    assert f"\n  {words}" in err
    starts = sorted(site.starts, key=lambda start: start["RANK"])
    names = ("RANK", "LOCAL_RANK", "CROSS_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GREETING")
    assert [tuple(start[name] for name in names) for start in starts] == [
        ("0", "0", "0", "3", "alpha", "29500", "a, b c"),
        ("1", "0", "1", "3", "alpha", "29500", "a, b c"),
        ("2", "1", "1", "3", "alpha", "29500", "a, b c"),
    ]
    # The secret reaches the ranks, and neither DeepSpeed's launcher nor a command line nor a file that stays.
    assert all(start["MLFLOW_TRACKING_TOKEN"] == "planted-secret" for start in starts)
    written = [path for path in (site.directory / "run").rglob("*") if path.is_file()]
    calls = (site.directory / "deepspeed-calls").read_text()
    assert "planted-secret" not in out + err + calls + "".join(path.read_text() for path in written)


def test_a_host_that_does_not_answer_is_named(site: Site):
    hosts = site.hostfile("alpha slots=1 max_slots=1", "alice@beta slots=1")
    (site.directory / "away").write_text("beta")
    site.behave(rank0=["orderly"])
    code, _, err = site.launch("--hostfile", hosts, "cluster.max_restarts=1")
    assert code == 1
    assert "alice@beta has lost its connection: ssh: connect to host beta port 22: No route to host" in err
    assert "1 of 2 nodes are there and cluster.min_nodes is not set" in err


def test_going_on_with_fewer_nodes(site: Site):
    hosts = site.hostfile("alpha slots=1", "beta slots=1", "gamma slots=1")
    (site.directory / "away").write_text("alpha")
    site.behave(rank0=["finish"], rank1=["orderly", "finish"], rank2=["orderly"])
    code, _, err = site.launch("--hostfile", hosts, "cluster.min_nodes=2")
    assert code == 0, err
    assert "/run/logs/002/hosts --launcher pdsh --master_addr beta " in err
    assert (site.directory / "run/logs/002/hosts").read_text() == "beta slots=1\ngamma slots=1\n"
    assert "going on with 2 of 3 nodes" in err
    ended = [start for start in site.starts if start["WORLD_SIZE"] == "2"]
    assert sorted((start["RANK"], start["MASTER_ADDR"]) for start in ended) == [("0", "beta"), ("1", "beta")]
