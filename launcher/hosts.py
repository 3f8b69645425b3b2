"""Which machines a run is started on: DeepSpeed's host file and its filters."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ligo_dist.runtime.errors import LigoError, did_you_mean

_LINE = re.compile(r"(?P<name>\S+)\s+slots=(?P<slots>\d+)(?:\s+(?!slots=)[\w-]+=\S*)*")
"""As DeepSpeed takes it: what follows the slots is for others, such as Open MPI's `max_slots=8`."""
_BRACKETED = re.compile(r"(?P<user>[^@]*@)?\[(?P<address>[0-9a-fA-F:.%\w]*:[^\]]*)\]")


@dataclass(frozen=True)
class Node:
    """A machine of the run.

    Attributes:
        name: as the host file has it, and as ssh reaches it: maybe with a user, `USER@HOST`.
        devices: the slots that are used, a rank each: numbers of accelerators, or of nothing on processors.
    """

    name: str
    devices: tuple[int, ...]

    @property
    def address(self) -> str:
        """The name without a user: where the other machines reach it, and what pdsh calls it."""
        return address_of(self.name)

    @property
    def num_ranks(self) -> int:
        return len(self.devices)


def address_of(name: str) -> str:
    """`alice@node1` as `node1`."""
    return name.rpartition("@")[2]


def read_hostfile(path: Path) -> list[Node]:
    """The machines of a file with a line `HOST slots=N` for each; empty lines and what follows `#` do not count.

    Raises:
        LigoError: the file cannot be read, a line is no such line, or two name the same machine; the number of the
            line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
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
        name, slots = _BRACKETED.sub(r"\g<user>\g<address>", match["name"]), int(match["slots"])
        if re.search(r"[,\[\]]", name):
            raise LigoError(f"hostfile: {path}:{number}: {name!r} names several hosts; write a line for each")
        if slots == 0:
            raise LigoError(
                f"hostfile: {path}:{number}: {name} has no slots; leave the host out, or give it some"
            )
        before = next((node.name for node in nodes if _machine(node.name) == _machine(name)), None)
        if before is not None:
            again = "there twice" if before == name else f"the same host as {before}"
            raise LigoError(f"hostfile: {path}:{number}: {name} is {again}; add its slots up in one line")
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
    """The slots that a filter names, by host. A host's name may have `@` and `:` in it itself."""
    slots = {node.name: node.devices for node in nodes}
    known = "|".join(map(re.escape, sorted(slots, key=len, reverse=True)))
    part = re.compile(rf"\s*(?P<name>{known})\s*(?::(?P<numbers>[^@]*))?(?:@|$)")
    named: dict[str, tuple[int, ...]] = {}
    position = 0
    while position < len(text) or not named:
        match = part.match(text, position)
        if match is None:
            name = re.split("[@:]", text[position:])[0].strip()
            hint = did_you_mean(name, slots, f"; it has {', '.join(slots)}")
            raise LigoError(f"{key}: {text!r}: the host file has no host {name!r}{hint}")
        name, position = match["name"], match.end()
        if name in named:
            raise LigoError(f"{key}: {text!r} names {name} twice; write its slots as {name}:0,1")
        if match["numbers"] is None:
            named[name] = slots[name]
            continue
        words = [word.strip() for word in match["numbers"].split(",")]
        wrong = [word for word in words if not word.isdecimal() or int(word) not in slots[name]]
        if wrong:
            raise LigoError(
                f"{key}: {text!r}: {name} has the slots {_shown(slots[name])}, and no {wrong[0]!r}"
            )
        named[name] = tuple(sorted({int(word) for word in words}))
    return named


def _machine(name: str) -> str:
    """What is the same for two ways to write one machine's name."""
    address = address_of(name).lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _shown(devices: tuple[int, ...]) -> str:
    return ",".join(map(str, devices))
