from __future__ import annotations

import sys

import pytest
import ssh_messages

from launcher.doctor.ssh import explain, no_answer
from ligo_dist.config import Cluster


def found(code: int, errors: str, **cluster: object) -> str:
    return explain(code, errors, "node2", Cluster.model_validate(cluster)).found


def advice(code: int, errors: str, **cluster: object) -> str:
    return explain(code, errors, "node2", Cluster.model_validate(cluster)).advice


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (ssh_messages.CHANGED_KEY, "its host key is not the one that is known"),
        (ssh_messages.UNKNOWN_KEY, "its host key is not known here"),
        (ssh_messages.UNASKED_KEY, "its host key is not known here"),
        (ssh_messages.UNKNOWN_NAME, "its name does not resolve"),
        (ssh_messages.REFUSED, "it is up, but no sshd listens on ssh's own port"),
        (ssh_messages.TIMED_OUT, "it does not answer"),
        (ssh_messages.NO_ROUTE, "it does not answer"),
        (ssh_messages.NO_BANNER, "it does not answer"),
        (ssh_messages.DENIED, "it accepts none of our keys"),
        (ssh_messages.CLOSED, "it closed the connection before anything was said"),
        ("Bad owner or permissions on config\n", "ssh failed: Bad owner or permissions on config"),
        ("", "ssh failed: nothing was said"),
    ],
)
def test_what_ssh_says_is_told_apart(message, said):
    assert found(255, message) == said


def test_the_port_is_part_of_the_advice():
    assert found(255, ssh_messages.REFUSED, ssh_port=2222).endswith("no sshd listens on port 2222")
    scan = "`ssh-keyscan -p 2222 node2 >> ~/.ssh/known_hosts`"
    assert advice(255, ssh_messages.UNKNOWN_KEY, ssh_port=2222).startswith(scan)
    assert advice(255, ssh_messages.CHANGED_KEY, ssh_port=2222).startswith(
        f"if it was set up anew, `ssh-keygen -R '[node2]:2222'`, then {scan}"
    )
    assert "`ssh-copy-id -p 2222 node2`" in advice(255, ssh_messages.DENIED, ssh_port=2222)
    assert advice(255, "", ssh_port=2222) == "try `ssh -p 2222 node2 true`"
    assert "`ssh -p 2222 node2 true`" in no_answer(3, "node2", Cluster(ssh_port=2222)).advice


def test_words_of_the_command_are_not_taken_for_those_of_ssh():
    said = "bash: line 1: /env/bin/python: Permission denied"
    assert found(126, said, python="/env/bin/python") == f"/env/bin/python cannot be started: {said}"
    assert advice(126, said).endswith("name its python in cluster.python")


def test_a_python_that_cannot_read_the_probe():
    errors = 'Traceback (most recent call last):\n  File "<string>", line 12\nSyntaxError: invalid syntax\n'
    assert found(1, errors) == f"{sys.executable} ended with exit code 1: SyntaxError: invalid syntax"
