"""Which machines a run is started on: DeepSpeed's host file and its filters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ligo_dist.runtime.errors import LigoError, did_you_mean

_LINE = re.compile(r"(?P<name>\S+)\s+slots=(?P<slots>\d+)")


@dataclass(frozen=True)
class Node:
    """A machine of the run.

    Attributes:
        name: as the host file has it, and as ssh reaches it.
        devices: the slots that are used, a rank each: numbers of accelerators, or of nothing on processors.
    """

    name: str
    devices: tuple[int, ...]

    @property
    def num_ranks(self) -> int:
        return len(self.devices)


def read_hostfile(path: Path) -> list[Node]:
    """The machines of a file with a line `HOST slots=N` for each; empty lines and what follows `#` do not count.

    Raises:
        LigoError: the file cannot be read, or a line is no such line; its number is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise LigoError(f"hostfile: {str(path)!r} cannot be read: {reason}") from None
    nodes: list[Node] = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise LigoError(f"hostfile: {path}:{number}: {text!r} should be `HOST slots=N`")
        name, slots = match["name"], int(match["slots"])
        if slots == 0:
            raise LigoError(
                f"hostfile: {path}:{number}: {name} has no slots; leave the host out, or give it some"
            )
        if any(node.name == name for node in nodes):
            raise LigoError(f"hostfile: {path}:{number}: {name} is there twice; add its slots up in one line")
        nodes.append(Node(name, tuple(range(slots))))
    if not nodes:
        raise LigoError(f"hostfile: {path} names no host; a line is `HOST slots=N`")
    return nodes


def select_nodes(nodes: Sequence[Node], include: str | None, exclude: str | None) -> list[Node]:
    """The machines, or slots of machines, that a filter `host1@host2:0,2` leaves.

    Args:
        nodes: all of them; their order stays.
        include: what is used; None: everything.
        exclude: what is not used; None: nothing. Only one of both may be given.

    Raises:
        LigoError: both are given, a host or slot is not in the host file, or nothing is left.
    """
    if include is not None and exclude is not None:
        raise LigoError(
            f"include, exclude: {include!r} and {exclude!r} cannot be given together; one of them will do"
        )
    if include is not None:
        chosen = _filter("include", include, nodes)
        kept = [Node(node.name, chosen[node.name]) for node in nodes if node.name in chosen]
    else:
        dropped = _filter("exclude", exclude, nodes) if exclude is not None else {}
        kept = [
            Node(
                node.name,
                tuple(device for device in node.devices if device not in dropped.get(node.name, ())),
            )
            for node in nodes
        ]
    kept = [node for node in kept if node.devices]
    if not kept:
        raise LigoError(f"exclude: {exclude!r} leaves no host to run on")
    return kept


def _filter(key: str, text: str, nodes: Sequence[Node]) -> dict[str, tuple[int, ...]]:
    """The slots that a filter names, by host."""
    slots = {node.name: node.devices for node in nodes}
    named: dict[str, tuple[int, ...]] = {}
    for part in text.split("@"):
        name, colon, numbers = part.strip().partition(":")
        if name not in slots:
            hint = did_you_mean(name, slots, f"; it has {', '.join(slots)}")
            raise LigoError(f"{key}: {text!r}: the host file has no host {name!r}{hint}")
        if name in named:
            raise LigoError(f"{key}: {text!r} names {name} twice; write its slots as {name}:0,1")
        if not colon:
            named[name] = slots[name]
            continue
        words = [word.strip() for word in numbers.split(",")]
        wrong = [word for word in words if not word.isdecimal() or int(word) not in slots[name]]
        if wrong:
            raise LigoError(
                f"{key}: {text!r}: {name} has the slots {_shown(slots[name])}, and no {wrong[0]!r}"
            )
        named[name] = tuple(sorted({int(word) for word in words}))
    return named


def _shown(devices: tuple[int, ...]) -> str:
    return ",".join(map(str, devices))
