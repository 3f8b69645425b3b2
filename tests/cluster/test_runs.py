"""`ligo-dist run --hostfile`, and `deepspeed` typed by hand, over real ssh: the same numbers as on one host."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

from cluster_runs import (
    ROOT,
    ClusterRun,
    assert_none_survives,
    assert_same,
    command_lines,
    hand_typed,
    words_of,
)
from runs import RunFiles, Site, checkpointed
from testbed import Testbed


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
                time.sleep(0.1)  # looking takes from what is looked at
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


def test_a_frozen_rank_of_a_command_typed_by_hand(testbed: Testbed, site: Site, undisturbed: RunFiles):
    """It is the only one of its host, where nothing else would end it; the same command goes on to the same end."""
    files = site.config("frozen_by_hand", "cluster")
    command, environ = hand_typed(testbed, files, "cluster.hang_seconds=6.0")
    with files.config.with_suffix(".out").open("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
        deadline = time.monotonic() + 240
        while not checkpointed(files, "step-*")():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (rank,) = (pid for pid in testbed.processes_on("node3", "RANK=2") if b"ligo_dist" in words_of(pid))
        os.kill(rank, signal.SIGSTOP)
        assert process.wait(120) != 0
    assert_none_survives(testbed)
    ends = [json.loads(path.read_text()) for path in (files.run_dir / "logs/001").glob("*.end")]
    assert {end["rank"]: end["reason"] for end in ends}[2] == "was stopped (SIGSTOP)"
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed from " in done.stdout
    assert_same(files, undisturbed)


def files_with(planted: str, directory: Path) -> dict[str, int]:
    """The files that hold a text, by name, with who may read them."""
    found = {}
    for folder, _, names in os.walk(directory):
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(OSError):
                if planted.encode() in path.read_bytes():
                    found[path.name] = path.stat().st_mode & 0o777
    return found
