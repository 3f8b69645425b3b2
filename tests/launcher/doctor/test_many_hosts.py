"""As many hosts as DeepSpeed's launchers start at once, within the descriptors that a process usually has."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from launcher.doctor import probe

NUM_HOSTS = 256
AWAY = ("h7", "h100", "h255")
DESCRIPTORS = 512
"""Half of the usual limit: DeepSpeed's launcher will need some of its own."""
WORDS = (
    *("my.yaml", "--hostfile", "hosts", "stages[0].train.batch_size=256"),
    "cluster.preflight_seconds=100",  # one machine is all the hosts
)

_SSH = """\
# Stands in for `ssh OPTIONS HOST COMMAND`: hosts that are there say what the probe would, without its python.
for word; do host=$command; command=$word; done
case " $AWAY " in
    *" $host "*) echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255 ;;
esac
[ "$command" = true ] && exit
read -r program && read -r look
trace=${look##*'"trace": "'} trace=runs/test/${trace%%'"'*}
: > "$trace" && echo "$LOOK"
read -r reach && echo "$ANSWER{\\"cannot_reach\\": null, \\"time\\": $(date +%s)}"
read -r nothing_more
rm "$trace"
"""


@pytest.fixture
def many(hosts, monkeypatch):
    """A host file of them all."""
    hosts.program("ssh", _SSH)
    look = {
        "no_directory": None,
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": None,
        "packages": probe.package_versions(),
        "code": probe.code_digest(),
        "accelerators": [],
        "capabilities": [],
        "processor_flags": [],
        "torch": None,
        "memory": None,
        "disk": None,
        "unwritable": None,
        "sees_mark": True,
        "cannot_listen": None,
    }
    for name, value in {
        "AWAY": " ".join(AWAY),
        "ANSWER": probe.ANSWER,
        "LOOK": probe.ANSWER + json.dumps(look),
    }.items():
        monkeypatch.setenv(name, value)
    names = [f"h{number}" for number in range(NUM_HOSTS)]
    (hosts.directory / "hosts").write_text("".join(f"{name} slots=1\n" for name in names))
    return hosts


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """What a process says that may open so many files."""
    command = ["sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh", sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def lines_about_those_away(start: str = "") -> list[str]:
    return [
        f"{start}{h}: it does not answer; see whether it is up, or leave it out: --exclude {h}" for h in AWAY
    ]


@pytest.mark.slow
def test_doctor_names_those_that_do_not_answer(many):
    done = python("-m", "launcher", "doctor", *WORDS)
    assert (done.returncode, done.stderr) == (2, "")
    said = [line for line in done.stdout.splitlines() if line.strip()]
    assert [line.split() for line in said[2:5]] == [[name, "FAILS", *["-"] * 8] for name in AWAY]
    assert said[5:] == [*lines_about_those_away(), f"3 of {NUM_HOSTS} nodes not ready"]
    assert many.files() == {"my.yaml", "hosts"}


@pytest.mark.slow
def test_a_run_does_before_it_starts(many):
    done = python("-m", "launcher", "run", *WORDS)
    assert (done.returncode, done.stdout) == (2, "")
    told = [f"ligo-dist: 3 of {NUM_HOSTS} nodes not ready", *lines_about_those_away("  ")]
    assert done.stderr.splitlines() == told
    assert many.files() == {"my.yaml", "hosts"}


_WHO_IS_THERE = """\
from pathlib import Path
from launcher.doctor import reachable_nodes
from launcher.fleet import Fleet
from launcher.hosts import read_hostfile
from ligo_dist.config.cluster import Cluster

why = reachable_nodes(Fleet(read_hostfile(Path("hosts")), "hosts", Cluster(preflight_seconds=100)))
print(len(why), *(name for name, reason in why.items() if reason is not None))
"""


def test_a_restart_finds_those_that_stay_away(many):
    done = python("-c", _WHO_IS_THERE)
    assert (done.stdout, done.stderr) == (f"{NUM_HOSTS} {' '.join(AWAY)}\n", "")
