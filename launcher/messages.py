"""What the launcher and the agents on the nodes say to each other: one JSON object a line.

The launcher's first line to an agent is the job; then come orders. An agent answers with events. What an agent prints
is read by the launcher alone, so a line that is no event (a banner of ssh, say) is noise and kept as such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Order = Literal["beat", "preempt", "stop", "kill"]
"""`beat`: the launcher is still there; `preempt`: write a checkpoint and end; `stop`: end now; `kill`: at once."""


@dataclass(frozen=True)
class NodeJob:
    """What one node runs: a rank for each device, numbered from `first_rank`."""

    name: str
    first_rank: int
    devices: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """One attempt at a run, the same text for every node.

    Attributes:
        nodes: all of them, in the order of their ranks.
        master_address, master_port: where the ranks meet.
        directory: working directory of the ranks.
        config: path of the configuration.
        overrides: `key.path=value` words.
        wrapper: words before each rank's command.
        environment: variables of the ranks, secrets included: the job is never an argument of a command.
        logs: directory of the ranks' log files.
        hang_seconds, lost_seconds, grace_seconds: as in the configuration's `cluster`.
        console: file descriptor of the terminal, where the agent has inherited it.
    """

    nodes: tuple[NodeJob, ...]
    master_address: str
    master_port: int
    directory: str
    config: str
    overrides: tuple[str, ...]
    wrapper: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    logs: str
    hang_seconds: float
    lost_seconds: float
    grace_seconds: float
    console: int | None = None

    @property
    def world_size(self) -> int:
        return sum(len(node.devices) for node in self.nodes)

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Job:
        values = json.loads(line)
        nodes = tuple(
            NodeJob(node["name"], node["first_rank"], tuple(node["devices"])) for node in values.pop("nodes")
        )
        for name in ("overrides", "wrapper"):
            values[name] = tuple(values[name])
        return cls(nodes=nodes, **values)


@dataclass(frozen=True)
class Failure:
    """A rank that ended, or had to be ended, before the run did.

    Attributes:
        node: number of its node.
        rank: its number; None: the node itself is lost.
        code: its exit code, 128 + the signal where one ended it.
        reason: in words: `was killed by SIGKILL`.
        place: the last thing it said it was doing; empty: it had not begun.
        tail: the last lines that it printed.
    """

    node: int
    rank: int | None
    code: int
    reason: str
    place: str = ""
    tail: Sequence[str] = ()


def order_line(order: Order) -> str:
    return json.dumps({"order": order}) + "\n"


def read_order(line: str) -> Order:
    return json.loads(line)["order"]


def event_line(kind: str, node: int, **values: Any) -> str:
    """An event: `beat`, `output` (rank, text), `failed` (the fields of a `Failure`), `ended` (codes by rank)."""
    return json.dumps({"event": kind, "node": node, **values}) + "\n"


def read_event(line: str) -> dict[str, Any] | None:
    """The event of a line; None if it is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return (
        event if isinstance(event, dict) and "event" in event and isinstance(event.get("node"), int) else None
    )
