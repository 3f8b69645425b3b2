"""What a testbed does to the machine it stands on, and what it asks of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from testbed import Testbed, TestbedError
from testbed.session import Session, command

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def machine() -> str:
    """What a testbed leaves its traces in."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return command("ip", "netns", "list") + command("ip", "link", "show") + mounts


def test_two_stand_side_by_side_and_the_leftovers_of_a_killed_one_are_removed(testbed: Testbed) -> None:
    script = """
        import os, subprocess
        from testbed import Testbed
        with Testbed() as testbed:
            testbed.small_disk(1)
            testbed.start_on("node1", ["sleep", "600"], stdout=subprocess.DEVNULL)
            session = testbed._session
            print(*testbed.hosts.values(), session.name(""), session.directory, flush=True)
            os.kill(os.getpid(), 9)
    """
    words = [sys.executable, "-c", textwrap.dedent(script)]
    killed = subprocess.run(words, cwd=HERE, stdout=subprocess.PIPE, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    *addresses, prefix, directory = killed.stdout.split()
    assert not set(addresses) & set(testbed.hosts.values())
    assert prefix in machine()
    assert directory in machine()

    Session().close()

    assert prefix not in machine()
    assert directory not in machine()
    assert not Path(directory).exists()
    assert testbed.run_on("node1", ["hostname"]).stdout == "node1\n", "the living one is left alone"


def test_an_exception_leaves_nothing_behind() -> None:
    with contextlib.suppress(ZeroDivisionError), Testbed() as testbed:
        session = testbed._session
        testbed.small_disk(1)
        sleep = testbed.start_on("node1", ["sleep", "600"])
        assert session.name("") in machine()
        raise ZeroDivisionError
    assert sleep.wait() == -signal.SIGKILL
    assert session.name("") not in machine()
    assert str(session.directory) not in machine()
    assert not session.directory.exists()
    assert not Path("/etc/netns", session.name("node1")).exists()


def test_a_user_without_the_rights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TestbedError, match="the testbed needs root"), Testbed():
        pass


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "not installed: ip, .*, pdsh; `make test-cluster` installs them"
    with pytest.raises(TestbedError, match=message), Testbed():
        pass


def test_without_namespaces_the_tests_fail_and_are_not_skipped() -> None:
    pytest_words = [sys.executable, "-m", "pytest", str(HERE), "-k", "hostfiles", "-p", "no:cacheprovider"]
    words = ["setpriv", "--bounding-set=-sys_admin", *pytest_words]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no testbed: `mount --bind" in done.stdout
    assert "1 error" in done.stdout
