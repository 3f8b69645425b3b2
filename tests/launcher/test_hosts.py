from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.hosts import Node, read_hostfile, select_nodes
from ligo_dist.runtime.errors import LigoError

NODES = [Node("alpha", (0, 1, 2, 3)), Node("beta", (0, 1)), Node("10.0.0.3", (0,))]


def hostfile(directory: Path, text: str) -> Path:
    path = directory / "hosts"
    path.write_text(text)
    return path


def test_a_host_file_as_deepspeed_writes_it(tmp_path):
    text = "# racks\n\nalpha slots=4\n  beta   slots=2   # half of it\n10.0.0.3 slots=1\n"
    assert read_hostfile(hostfile(tmp_path, text)) == NODES


def test_deepspeed_reads_the_same(tmp_path):
    from deepspeed.launcher.runner import fetch_hostfile

    path = hostfile(tmp_path, "# racks\n\nalpha slots=4\nbeta slots=2\n10.0.0.3 slots=1\n")
    assert {node.name: node.num_ranks for node in read_hostfile(path)} == dict(fetch_hostfile(str(path)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alpha slots=4\nbeta 2\n", "hosts:2: 'beta 2' should be `HOST slots=N`"),
        ("alpha slots=0\n", "hosts:1: alpha has no slots; leave the host out, or give it some"),
        ("alpha slots=1\nalpha slots=2\n", "hosts:2: alpha is there twice; add its slots up in one line"),
        ("# none\n", "names no host; a line is `HOST slots=N`"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, said):
    with pytest.raises(LigoError, match=re.escape(said)):
        read_hostfile(hostfile(tmp_path, text))


def test_no_such_host_file(tmp_path):
    with pytest.raises(LigoError, match=r"hostfile: '.*nowhere' cannot be read: No such file or directory"):
        read_hostfile(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("include", "exclude", "kept"),
    [
        (None, None, NODES),
        ("beta", None, [NODES[1]]),
        ("beta@alpha:2,0", None, [Node("alpha", (0, 2)), NODES[1]]),
        (None, "alpha", NODES[1:]),
        (None, "alpha:1@10.0.0.3:0", [Node("alpha", (0, 2, 3)), NODES[1]]),
    ],
)
def test_filters(include, exclude, kept):
    assert select_nodes(NODES, include, exclude) == kept


@pytest.mark.parametrize(
    ("include", "exclude"), [("beta@alpha:2,0", ""), ("", "alpha:1@10.0.0.3:0"), ("", "beta")]
)
def test_deepspeed_filters_alike(include, exclude):
    from deepspeed.launcher.runner import parse_inclusion_exclusion

    theirs = parse_inclusion_exclusion({node.name: node.num_ranks for node in NODES}, include, exclude)
    ours = select_nodes(NODES, include or None, exclude or None)
    assert {node.name: sorted(node.devices) for node in ours} == {
        name: sorted(slots) for name, slots in theirs.items()
    }


@pytest.mark.parametrize(
    ("include", "exclude", "said"),
    [
        ("alpha", "beta", "include, exclude: 'alpha' and 'beta' cannot be given together"),
        ("alpa", None, "include: 'alpa': the host file has no host 'alpa'; did you mean 'alpha'?"),
        ("x", None, "include: 'x': the host file has no host 'x'; it has alpha, beta, 10.0.0.3"),
        (None, "beta:2", "exclude: 'beta:2': beta has the slots 0,1, and no '2'"),
        ("beta:a", None, "include: 'beta:a': beta has the slots 0,1, and no 'a'"),
        ("beta:0@beta:1", None, "names beta twice; write its slots as beta:0,1"),
        (None, "alpha@beta@10.0.0.3", "exclude: 'alpha@beta@10.0.0.3' leaves no host to run on"),
    ],
)
def test_filters_that_fit_no_host(include, exclude, said):
    with pytest.raises(LigoError, match=re.escape(said)):
        select_nodes(NODES, include, exclude)
