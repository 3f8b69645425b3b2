"""Judging what the machines answered: what each of them should be like, and what to do where one is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from launcher.doctor.needs import Memory
from launcher.doctor.ssh_failures import Failure
from launcher.doctor.visits import Visit
from launcher.hosts import Node
from ligo_dist import quantities

ALLOWED_CLOCK_SECONDS = 5.0
"""Clocks may differ by so much."""
_MORE_MEMORY = "use more nodes, or end what takes it there"

NAMES = (
    "answers",
    "python",
    "packages",
    "config",
    "devices",
    "run_dir",
    "disk",
    "memory",
    "port",
    "clock",
)
"""What is checked, in this order."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at on one machine.

    Attributes:
        node: the machine's name.
        name: one of `NAMES`.
        ok: whether it is as it should be.
        found: how it is: a word or a number, or where it is wrong what is wrong with it.
        advice: what to do; empty where it is right.
    """

    node: str
    name: str
    ok: bool
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.node}: {self.found}; {self.advice}" if self.advice else f"{self.node}: {self.found}"


@dataclass(frozen=True)
class Expected:
    """How every machine should be.

    Attributes:
        python: the launcher's version.
        packages: versions, the launcher's where it has them.
        code: hash of the launcher's code.
        config_path, config: the configuration's path and hash.
        directory: where the machines work.
        run_dir: the directory they share.
        disk: bytes that are still to be written there.
        memory: what a rank holds.
        on_processors: whether the ranks need no accelerator.
        master_address, master_port: where the ranks meet.
    """

    python: str
    packages: Mapping[str, str | None]
    code: str | None
    config_path: str
    config: str | None
    directory: str
    run_dir: str
    disk: int
    memory: Memory
    on_processors: bool
    master_address: str
    master_port: int


def judge(node: Node, answer: Visit | Failure, expected: Expected) -> list[Check]:
    """All checks of one machine; of one that does not answer, that alone."""
    if isinstance(answer, Failure):
        return [_wrong(node, "answers", answer.found, answer.advice)]
    checks = [_right(node, "answers", "yes")]
    for look_at in (
        _python,
        _packages,
        _code,
        _config,
        _accelerators,
        _run_dir,
        _disk,
        _host_memory,
        _device_memory,
        _port,
        _clock,
    ):
        checks += look_at(node, answer, expected)
    return checks


def _right(node: Node, name: str, found: str) -> Check:
    return Check(node.name, name, True, found)


def _wrong(node: Node, name: str, found: str, advice: str) -> Check:
    return Check(node.name, name, False, found, advice)


def _python(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    there = visit.look.python
    if there == expected.python:
        yield _right(node, "python", there)
    else:
        found = f"python {there} at {visit.look.executable}, the launcher has {expected.python}"
        yield _wrong(node, "python", found, "name the environment's python in cluster.python")


def _packages(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    for name, there in visit.look.packages.items():
        wanted = expected.packages[name]
        if there is None:
            advice = f"install {name} {wanted} there" if wanted else f"install {name} there"
            yield _wrong(node, "packages", f"{name} is missing from {visit.look.executable}", advice)
        elif there != wanted:
            found = f"{name} {there}, the launcher has {wanted}"
            yield _wrong(node, "packages", found, "install the same there")
        else:
            yield _right(node, "packages", "same")


def _code(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    if visit.look.code is None:
        found = f"ligo_dist is missing from {visit.look.executable}"
        yield _wrong(node, "packages", found, "install this project there")
    elif visit.look.code != expected.code:
        yield _wrong(
            node, "packages", "ligo_dist's code is not the launcher's", "install the same commit there"
        )
    else:
        yield _right(node, "packages", "same")


def _config(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    if visit.look.config == expected.config:
        yield _right(node, "config", "same")
        return
    wrong = "cannot be read" if visit.look.config is None else "is not what the launcher reads"
    found = f"{expected.config_path!r} in {expected.directory} {wrong}"
    yield _wrong(node, "config", found, "share the directory, or say in cluster.directory where it is there")


def _accelerators(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    there, wanted = len(visit.look.accelerators), max(node.devices) + 1
    if expected.on_processors:
        yield _right(node, "devices", "unused")
    elif there >= wanted:
        yield _right(node, "devices", str(there))
    else:
        found = f"{_counted(there, 'accelerator')}, and the host file has {_counted(wanted, 'slot')}"
        yield _wrong(node, "devices", found, "correct its slots, or see what `nvidia-smi` says there")


def _run_dir(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    shown = f"run_dir {expected.run_dir!r} in {expected.directory}"
    if visit.look.unwritable is not None:
        found = f"{shown} cannot be written: {visit.look.unwritable}"
        yield _wrong(node, "run_dir", found, "let this user write there, or choose another run_dir")
    elif visit.look.sees_mark and visit.trace_seen:
        yield _right(node, "run_dir", "shared")
    else:
        advice = "put it on a file system that all hosts mount at the same path"
        yield _wrong(node, "run_dir", f"{shown} is not the launcher's", advice)


def _disk(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    free = visit.look.disk
    if free is None:
        return
    if free >= expected.disk:
        yield _right(node, "disk", quantities.size(free))
    else:
        place = f"free for run_dir {expected.run_dir!r}"
        found = f"{quantities.size(free)} {place}, and {quantities.size(expected.disk)} will be written"
        yield _wrong(node, "disk", found, "make room, or keep fewer checkpoints (checkpoints.keep)")


def _host_memory(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    free, wanted = visit.look.memory, node.num_ranks * expected.memory.host
    if free is None or wanted == 0:
        return
    if free >= wanted:
        yield _right(node, "memory", quantities.size(free))
    else:
        held = f"{_counted(node.num_ranks, 'rank')} hold at least {quantities.size(wanted)}"
        yield _wrong(node, "memory", f"{quantities.size(free)} of memory free, and {held}", _MORE_MEMORY)


def _device_memory(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    there, wanted = visit.look.accelerators, expected.memory.device
    used = [there[device] for device in node.devices if device < len(there)]
    free = min((known for known in used if known is not None), default=None)
    if free is None or wanted == 0:
        return
    if free >= wanted:
        yield _right(node, "memory", quantities.size(free))
    else:
        found = f"{quantities.size(free)} free on an accelerator, and a rank holds at least {quantities.size(wanted)}"
        yield _wrong(node, "memory", found, _MORE_MEMORY)


def _port(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    port = expected.master_port
    if visit.look.cannot_listen is not None:
        found = f"cannot listen on port {port}: {visit.look.cannot_listen}"
        yield _wrong(node, "port", found, "end what listens there, or choose another cluster.master_port")
    elif visit.cannot_reach is not None:
        found = f"does not reach {expected.master_address} port {port}: {visit.cannot_reach}"
        advice = "open the port on the first host, or give cluster.master_address an address that all reach"
        yield _wrong(node, "port", found, advice)
    elif visit.was_sent:
        yield _right(node, "port", "open")


def _clock(node: Node, visit: Visit, expected: Expected) -> Iterator[Check]:
    if abs(visit.clock) <= ALLOWED_CLOCK_SECONDS:
        yield _right(node, "clock", "same")
        return
    way = "ahead of" if visit.clock > 0 else "behind"
    found = f"its clock is {quantities.duration(abs(visit.clock))} {way} the launcher's"
    yield _wrong(node, "clock", found, "have it set by NTP (chrony, systemd-timesyncd)")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
