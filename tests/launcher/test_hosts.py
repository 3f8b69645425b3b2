from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.fleet import choose_fleet
from launcher.hosts import Node, read_hostfile, select_nodes
from ligo_dist.config import Cluster
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
    ("text", "names"),
    [
        (b"alpha slots=8 max_slots=8\n", ["alpha"]),
        (b"alpha slots=8 max-slots=8 # two\nbeta slots=8\tmax_slots=16\n", ["alpha", "beta"]),
        (b"\xef\xbb\xbfalpha slots=8\n", ["alpha"]),
        (b"alpha slots=8\r\nbeta slots=8\r\n", ["alpha", "beta"]),
        (b"alice@alpha slots=8\nbob@10.0.0.3 slots=8\n", ["alice@alpha", "bob@10.0.0.3"]),
        (b"fd00::1 slots=8\n[fd00::2] slots=8\n", ["fd00::1", "fd00::2"]),
        (b"alice@[fe80::1%eth0] slots=8\n", ["alice@fe80::1%eth0"]),
    ],
)
def test_host_files_as_people_have_them(tmp_path, text, names):
    from deepspeed.launcher.runner import fetch_hostfile

    path = tmp_path / "hosts"
    path.write_bytes(text)
    assert read_hostfile(path) == [Node(name, tuple(range(8))) for name in names]
    assert len(fetch_hostfile(str(path))) == len(names)


def test_the_address_of_a_host_has_no_user():
    assert [Node(name, (0,)).address for name in ("alice@alpha", "fd00::1", "beta")] == [
        "alpha",
        "fd00::1",
        "beta",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "alpha slots=1\nalice@alpha slots=1\n",
            "hosts:2: alice@alpha is the same host as alpha; add its slots up",
        ),
        ("alpha slots=1\nAlpha. slots=1\n", "hosts:2: Alpha. is the same host as alpha"),
        ("fd00::1 slots=1\n[FD00:0::1] slots=1\n", "hosts:2: FD00:0::1 is the same host as fd00::1"),
        ("alpha slots=1 beta slots=1\n", "hosts:1: 'alpha slots=1 beta slots=1' should be `HOST slots=N`"),
        ("alpha slots=1 slots=2\n", "should be `HOST slots=N`"),
        ("alpha[1-4] slots=1\n", "hosts:1: 'alpha[1-4]' names several hosts; write a line for each"),
        ("alpha,beta slots=1\n", "'alpha,beta' names several hosts"),
        ("alpha slots=4\nbeta 2\n", "hosts:2: 'beta 2' should be `HOST slots=N`"),
        ("alpha slots=0\n", "hosts:1: alpha has no slots; leave the host out, or give it some"),
        ("alpha slots=1\nalpha slots=2\n", "hosts:2: alpha is there twice; add its slots up in one line"),
        ("# none\n", "names no host; a line is `HOST slots=N`"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, said):
    with pytest.raises(LigoError, match=re.escape(said)):
        read_hostfile(hostfile(tmp_path, text))


@pytest.mark.parametrize(
    ("keys", "given", "said"),
    [
        ({"hostfile": "nowhere"}, {}, "hostfile: 'nowhere' cannot be read: No such file or directory"),
        (
            {"hostfile": "hosts"},
            {"nproc": 2},
            "--nproc: 2, but the slots in 'hosts' say how many ranks a host has",
        ),
        (
            {"hostfile": "hosts"},
            {"slurm": True},
            "--slurm: the allocation says the hosts; drop cluster.hostfile",
        ),
        ({"include": "alpha"}, {}, "include: 'alpha' chooses among the hosts of a host file; add --hostfile"),
        ({}, {"slurm": True}, "--slurm: SLURM_JOB_NODELIST is not set: this is no allocation"),
    ],
)
def test_hosts_that_cannot_be_had(keys, given, said):
    asked = {"slurm": False, "nproc": None, **given}
    with pytest.raises(LigoError, match=re.escape(said)):
        choose_fleet(Cluster(**keys), accelerators=0, environ={}, **asked)


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


WITH_SIGNS = [
    Node("alice@alpha", (0, 1)),
    Node("fd00::1", (0, 1)),
    Node("fd00::1:0", (0, 1)),
    Node("beta", (0, 1)),
]


@pytest.mark.parametrize(
    ("include", "kept"),
    [
        ("alice@alpha", [WITH_SIGNS[0]]),
        ("alice@alpha:1@beta", [Node("alice@alpha", (1,)), WITH_SIGNS[3]]),
        ("fd00::1", [WITH_SIGNS[1]]),
        ("fd00::1:1@beta:0", [Node("fd00::1", (1,)), Node("beta", (0,))]),
        ("fd00::1:0@alice@alpha", [WITH_SIGNS[0], WITH_SIGNS[2]]),
    ],
)
def test_filters_of_hosts_with_the_signs_of_filters_in_their_names(include, kept):
    assert select_nodes(WITH_SIGNS, include, None) == kept
