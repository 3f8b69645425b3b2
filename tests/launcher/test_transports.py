from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from launcher.hosts import Node
from launcher.transports import FileChannel, PdshTransport
from ligo_dist.config.cluster import Cluster


@pytest.fixture
def pdsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory, and a `pdsh` that ends at once."""
    command = tmp_path / "pdsh"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    return run_dir


def test_what_agents_read_is_for_its_owner_alone_and_does_not_stay(pdsh: Path):
    (channel,) = PdshTransport(Cluster(), pdsh).start([Node("alpha", (0,)), Node("beta", (0,))], None)
    assert channel.nodes == (0, 1)
    (messages,) = pdsh.glob(".launch-*/messages")
    assert (messages.stat().st_mode & 0o777, messages.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    channel.send("a secret\n")
    assert messages.read_text() == "a secret\n"
    channel.close()
    assert list(pdsh.iterdir()) == []


def test_what_a_killed_launcher_left_goes_and_what_a_living_one_writes_stays(pdsh: Path):
    for name, age in (("killed", 11 * 30.0), ("living", 9 * 30.0)):
        directory = pdsh / f".launch-{name}"
        directory.mkdir()
        messages = directory / "messages"
        messages.write_text("a secret\n")
        os.utime(messages, (time.time() - age,) * 2)
    (channel,) = PdshTransport(Cluster(lost_seconds=30.0), pdsh).start([Node("alpha", (0,))], None)
    assert not (pdsh / ".launch-killed").exists()
    assert (pdsh / ".launch-living" / "messages").exists()
    channel.close()


def test_a_file_that_is_there_is_not_written_to(tmp_path: Path):
    (tmp_path / "messages").touch()
    with pytest.raises(FileExistsError):
        FileChannel(["true"], [0], tmp_path / "messages")
