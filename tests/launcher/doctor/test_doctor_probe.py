"""The probe as it runs on a host: in a process of its own, sent there as text."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.command import free_port
from launcher.doctor import probe
from launcher.doctor.ssh import Conversation
from ligo_dist.config.cluster import Cluster
from ligo_dist.runtime.machine import processor_flags

SOURCE = Path(probe.__file__).read_text()


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@contextmanager
def started(**cluster: Any) -> Iterator[Conversation]:
    with tempfile.NamedTemporaryFile() as errors:
        conversation = Conversation("here", Cluster.model_validate(cluster), None, Path(errors.name))
        try:
            yield conversation
        finally:
            conversation.end()


def look(conversation: Conversation, **asked: Any) -> dict[str, Any]:
    return conversation.ask(
        {
            "do": "look",
            "directory": os.getcwd(),
            "python_path": [],
            "run_dir": "runs/my",
            "mark": "of-the-launcher",
            "trace": "of-the-host",
            "port": None,
            **asked,
        }
    )


def _bare_python() -> Path:
    """A python without any installed package."""
    path = Path("python").absolute()
    path.write_text(f'#!/bin/sh\nexec env -u PYTHONPATH {sys.executable} -S "$@"\n')
    path.chmod(0o755)
    return path


def test_what_it_says_is_so():
    with started() as conversation:
        answer = look(conversation)
    assert answer["python"] == platform.python_version()
    assert answer["executable"] == sys.executable
    assert answer["machine"] == probe.machine_identity()
    assert answer["packages"] == {name: importlib.metadata.version(name) for name in probe.PACKAGES}
    assert 0 < answer["memory"] <= psutil.virtual_memory().total
    assert 0 < answer["disk"] <= shutil.disk_usage(".").total


def test_it_needs_nothing_installed_and_says_what_is_missing():
    with started(python=str(_bare_python())) as conversation:
        answer = look(conversation)
    assert answer["packages"] == dict.fromkeys(probe.PACKAGES)
    assert answer["code"] is None


def test_it_is_for_the_standard_library_and_python_3_8_alone():
    tree = ast.parse(SOURCE, feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_it_writes_where_the_launcher_sees_it_and_leaves_nothing():
    Path("runs").mkdir()
    with started() as conversation:
        answer = look(conversation, run_dir="runs/deep/my")
        assert Path("runs/deep/my/of-the-host").exists()
        assert (answer["unwritable"], answer["sees_mark"]) == (None, False)
        Path("runs/deep/my/of-the-launcher").touch()
        assert look(conversation, run_dir="runs/deep/my", trace="another")["sees_mark"]
        Path("runs/deep/my/of-the-launcher").unlink()
    assert list(Path.cwd().rglob("*")) == [Path("runs").absolute()]


def test_a_directory_that_somebody_uses_by_now_stays():
    with started() as conversation:
        look(conversation)
        Path("runs/my/run.log").write_text("precious")
    assert [path.name for path in Path("runs/my").iterdir()] == ["run.log"]


def test_it_tidies_up_when_the_launcher_is_gone():
    with started() as conversation:
        look(conversation)
        conversation._channel.shutdown(socket.SHUT_RDWR)
        assert conversation._process.wait(10) == 0
    assert list(Path.cwd().iterdir()) == []


def test_a_run_directory_under_a_file():
    Path("runs").write_text("precious")
    with started() as conversation:
        assert look(conversation)["unwritable"] == "Not a directory"


def test_a_full_disk(can_mount):
    Path("runs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "runs"], check=True)
    try:
        Path("runs/ballast").write_bytes(b"x" * (1 << 16))
        with started() as conversation:
            answer = look(conversation)
    finally:
        subprocess.run(["umount", "runs"], check=True)
    assert (answer["disk"], answer["unwritable"]) == (0, "No space left on device")


def test_a_directory_that_is_not_there():
    with started() as conversation:
        assert look(conversation, directory="none") == {"no_directory": "No such file or directory"}


def test_it_listens_as_long_as_it_is_asked():
    port = free_port()
    with started() as conversation:
        assert look(conversation, port=port)["cannot_listen"] is None
        for address in ("127.0.0.1", socket.gethostname()):
            assert conversation.ask({"do": "reach", "address": address, "port": port})["cannot_reach"] is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server, started() as conversation:
        answer = look(conversation, port=server.getsockname()[1])
    assert answer["cannot_listen"] == "Address already in use"


def test_a_port_that_nobody_listens_on():
    with started() as conversation:
        before = time.time()
        answer = conversation.ask({"do": "reach", "address": "127.0.0.1", "port": free_port()})
        assert answer["cannot_reach"] == "Connection refused"
        assert before <= answer["time"] <= time.time()
        assert conversation.ask({"do": "reach", "address": None, "port": 1})["cannot_reach"] is None


@pytest.mark.parametrize(
    ("script", "accelerators"),
    [
        ("printf '81000\\n[N/A]\\n'", [81000 * 2**20, None]),
        ("echo 'no driver'; exit 9", []),
    ],
)
def test_free_memory_of_accelerators(script, accelerators, monkeypatch):
    if list(Path("/dev").glob("nvidia[0-9]")):
        accelerators = accelerators or [None] * len(list(Path("/dev").glob("nvidia[0-9]")))
    Path("nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    Path("nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", os.getcwd(), prepend=":")
    assert probe.accelerators() == accelerators


@pytest.mark.parametrize(
    ("script", "capabilities"),
    [("printf '9.0\\n[N/A]\\n8.6\\n'", [9.0, 8.6]), ("echo 'no field compute_cap'; exit 2", [])],
)
def test_capabilities_of_accelerators(script, capabilities, monkeypatch):
    Path("nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    Path("nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", os.getcwd(), prepend=":")
    assert probe.capabilities() == capabilities


def test_flags_of_processors_are_those_that_the_ranks_find():
    assert probe.processor_flags() == processor_flags()


def test_a_digest_of_the_code_changes_with_it():
    def digest() -> str | None:
        with started(python=str(_bare_python())) as conversation:
            return look(conversation)["code"]

    assert digest() is None
    for package in ("ligo_dist", "launcher"):
        Path(package).mkdir()
        Path(package, "__init__.py").touch()
    first = digest()
    Path("ligo_dist", "loop.py").touch()
    second = digest()
    Path("ligo_dist", "loop.py").write_text("pass\n")
    Path("ligo_dist", "loop.pyc").write_text("no source\n")
    assert len({None, first, second, digest()}) == 4
