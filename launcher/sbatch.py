"""The sbatch file of a run: what contradicts itself in it, its text, and handing it to Slurm."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ligo_dist.config import Cluster, Slurm
from ligo_dist.runtime.errors import REQUEUE, Fault, LigoError

_WARNING_SECONDS = 60
"""Beside `cluster.grace_seconds`: for the signal to reach the ranks, and for the job to end."""

_OPTION = re.compile(r"--(?P<long>[\w-]+)(?:=(?P<value>.*))?|-(?P<short>\w)(?P<rest>\S.*)?")
_SHORT = {
    "N": "nodes",
    "n": "ntasks",
    "p": "partition",
    "A": "account",
    "t": "time",
    "c": "cpus-per-task",
    "G": "gpus",
}
_KEYS = {
    "nodes": "nodes",
    "ntasks": "ranks_per_node",
    "ntasks-per-node": "ranks_per_node",
    "tasks-per-node": "ranks_per_node",
    "partition": "partition",
    "account": "account",
    "time": "time",
    "gpus-per-node": "gpus_per_node",
    "cpus-per-task": "cpus_per_task",
}
"""The keys that say what an option of sbatch does."""
_ALWAYS = ("nodes", "ranks_per_node")
"""Keys whose options the job has in any case."""
_TIME = re.compile(r"(?:(\d+)-(\d+)(?::(\d+))?(?::(\d+))?)|(?:(\d+)(?::(\d+))?(?::(\d+))?)")
_NO_LIMIT = ("unlimited", "infinite")


def submission_faults(cluster: Cluster) -> list[Fault]:
    """What would go wrong with a job only once it has waited in the queue."""
    slurm = cluster.slurm
    faults = []
    if slurm.nodes is None:
        faults.append(Fault("cluster.slurm.nodes", "is missing; say how many nodes the job asks for"))
    if cluster.hostfile is not None:
        wrong = f"{cluster.hostfile!r}, but Slurm says which hosts the job has; leave it out"
        faults.append(Fault("cluster.hostfile", wrong))
    for key, option in (("include", "--nodelist"), ("exclude", "--exclude")):
        value = getattr(cluster, key)
        if value is not None:
            wrong = f"{value!r}, but which hosts the job has is not known yet; ask for them by"
            faults.append(Fault(f"cluster.{key}", f"{wrong} cluster.slurm.options: [{option}=HOSTS]"))
    on_processors = cluster.environment.get("DS_ACCELERATOR") == "cpu"
    if slurm.gpus_per_node is not None and slurm.ranks > slurm.gpus_per_node and not on_processors:
        wrong = f"{slurm.ranks} ranks want an accelerator each, and cluster.slurm.gpus_per_node is"
        faults.append(Fault("cluster.slurm.ranks_per_node", f"{wrong} {slurm.gpus_per_node}"))
    if slurm.nodes is not None and (cluster.min_nodes or 0) > slurm.nodes:
        wrong = f"{cluster.min_nodes}, and cluster.slurm.nodes asks for {slurm.nodes}"
        faults.append(Fault("cluster.min_nodes", wrong))
    faults += _time_faults(cluster)
    for index, option in enumerate(slurm.options):
        faults += [Fault(f"cluster.slurm.options[{index}]", wrong) for wrong in _wrong(option, slurm)]
    return faults


def _time_faults(cluster: Cluster) -> list[Fault]:
    key, time = "cluster.slurm.time", cluster.slurm.time
    if time is None or time.lower() in _NO_LIMIT:
        return []
    match = _TIME.fullmatch(time)
    if match is None:
        return [Fault(key, f"{time!r} is no time as Slurm writes it: 90 (minutes), 12:00:00 or 2-12:00:00")]
    days, *rest = (int(part or 0) for part in match.groups()[:4])
    first, second, third = match.groups()[4:]
    if first is not None:  # M, M:S or H:M:S
        rest = [int(first), int(second or 0), int(third)] if third else [0, int(first), int(second or 0)]
    hours, minutes, seconds = rest
    total, warning = ((days * 24 + hours) * 60 + minutes) * 60 + seconds, _warning_seconds(cluster)
    if 0 < total <= warning:  # 0: no limit
        wrong = f"{time!r} is {total} s, and the job is warned {warning} s before its end, so at once"
        return [Fault(key, f"{wrong}; ask for more, or lower cluster.grace_seconds")]
    return []


def _wrong(option: str, slurm: Slurm) -> Iterator[str]:
    match = _OPTION.fullmatch(option)
    if match is None or not option.isprintable():
        yield f"{option!r} is no option; each is one word, such as --qos=long"
        return
    name = match["long"] or _SHORT.get(match["short"], "")
    key = _KEYS.get(name)
    if key is not None and (key in _ALWAYS or getattr(slurm, key) is not None):
        yield f"{option!r} says what cluster.slurm.{key} is for; say it there alone"
    value = match["value"] or ""
    asks_for_gpus = name.startswith("gpus") or (name == "gres" and "gpu" in value)
    if asks_for_gpus and slurm.gpus_per_node is None and slurm.ranks_per_node is None:
        yield f"{option!r} does not say how many ranks a node has; say cluster.slurm.gpus_per_node or ranks_per_node"


def _warning_seconds(cluster: Cluster) -> int:
    return int(cluster.grace_seconds) + _WARNING_SECONDS


def sbatch_file(cluster: Cluster, words: Sequence[str], run_dir: Path) -> str:
    """The text of a job that types `ligo-dist run` in this directory, and asks to be queued again when it was stopped
    in mid-run.

    Args:
        cluster: what is asked of Slurm; `submission_faults` has nothing against it.
        words: the arguments of `ligo-dist run`, without those about Slurm.
        run_dir: the run's directory, whose name the job has.
    """
    slurm = cluster.slurm
    asked = ("partition", "account", "time", "gpus_per_node", "cpus_per_task")
    options = [
        f"--job-name={run_dir.name}",
        f"--nodes={slurm.nodes}",
        f"--ntasks-per-node={slurm.ranks}",
        *(
            f"--{key.replace('_', '-')}={getattr(slurm, key)}"
            for key in asked
            if getattr(slurm, key) is not None
        ),
        "--requeue",
        "--open-mode=append",
        f"--output={str(run_dir).replace('%', '%%')}/slurm-%j.log",
        f"--signal=B:USR1@{_warning_seconds(cluster)}",
        *slurm.options,
    ]
    python = cluster.python or sys.executable
    command = [python, "-m", "launcher", "run", "--slurm", "--nproc", str(slurm.ranks), *words]
    return _JOB.format(
        options="\n".join(f"#SBATCH {_quoted(option)}" for option in options),
        directory=shlex.quote(os.getcwd()),
        command=shlex.join(command),
        requeue=REQUEUE,
    )


def submit(file: Path) -> str:
    """Hand an sbatch file to Slurm, and give the number of the job.

    Raises:
        LigoError: Slurm is not there, or refuses it.
    """
    command = ["sbatch", "--parsable", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        raise LigoError(
            f"`{shlex.join(command)}` failed: {error}; is this a machine that submits jobs?"
        ) from None
    if done.returncode:
        raise LigoError(f"`{shlex.join(command)}` was refused: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]


def _quoted(option: str) -> str:
    """As sbatch reads it from its file: it knows quotes and backslashes as a shell does, and `#` begins a comment."""
    if not re.search(r"[\s'\"\\#]", option):
        return option
    return '"' + re.sub(r'(["\\])', r"\\\1", option) + '"'


_JOB = """\
#!/bin/bash
{options}

# Slurm's warning goes to the run, which writes a checkpoint and ends with {requeue}: then the job is queued again.
cd {directory} || exit 2
{command} &
run=$!
trap 'kill -USR1 "$run" 2>/dev/null' USR1 TERM
code=0
while kill -0 "$run" 2>/dev/null; do
    wait "$run"
    code=$?
done
if [ "$code" -gt 128 ]; then  # the wait itself was interrupted, and the run has ended since
    wait "$run"
    again=$?
    [ "$again" -eq 127 ] || code=$again
fi
if [ "$code" -eq {requeue} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
