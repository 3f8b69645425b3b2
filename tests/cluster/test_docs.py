"""The commands of docs/cluster.md, typed one after the other as a new user would."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cluster_runs import ROOT, assert_none_survives
from runs import environment
from testbed import Testbed

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_from_two_bare_nodes_to_a_running_job(testbed: Testbed, tmp_path: Path):
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert sum("ligo-dist" in block for block in blocks) == 3
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    # ssh finds the hosts as it would with a user's own configuration.
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh {" ".join(testbed.ssh_options)} "$@"\n')
    ssh.chmod(0o755)
    environ = environment()
    environ["PATH"] = f"{ssh.parent}:{environ['PATH']}"
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    for run in ("cluster_check", "cluster_check_alone"):
        assert (tmp_path / "runs" / run / "export" / "large" / "model.safetensors").exists()
    assert_none_survives(testbed)
