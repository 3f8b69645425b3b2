"""Nodes that somebody else starts: a Kubernetes operator, or a user by hand, who set torchrun's variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ligo_dist.errors import LigoError


@dataclass(frozen=True)
class GivenPlace:
    """This node among those that are started alike.

    Attributes:
        number, count: of this node and of all.
        master_address, master_port: where the ranks meet.
    """

    number: int
    count: int
    master_address: str
    master_port: int


def given_place(environ: Mapping[str, str]) -> GivenPlace | None:
    """What the environment says; None where it says nothing, or that there is only this node.

    `PET_NNODES`, `PET_NODE_RANK`, `PET_MASTER_ADDR`, `PET_MASTER_PORT` (Kubeflow) or, for a process per node,
    `WORLD_SIZE`, `RANK`, `MASTER_ADDR`, `MASTER_PORT`.

    Raises:
        LigoError: a variable is missing or no number, or this is a rank already.
    """
    if "PET_NNODES" in environ:
        names = ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
    elif "WORLD_SIZE" in environ and "RANK" in environ:
        names = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
        if "LOCAL_RANK" in environ:
            raise LigoError(
                "LOCAL_RANK: this process is a rank already, and `ligo-dist run` starts ranks; run"
                " `python -m ligo_dist CONFIG` instead"
            )
    else:
        return None
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise LigoError(f"{missing[0]}: is not set, though {names[0]} is; a node needs {', '.join(names)}")
    count, number, port = (_number(name, environ) for name in (names[0], names[1], names[3]))
    if count <= 1:
        return None
    if not 0 <= number < count:
        raise LigoError(f"{names[1]}: {number} is no number of one of {count} nodes, from 0")
    return GivenPlace(number, count, environ[names[2]], port)


def _number(name: str, environ: Mapping[str, str]) -> int:
    if not environ[name].isdecimal():
        raise LigoError(f"{name}: {environ[name]!r} should be a whole number")
    return int(environ[name])
