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
from launcher.fleet import Fleet
from launcher.hosts import Node
from ligo_dist.config import Cluster
from ligo_dist.runtime.machine import processor_flags

SOURCE = Path(probe.__file__).read_text()


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@contextmanager
def started(**cluster: Any) -> Iterator[Conversation]:
    with tempfile.NamedTemporaryFile() as errors:
        fleet = Fleet([Node("here", (0,))], "here", Cluster.model_validate(cluster))
        conversation = Conversation("here", fleet, Path(errors.name))
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
            "torch_seconds": None,
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


@pytest.fixture
def run_dir():
    """A run directory with the launcher's file."""
    Path("runs/my").mkdir(parents=True)
    Path("runs/my/of-the-launcher").touch()
    return Path("runs/my")


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_it_writes_where_the_launcher_sees_it_and_leaves_nothing(run_dir):
    with started() as conversation:
        answer = look(conversation)
        assert (answer["unwritable"], answer["sees_mark"]) == (None, True)
        assert files(run_dir) == ["of-the-host", "of-the-launcher"]
    assert files(run_dir) == ["of-the-launcher"]


def test_where_it_sees_nothing_of_the_launcher_it_writes_nothing():
    with started() as conversation:
        assert not look(conversation)["sees_mark"]
    assert list(Path.cwd().iterdir()) == []


def test_a_full_disk(can_mount):
    Path("runs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "runs"], check=True)
    try:
        Path("runs/my").mkdir()
        Path("runs/my/of-the-launcher").touch()
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
    nvidia_smi(script, monkeypatch)
    assert probe.accelerators() == accelerators


@pytest.mark.parametrize(
    ("torch", "answer"),
    [
        (
            "import warnings\nclass version: cuda = '13.0'\n"
            "class cuda:\n"
            "    def is_available(): warnings.warn('the driver is too old (Triggered internally)')\n"
            "class distributed: is_available = is_nccl_available = lambda: True\n",
            {"count": 0, "why": "the driver is too old", "nccl": True},
        ),
        (
            "raise ImportError('no libcudart')",
            {"count": 0, "why": "ImportError: no libcudart", "nccl": False},
        ),
        ("import time; time.sleep(60)", None),
    ],
)
def test_torch_itself_is_asked(torch, answer, monkeypatch):
    nvidia_smi("echo 81000", monkeypatch)
    Path("elsewhere").mkdir()
    Path("elsewhere/torch.py").write_text(torch)
    with started() as conversation:
        seconds = 10 if answer else 0.5
        assert look(conversation, python_path=["elsewhere"], torch_seconds=seconds)["torch"] == answer
        assert look(conversation)["torch"] is None, "nobody asked"


def nvidia_smi(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    Path("nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", os.getcwd(), prepend=":")


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
