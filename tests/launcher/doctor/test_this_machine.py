from __future__ import annotations

import pytest

from launcher.doctor.checks import judge_this_machine
from launcher.fleet import Fleet
from launcher.hosts import Node
from ligo_dist.config import Cluster

PDSH = "`apt-get install pdsh`, `dnf install pdsh pdsh-rcmd-ssh` or `conda install -c conda-forge pdsh`"


@pytest.fixture
def machine(hosts, monkeypatch):
    """Nothing but `programs` is on the PATH, and a `deepspeed` among them."""
    monkeypatch.setenv("PATH", str(hosts.programs))
    hosts.program("deepspeed", "exit 0")
    return hosts


def missing(machine, kind="hosts", run_dir="runs/my own #3", **cluster) -> list[str]:
    given = Cluster.model_validate({"python": str(machine.programs / "python"), **cluster})
    fleet = Fleet([Node("node1", (0,))], kind, given)
    return [str(check) for check in judge_this_machine(fleet, run_dir)]


@pytest.mark.parametrize(
    ("launcher", "needed"),
    [
        ("openmpi", ["mpirun", "ompi_info"]),
        ("impi", ["mpirun"]),
        ("mvapich", ["mpiname", "mpirun"]),
    ],
)
def test_each_launcher_has_its_programs(machine, launcher, needed):
    lines = [line.partition("; ") for line in missing(machine, launcher=launcher)]
    assert [found for found, _, _ in lines] == [
        f"this machine: there is no `{name}` on the PATH, and cluster.launcher is {launcher}"
        for name in needed
    ]
    assert all("install" in advice for _, _, advice in lines)
    for name in needed:
        machine.program(name, "exit 0")
    assert missing(machine, launcher=launcher) == []


def test_no_pdsh(machine):
    (machine.programs / "pdsh").unlink()
    assert missing(machine) == [
        f"this machine: there is no `pdsh` on the PATH, and cluster.launcher is pdsh; {PDSH}"
    ]


@pytest.mark.parametrize(
    ("script", "modules"),
    [
        (
            "echo pdsh-2.34; echo 'rcmd modules: rsh,exec (default: rsh)'; echo 'misc modules: ssh'",
            "rsh, exec",
        ),
        ("echo 'pdsh@here: no modules' >&2; exit 1", "none"),
    ],
)
def test_a_pdsh_without_its_module_for_ssh(machine, script, modules):
    machine.program("pdsh", script)
    assert missing(machine) == [
        f"this machine: its pdsh cannot go through ssh: its rcmd modules are {modules}; {PDSH}"
    ]


def test_a_pdsh_of_another_kind_of_machine(machine):
    (machine.programs / "pdsh").write_bytes(b"\x7fELF of no machine")
    (line,) = missing(machine)
    assert "its rcmd modules are none" in line


@pytest.mark.parametrize("modules", ["ssh", "exec,ssh"])
def test_a_pdsh_that_goes_through_ssh(machine, modules):
    machine.program("pdsh", f"echo 'rcmd modules: {modules}'")
    assert missing(machine) == []


@pytest.mark.parametrize("kind", ["here", "hosts"])
def test_deepspeed_stands_beside_the_python(machine, kind):
    assert missing(machine, kind) == []
    assert missing(machine, kind, python="/opt/none/bin/python") == [
        "this machine: there is no /opt/none/bin/deepspeed, which starts the ranks; install deepspeed there, or name"
        " the environment's python in cluster.python"
    ]


def test_slurm_needs_none_of_it(machine):
    assert missing(machine, "allocation", python="/opt/none/bin/python") == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"directory": "/shared/my runs"}, "'/shared/my runs' has a space, at which a remote shell cuts it"),
        ({"run_dir": "runs/100%new"}, "'runs/100%new' has '%', which a remote shell or pdsh takes for"),
        ({"run_dir": "runs/a&b"}, "'runs/a&b' has '&', which"),
        ({"run_dir": "runs/$HOME"}, "'runs/$HOME' has '$', which"),
    ],
)
def test_paths_that_a_remote_shell_or_pdsh_would_read(machine, keys, said):
    (line,) = missing(machine, **keys)
    assert line.startswith(f"this machine: {said}")
    assert line.endswith("; choose a path without")
    assert missing(machine, "here", **keys) == []
