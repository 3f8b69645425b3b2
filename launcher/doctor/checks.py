"""What is judged of each machine: this one, and what the others answered, held against what the run needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.command import deepspeed_program
from launcher.doctor.inspection import Questions, Visit
from launcher.doctor.ssh import SshFailure
from launcher.fleet import Fleet
from launcher.hosts import Node
from ligo_dist.config import Config
from ligo_dist.planning import Needs
from ligo_dist.runtime import quantities
from ligo_dist.runtime.files import EXPORTS_DIRECTORY
from ligo_dist.runtime.zero3 import Zero3
from ligo_dist.schedule import Plan

TOLERANCE = 0.15
"""The plan's memory is right to within this part (docs/accounting.md): with so much less a run may still fit."""

_FP32 = 4
_TRAINED = 4 * _FP32
"""Weights, gradient and AdamW's two moments of a parameter."""
_COMPUTED = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class RankMemory:
    """The least that a rank holds: bytes beside the processors, and bytes on its accelerator (0 where it has none)."""

    host: int
    device: int


def rank_memory(plan: Plan, needed: Needs, *, on_processors: bool) -> RankMemory:
    """The least that one rank holds at the peak. Where DeepSpeed offloads, which `Needs` leaves out, the
    partitions of the largest model alone."""
    config = plan.config
    if not Zero3.from_keys(config.deepspeed).offloads:
        memory = int(needed.memory * (1 - TOLERANCE))
        return RankMemory(memory, 0) if on_processors else RankMemory(0, memory)
    share = -(-max(stage.parameters for stage in plan.stages) // plan.world_size)
    trained, computed = _TRAINED * share, _COMPUTED[config.precision] * share
    if on_processors or _offloads_weights(config):
        return RankMemory(trained + computed, 0)
    return RankMemory(trained, computed)


def disk_held(run_dir: Path) -> int:
    """Bytes that a run which is resumed has there already; it will not take them twice."""
    files = [path for name in ("checkpoints", EXPORTS_DIRECTORY) for path in (run_dir / name).rglob("*")]
    return sum(path.stat().st_size for path in files if path.is_file())


def _offloads_weights(config: Config) -> bool:
    section = (config.deepspeed.get("zero_optimization") or {}).get("offload_param")
    return isinstance(section, dict) and section.get("device") == "cpu"


ALLOWED_CLOCK_SECONDS = 5.0
"""Clocks may differ by so much."""

NAMES = ("answers", "python", "packages", "devices", "run_dir", "disk", "memory", "port", "clock")
"""What is checked on each machine, in this order."""

THIS_MACHINE = "this machine"
"""The name in checks of the machine that starts the ranks; no host is called so."""

_MORE_MEMORY = "use more nodes, or end what takes it there"
_Findings = Iterator[tuple[str, str]]
"""Each how something is, and what to do: nothing where it is right."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at on one machine.

    Attributes:
        node: the machine's name.
        name: one of `NAMES`; `launcher` on this machine.
        found: how it is: a word or a number, or where it is wrong what is wrong with it.
        advice: what to do; empty where it is right.
    """

    node: str
    name: str
    found: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        return not self.advice

    def __str__(self) -> str:
        return f"{self.node}: {self.found}; {self.advice}" if self.advice else f"{self.node}: {self.found}"


@dataclass(frozen=True)
class Expected:
    """How every machine should be.

    Attributes:
        python: the launcher's version.
        packages: versions, the launcher's where it has them.
        code: hash of the launcher's code.
        disk: bytes that are still to be written into the run directory.
        memory: what a rank holds.
        on_processors: whether the ranks need no accelerator.
        is_alone: whether there is one machine, which shares nothing.
        questions: what they were asked.
    """

    python: str
    packages: Mapping[str, str | None]
    code: str | None
    disk: int
    memory: RankMemory
    on_processors: bool
    is_alone: bool
    questions: Questions


def judge(node: Node, answer: Visit | SshFailure, expected: Expected) -> list[Check]:
    """All checks of one machine; of one that does not answer, that alone."""
    if isinstance(answer, SshFailure):
        return [Check(node.name, "answers", answer.found, answer.advice)]
    looks = (
        ("python", _python(answer, expected)),
        ("packages", _packages(answer, expected)),
        ("devices", _devices(answer, expected, node)),
        ("run_dir", _run_dir(answer, expected)),
        ("disk", _disk(answer, expected)),
        ("memory", _memory(answer, expected, node)),
        ("port", _port(answer, expected)),
        ("clock", _clock(answer)),
    )
    checks = [Check(node.name, name, *finding) for name, findings in looks for finding in findings]
    return [Check(node.name, "answers", "yes"), *checks]


def judge_names(
    nodes: Sequence[Node], answers: Sequence[Visit | SshFailure], on_processors: bool
) -> Iterator[Check]:
    """The machines that are there under more than one name: their ranks would share accelerators."""
    names: dict[str, str] = {}
    for node, answer in zip(nodes, answers, strict=True):
        machine = answer.machine if isinstance(answer, Visit) else None
        first = node.name if machine is None else names.setdefault(machine, node.name)
        if first != node.name:
            advice = "" if on_processors else "name it once in the host file, with all its slots"
            yield Check(node.name, "devices", f"is {first} under another name", advice)


def _python(visit: Visit, expected: Expected) -> _Findings:
    there = visit.python
    if there == expected.python:
        yield there, ""
    else:
        found = f"python {there} at {visit.executable}, the launcher has {expected.python}"
        yield found, "name the environment's python in cluster.python"


def _packages(visit: Visit, expected: Expected) -> _Findings:
    for name, there in visit.packages.items():
        wanted = expected.packages[name]
        if there is None:
            advice = f"install {name} {wanted} there" if wanted else f"install {name} there"
            yield f"{name} is missing from {visit.executable}", advice
        elif there != wanted:
            yield f"{name} {there}, the launcher has {wanted}", "install the same there"
        else:
            yield "same", ""
    if visit.code is None:
        yield f"ligo_dist is missing from {visit.executable}", "install this project there"
    elif visit.code != expected.code:
        yield "ligo_dist's code is not the launcher's", "install the same commit there"


def _devices(visit: Visit, expected: Expected, node: Node) -> _Findings:
    there, wanted = len(visit.accelerators), max(node.devices) + 1
    if expected.on_processors:
        yield "processors", ""
    elif there < wanted:
        found = f"{_counted(there, 'accelerator')}, and the host file has {_counted(wanted, 'slot')}"
        yield found, "correct its slots, or see what `nvidia-smi` says there"
    elif visit.torch is not None and visit.torch["count"] < wanted:
        why = f": {visit.torch['why']}" if visit.torch["why"] else ""
        found = f"torch sees {visit.torch['count']} of {_counted(there, 'accelerator')}{why}"
        yield found, "install a torch that is built for the driver there"
    elif visit.torch is not None and not visit.torch["nccl"]:
        yield "torch has no NCCL, by which accelerators talk", "install a torch that is built with it"
    else:
        yield str(there), ""


def _run_dir(visit: Visit, expected: Expected) -> _Findings:
    shown = f"run_dir {expected.questions.run_dir!r} in {expected.questions.directory}"
    if visit.unwritable is not None:
        found = f"{shown} cannot be written: {visit.unwritable}"
        yield found, "let this user write there, or choose another run_dir"
    elif visit.sees_mark and visit.trace_seen:
        yield "writable" if expected.is_alone else "shared", ""
    else:
        advice = "put it on a file system that all hosts mount at the same path"
        yield f"{shown} is not the launcher's", advice


def _disk(visit: Visit, expected: Expected) -> _Findings:
    free, wanted = visit.disk, quantities.size(expected.disk)
    if free is not None and free < expected.disk:
        place = f"free for run_dir {expected.questions.run_dir!r}"
        found = f"{quantities.size(free)} {place}, and {wanted} will be written"
        yield found, "make room, or keep fewer checkpoints (checkpoints.keep)"
    elif free is not None:
        yield quantities.size(free), ""


def _memory(visit: Visit, expected: Expected, node: Node) -> _Findings:
    there = visit.accelerators
    used = [there[device] for device in node.devices if device < len(there)]
    on_device = min((known for known in used if known is not None), default=None)
    ranks = f"{_counted(node.num_ranks, 'rank')} hold"
    for free, wanted, place, who in (
        (visit.memory, node.num_ranks * expected.memory.host, "of memory free", ranks),
        (on_device, expected.memory.device, "free on an accelerator", "a rank holds"),
    ):
        if free is None or wanted == 0:
            continue
        if free < wanted:
            found = f"{quantities.size(free)} {place}, and {who} at least {quantities.size(wanted)}"
            yield found, _MORE_MEMORY
        else:
            yield quantities.size(free), ""


def _port(visit: Visit, expected: Expected) -> _Findings:
    address, port = expected.questions.master_address, expected.questions.master_port
    if visit.cannot_listen is not None:
        found = f"cannot listen on port {port}: {visit.cannot_listen}"
        yield found, "end what listens there, or choose another cluster.master_port"
    elif visit.cannot_reach is not None:
        found = f"does not reach {address} port {port}: {visit.cannot_reach}"
        advice = "open the port on the first host, or give cluster.master_address an address that all reach"
        yield found, advice
    elif visit.was_sent:
        yield "open", ""


def _clock(visit: Visit) -> _Findings:
    if abs(visit.clock) <= ALLOWED_CLOCK_SECONDS:
        yield "same", ""
    else:
        way = "ahead of" if visit.clock > 0 else "behind"
        found = f"its clock is {quantities.duration(abs(visit.clock))} {way} the launcher's"
        yield found, "have it set by NTP (chrony, systemd-timesyncd)"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_PROGRAMS = {
    "pdsh": ("pdsh",),
    "openmpi": ("mpirun", "ompi_info"),
    "impi": ("mpirun",),
    "mvapich": ("mpiname", "mpirun"),
}
"""What DeepSpeed calls for each `cluster.launcher`, or looks for."""

_PLAIN_SIGNS = "/._-+=:,@#~"

_INSTALL = {
    "pdsh": "`apt-get install pdsh`, `dnf install pdsh pdsh-rcmd-ssh` or `conda install -c conda-forge pdsh`",
    "openmpi": "`apt-get install openmpi-bin`, or load Open MPI's module",
    "impi": "install Intel MPI and source its setvars.sh, or load its module",
    "mvapich": "install MVAPICH2-GDR and put its bin directory on the PATH, or load its module",
}


def judge_this_machine(fleet: Fleet, run_dir: str) -> Iterator[Check]:
    """What is missing, if anything is, and the paths that do not reach the hosts as they are. Within an allocation
    Slurm starts the ranks, and is there."""
    if fleet.kind == "allocation":
        return
    cluster = fleet.cluster
    deepspeed = deepspeed_program(cluster)
    if shutil.which(deepspeed) is None:
        advice = "install deepspeed there, or name the environment's python in cluster.python"
        yield _missing(f"there is no {deepspeed}, which starts the ranks", advice)
    if fleet.is_here:
        return
    # DeepSpeed quotes arguments with a space, and nothing else; pdsh puts numbers in the place of %n.
    for path, allowed in ((str(fleet.directory), ""), (deepspeed, ""), (run_dir, " ")):
        sign = next(
            (sign for sign in path if not sign.isalnum() and sign not in _PLAIN_SIGNS + allowed), None
        )
        if sign is not None:
            what = f"{sign!r}, which a remote shell or pdsh takes for something else"
            if sign == " ":
                what = "a space, at which a remote shell cuts it"
            yield _missing(f"{path!r} has {what}", "choose a path without")
    needed, install = _PROGRAMS[cluster.launcher], _INSTALL[cluster.launcher]
    missing = [name for name in needed if shutil.which(name) is None]
    for name in missing:
        yield _missing(
            f"there is no `{name}` on the PATH, and cluster.launcher is {cluster.launcher}", install
        )
    if cluster.launcher == "pdsh" and not missing and "ssh" not in (modules := _rcmd_modules()):
        yield _missing(f"its pdsh cannot go through ssh: its rcmd modules are {', '.join(modules)}", install)


def _missing(found: str, advice: str) -> Check:
    return Check(THIS_MACHINE, "launcher", found, advice)


def _rcmd_modules() -> list[str]:
    """The ways that pdsh has to other machines."""
    said = ""
    with suppress(OSError):  # a file of another kind of machine
        said = subprocess.run(["pdsh", "-V"], capture_output=True, text=True, check=False).stdout
    listed = re.search(r"^rcmd modules: ([\w,]+)", said, re.MULTILINE)
    return listed[1].split(",") if listed else ["none"]
