"""The testbed does what the tests of the cluster rely on."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from testbed import Testbed

NODES = ("node1", "node2", "node3")


def ssh_words(testbed: Testbed, node: str, remote: str, *options: str) -> list[str]:
    return ["ssh", *testbed.ssh_options, "-oBatchMode=yes", *options, node, remote]


def ssh(testbed: Testbed, node: str, remote: str, *options: str) -> subprocess.CompletedProcess[str]:
    words = ssh_words(testbed, node, remote, *options)
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


@contextmanager
def echo(testbed: Testbed, node: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A login that sends back what it is sent; gives both ends."""
    words = ssh_words(testbed, node, "cat")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as login:
        assert login.stdin is not None
        assert login.stdout is not None
        login.stdin.write(b"before\n")
        assert login.stdout.readline() == b"before\n"
        yield login.stdin, login.stdout


@contextmanager
def listener(testbed: Testbed, node: str) -> Iterator[tuple[str, int]]:
    """A process on the node that listens; gives the address it is reached at."""
    script = (
        "import socket, time; s = socket.create_server(('', 0)); print(s.getsockname()[1]); time.sleep(600)"
    )
    words = [sys.executable, "-u", "-c", script]
    with testbed.start_on(node, words, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield testbed.hosts[node], int(server.stdout.readline())
        server.kill()


def connects(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("node", NODES)
def test_ssh_logs_in_on_a_host_with_its_name_and_address(testbed: Testbed, node: str) -> None:
    done = ssh(testbed, node, "hostname; ip -4 -brief address show dev eth0; id -un; tty")
    name, interface, user, tty = done.stdout.splitlines()
    assert (name, user, tty) == (node, "root", "not a tty")
    assert testbed.hosts[node] in interface


def test_pdsh_logs_in_on_all(testbed: Testbed) -> None:
    done = subprocess.run(
        ["pdsh", "-S", "-R", "ssh", "-w", ",".join(NODES), "hostname"],
        env={**os.environ, "PDSH_SSH_ARGS_APPEND": " ".join(testbed.ssh_options)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [f"{node}: {node}" for node in NODES]


def test_the_machine_keeps_its_own_name(testbed: Testbed) -> None:
    assert testbed.run_on("node1", ["hostname"]).stdout == "node1\n"
    assert socket.gethostname() not in NODES


def test_the_hosts_reach_each_other_and_this_machine_by_name(testbed: Testbed) -> None:
    script = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).getpeername())"
    with listener(testbed, "node2") as (address, port):
        words = [sys.executable, "-c", script, "node2", str(port)]
        for node in NODES:
            assert testbed.run_on(node, words).stdout == f"{(address, port)}\n"
    with socket.create_server((testbed.launcher_address, 0)) as server:
        peer = server.getsockname()
        words = [sys.executable, "-c", script, socket.gethostname(), str(peer[1])]
        assert testbed.run_on("node3", words).stdout == f"{peer}\n"


def test_a_host_that_is_cut_off_is_silent_and_goes_on_when_it_is_mended(testbed: Testbed) -> None:
    with echo(testbed, "node1") as (send, received):
        testbed.cut("node1")
        send.write(b"meanwhile\n")
        assert select.select([received], [], [], 2) == ([], [], [])
        refused = ssh(testbed, "node1", "true", "-oConnectTimeout=1")
        assert refused.returncode == 255
        assert "Connection timed out" in refused.stderr or "No route to host" in refused.stderr
        assert ssh(testbed, "node2", "true").returncode == 0
        testbed.mend("node1")
        assert received.readline() == b"meanwhile\n"
    assert ssh(testbed, "node1", "true").returncode == 0


def test_a_stopped_sshd_refuses_and_keeps_the_logins_it_has(testbed: Testbed) -> None:
    with echo(testbed, "node2") as (send, received):
        testbed.stop_sshd("node2")
        refused = ssh(testbed, "node2", "true")
        assert (refused.returncode, "Connection refused" in refused.stderr) == (255, True)
        send.write(b"after\n")
        assert received.readline() == b"after\n"
    testbed.start_sshd("node2")
    assert ssh(testbed, "node2", "true").returncode == 0


def test_another_host_key_is_refused(testbed: Testbed) -> None:
    testbed.change_host_key("node3")
    refused = ssh(testbed, "node3", "true")
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_a_closed_port_lets_nobody_in_but_the_host_itself(testbed: Testbed) -> None:
    with listener(testbed, "node1") as address:
        assert connects(address)
        testbed.close_port("node1", address[1])
        assert not connects(address)
        script = f"import socket; socket.create_connection({address}, 10)"
        assert testbed.run_on("node1", [sys.executable, "-c", script]).returncode == 0
        assert ssh(testbed, "node1", "true").returncode == 0, "the other ports stay open"
        testbed.open_port("node1", address[1])
        assert connects(address)


def test_processes_are_found_by_a_marker_and_killed(testbed: Testbed, marker: str) -> None:
    words = ["env", marker, "sh", "-c", "echo $$; exec sleep 600"]
    started = {node: testbed.start_on(node, words, stdout=subprocess.PIPE) for node in NODES}
    started["elsewhere"] = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    pids = {}
    for where, process in started.items():
        assert process.stdout is not None
        pids[where] = int(process.stdout.readline())

    assert testbed.processes(marker) == set(pids.values())
    assert testbed.processes(marker[:-1]) == set()
    for node in NODES:
        assert testbed.processes_on(node, marker) == {pids[node]}

    testbed.kill_processes("node2", marker)
    assert started["node2"].wait() == -signal.SIGKILL
    testbed.kill_processes("node3", marker, signal.SIGTERM)
    assert started["node3"].wait() == -signal.SIGTERM
    assert testbed.processes(marker) == {pids["node1"], pids["elsewhere"]}

    testbed.restore()
    assert started["node1"].wait() == -signal.SIGKILL, "nothing is left on the hosts"
    assert started["elsewhere"].poll() is None
    started["elsewhere"].kill()
    for process in started.values():
        process.communicate()


def test_a_zombie_is_not_counted(testbed: Testbed, marker: str) -> None:
    with subprocess.Popen(["env", marker, "sleep", "600"]) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert testbed.processes(marker) == set()


def test_a_small_disk_fills_up_everywhere(testbed: Testbed) -> None:
    disk = testbed.small_disk(megabytes=1)
    fill = f"head -c 2M /dev/zero > {disk}/file"
    assert "No space left on device" in ssh(testbed, "node2", fill).stderr
    assert (disk / "file").stat().st_size == 1 << 20
    with pytest.raises(OSError) as caught:
        (disk / "another").write_bytes(bytes(4096))
    assert caught.value.errno == errno.ENOSPC
    testbed.restore()
    assert not disk.is_mount()


def test_hostfiles(testbed: Testbed) -> None:
    assert testbed.hostfile().read_text() == "node1 slots=1\nnode2 slots=1\nnode3 slots=1\n"
    assert testbed.hostfile(2, ["node3", "node1"]).read_text() == "node3 slots=2\nnode1 slots=2\n"


def test_what_was_broken_is_whole_again(testbed: Testbed) -> None:
    testbed.cut("node1")
    testbed.stop_sshd("node2")
    testbed.change_host_key("node3")
    testbed.close_port("node3", 22)
    testbed.restore()
    for node in NODES:
        assert ssh(testbed, node, "hostname").stdout == f"{node}\n"
