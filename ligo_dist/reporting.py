"""What a rank says on standard error when it ends before its time."""

from __future__ import annotations

import os
import socket
import sys
import traceback

from ligo_dist.errors import LigoError, RunError
from ligo_dist.heartbeat import where
from ligo_dist.redaction import redact


def tell(message: str) -> None:
    """Say something for the person who started the run; of other ranks than the first, who says it."""
    rank = _rank()
    speaker = f"rank {rank} on {socket.gethostname()}: " if rank else ""
    print(f"ligo-dist: {speaker}{redact(message)}", file=sys.stderr, flush=True)


def tell_error(error: LigoError | RunError) -> None:
    """Show an error that explains itself; of one that all ranks raise, one of them shows it."""
    if error.told_by is None or error.told_by == _rank():
        tell(str(error))


def tell_failure() -> None:
    """The traceback of the exception that is being handled, then who failed where and at what."""
    tag = f"[rank {_rank()}]"
    lines = "".join(f"{tag} {line}\n" for line in redact(traceback.format_exc()).splitlines())
    print(f"{lines}{tag} failed on {socket.gethostname()} at: {where()}", file=sys.stderr, flush=True)


def _rank() -> int:
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0
