"""Slurm's commands, their whole command lines, and what the environment says, with a stand-in for Slurm."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher import cli
from launcher.fleet import choose_fleet
from launcher.hosts import Node
from launcher.sbatch import submission_faults
from launcher.slurm import allocated_nodes
from ligo_dist.config import Cluster, load_config
from ligo_dist.runtime.errors import LigoError

if TYPE_CHECKING:
    from tests.launcher.conftest import Site

HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "quickstart.yaml"
ALLOCATION = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "4711"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with Slurm's commands, on the PATH."""
    for name in ("srun", "sbatch", "scontrol"):
        command = tmp_path / name
        command.write_text(f"#!{sys.executable}\n" + (HERE / "fake_slurm.py").read_text())
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CALLS", str(tmp_path / "slurm-calls"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls(directory: Path) -> list[list[str]]:
    file = directory / "slurm-calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize(
    ("environ", "given", "ranks"),
    [
        ({}, None, 1),
        ({}, 3, 3),
        ({"SLURM_GPUS_ON_NODE": "8"}, None, 8),
        ({"SLURM_GPUS_PER_NODE": "h100:4"}, None, 4),
        ({"SLURM_NTASKS_PER_NODE": "2"}, None, 2),
        ({"SLURM_GPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "2"}, None, 8),
        ({"SLURM_TASKS_PER_NODE": "4(x2)"}, None, 4),
        ({"SLURM_NTASKS_PER_NODE": "2(x2)"}, None, 2),
        ({"SLURM_TASKS_PER_NODE": "3,3"}, None, 3),
        ({"SLURM_TASKS_PER_NODE": "64(x2)", "SLURM_NTASKS_PER_NODE": "2"}, None, 2),
        ({"SLURM_GPUS_PER_NODE": "a100"}, None, 1),
        ({"SLURM_GPUS_PER_NODE": "1g.10gb:2"}, None, 2),
        ({"SLURM_GPUS_PER_NODE": "a100:4,v100:2"}, None, 6),
        ({"SLURM_GPUS_PER_NODE": "gpu:a100:4"}, None, 4),
        ({"SLURM_GPUS": "h100:8"}, None, 4),
        ({"SLURM_GPUS_ON_NODE": "0", "SLURM_TASKS_PER_NODE": "2(x2)"}, None, 2),
        ({"SLURM_GPUS_PER_NODE": "(null)"}, 3, 3),
    ],
)
def test_the_nodes_of_an_allocation(environ: dict[str, str], given: int | None, ranks: int):
    devices = tuple(range(ranks))
    assert allocated_nodes({**ALLOCATION, **environ}, given) == [
        Node("node1", devices),
        Node("node2", devices),
    ]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SLURM_GPUS_PER_NODE": "(null)"}, "SLURM_GPUS_PER_NODE: '(null)' is no number of GPUs"),
        ({"SLURM_GPUS": "a100:3"}, "SLURM_GPUS: 'a100:3' over 2 nodes; say --nproc"),
        ({"SLURM_TASKS_PER_NODE": "4(x3)"}, "SLURM_TASKS_PER_NODE: '4(x3)' does not suit 2 nodes"),
        ({"SLURM_NTASKS_PER_NODE": "four"}, "SLURM_NTASKS_PER_NODE: 'four' is no list of numbers"),
        ({"SLURM_TASKS_PER_NODE": "4,2"}, "these would be 4 on node1, 2 on node2; say --nproc"),
    ],
)
def test_what_slurm_says_and_cannot_be_used(environ: dict[str, str], said: str):
    with pytest.raises(LigoError, match=re.escape(said)):
        choose_fleet(Cluster(), slurm=True, nproc=None, accelerators=0, environ={**ALLOCATION, **environ})


def test_a_run_in_an_allocation(slurm: Path, site: Site):
    values = {"GREETING": "a, b c"}
    environ = {**ALLOCATION, "SLURM_NTASKS_PER_NODE": "2", "MLFLOW_TRACKING_TOKEN": "planted, secret"}
    (site.directory / "bin" / "python").symlink_to(sys.executable)
    code, out, err = site.launch("--slurm", f"cluster.environment={json.dumps(values)}", **environ)
    assert (code, out) == (0, "rank 0 was started 1 times\n"), err
    assert "\n  srun --nodes=2 --ntasks=4 " in err
    starts = sorted(site.starts, key=lambda start: start["RANK"])
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "GREETING")
    assert [tuple(start[name] for name in names) for start in starts] == [
        ("0", "0", "4", "node1", "a, b c"),
        ("1", "1", "4", "node1", "a, b c"),
        ("2", "0", "4", "node1", "a, b c"),
        ("3", "1", "4", "node1", "a, b c"),
    ]
    assert {start["MLFLOW_TRACKING_TOKEN"] for start in starts} == {"planted, secret"}
    assert "secret" not in json.dumps(calls(slurm))


def submit(*arguments: str) -> int:
    return cli.main(["submit", str(CONFIG), "run_dir=run", *arguments])


def test_the_job_that_is_submitted(slurm: Path, capsys: pytest.CaptureFixture[str]):
    asked = "{nodes: 2, partition: long, time: '2-00:00:00', ranks_per_node: 4, options: [--qos=high]}"
    assert submit(f"cluster.slurm={asked}", "cluster.grace_seconds=90.0", "tracking.run_name=a, b c") == 0
    file = slurm / "run" / "job.sbatch"
    assert capsys.readouterr().out == (
        f"job 4711, written to {file}; its output goes to {slurm / 'run' / 'slurm-JOB.log'}\n"
    )
    assert calls(slurm) == [["sbatch", "--parsable", str(file)]]
    lines = file.read_text().splitlines()
    assert [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")] == [
        "--job-name=run", "--nodes=2", "--ntasks-per-node=4", "--partition=long", "--time=2-00:00:00", "--requeue",
        "--open-mode=append", f"--output={slurm}/run/slurm-%j.log", "--signal=B:USR1@150", "--qos=high",
    ]  # fmt: skip
    assert "'tracking.run_name=a, b c' &" in file.read_text()


def test_a_job_that_is_only_shown(slurm: Path, capsys: pytest.CaptureFixture[str]):
    assert submit("cluster.slurm.nodes=1", "cluster.slurm.gpus_per_node=8", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "#SBATCH --gpus-per-node=8\n" in shown
    assert "--slurm --nproc 8" in shown
    assert calls(slurm) == []
    assert not (slurm / "run").exists()


def test_what_is_typed_reaches_the_job_as_it_was_typed(slurm: Path, capsys: pytest.CaptureFixture[str]):
    cluster = slurm / "our cluster.yaml"
    cluster.write_text("grace_seconds: 90.0\nslurm: {nodes: 2, time: 12:00:00, cpus_per_task: 8}\n")
    place = slurm / "there"
    name = 'runs/my "best" run #3 100%'
    code = cli.main(
        [
            *("submit", str(CONFIG), f"run_dir={name}", f"cluster.directory={place}", "--dry-run"),
            *("--cluster", str(cluster), "cluster.slurm.options=['--comment=it''s mine']"),
        ]
    )
    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    options = [
        shlex.split(line.removeprefix("#SBATCH"), comments=True) for line in lines if "#SBATCH" in line
    ]
    assert [word for words in options for word in words] == [
        "--job-name=my \"best\" run #3 100%", "--nodes=2", "--ntasks-per-node=1", "--time=12:00:00",
        "--cpus-per-task=8", "--requeue", "--open-mode=append",
        f"--output={place}/runs/my \"best\" run #3 100%%/slurm-%j.log", "--signal=B:USR1@150", "--comment=it's mine",
    ]  # fmt: skip
    command = shlex.split(next(line for line in lines if line.endswith(" &")))
    assert command[1:-1] == [
        *("-m", "launcher", "run", "--slurm", "--nproc", "1", str(CONFIG), "--cluster", str(cluster)),
        *(f"run_dir={name}", f"cluster.directory={place}", "cluster.slurm.options=['--comment=it''s mine']"),
    ]
    assert f"cd {slurm} || exit 2" in lines  # where it was typed, as every path in it may be relative to that


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cluster.hostfile=hosts"], "cluster.hostfile: 'hosts', but Slurm says which hosts the job has"),
        (["cluster.exclude=node3"], "by cluster.slurm.options: [--exclude=HOSTS]"),
        (
            ["cluster.slurm.gpus_per_node=4", "cluster.slurm.ranks_per_node=8"],
            "8 ranks want an accelerator each",
        ),
        (["cluster.min_nodes=3"], "cluster.min_nodes: 3, and cluster.slurm.nodes asks for 2"),
        (["cluster.slurm.time=half a day"], "cluster.slurm.time: 'half a day' is no time as Slurm writes it"),
        (["cluster.slurm.time=2:00"], "'2:00' is 120 s, and the job is warned 120 s before its end"),
        (["cluster.slurm.time=0-0:1"], "'0-0:1' is 60 s"),
        (["cluster.slurm.options=[--constraint a100]"], "'--constraint a100' is no option; each is one word"),
        (["cluster.slurm.options=[--requeue, long]"], "cluster.slurm.options[1]: 'long' is no option"),
        (["cluster.slurm.options=[-N4]"], "'-N4' says what cluster.slurm.nodes is for; say it there alone"),
        (
            ["cluster.slurm.options=[--time=60]", "cluster.slurm.time=2-12"],
            "'--time=60' says what cluster.slurm.time is for",
        ),
        (["cluster.slurm.options=['--gres=gpu:8']"], "does not say how many ranks a node has"),
    ],
)
def test_what_contradicts_itself_is_told_before_the_queue(overrides: list[str], said: str):
    (fault,) = submission_faults(load_config(CONFIG, ["cluster.slurm.nodes=2", *overrides]).cluster)
    assert said in str(fault)


@pytest.mark.parametrize(
    "options",
    [
        ["cluster.slurm.time=3:00"],
        ["cluster.slurm.time=90"],
        ["cluster.slurm.time=UNLIMITED"],
        ["cluster.slurm.time=1-00:00:00"],
        [
            "cluster.slurm.options=[--time=60, -Cgpu, --exclusive, '--gres=gpu:2']",
            "cluster.slurm.ranks_per_node=2",
        ],
    ],
)
def test_what_slurm_takes_is_taken(options: list[str]):
    assert submission_faults(load_config(CONFIG, ["cluster.slurm.nodes=2", *options]).cluster) == []


def test_mistakes(slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    assert submit() == 2
    assert "cluster.slurm.nodes: is missing; say how many nodes the job asks for" in capsys.readouterr().err
    assert submit("cluster.slurm.nodes=33", "cluster.hostfile=hosts") == 2
    assert ": 4 faults\n" in capsys.readouterr().err  # of the job and of the run, in one error
    assert submit("cluster.slurm={nodes: 1, partition: closed}") == 2
    assert "was refused: sbatch: error: invalid partition specified: closed" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "/nowhere")
    assert submit("cluster.slurm.nodes=1") == 2
    assert "is this a machine that submits jobs?" in capsys.readouterr().err


@pytest.mark.parametrize(("ending", "requeued"), [("75", True), ("1", False)])
def test_a_job_that_was_warned_is_queued_again(slurm: Path, ending: str, requeued: bool):
    """The job's script itself, with a stand-in for the run that ends so when it gets the signal."""
    assert submit("cluster.slurm.nodes=1") == 0
    script = slurm / "run" / "job.sbatch"
    run = f"trap 'sleep 0.5; exit {ending}' USR1; touch begun; while :; do sleep 0.1; done"
    lines = [
        f'bash -c "{run}" &' if line.endswith(" &") else line for line in script.read_text().splitlines()
    ]
    script.write_text("\n".join(lines) + "\n")
    job = subprocess.Popen(["bash", str(script)], env={**os.environ, **ALLOCATION}, cwd=slurm)
    deadline = time.monotonic() + 30
    while not (slurm / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == int(ending)
    assert (["scontrol", "requeue", "4711"] in calls(slurm)) == requeued
