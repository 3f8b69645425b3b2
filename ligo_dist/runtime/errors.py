"""The errors a user can cause or meet, each with a message that says what to do, and the exit codes of all processes:
the launcher and the ranks speak the same ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

FINISHED = 0
"""The run has come to its end."""

FAILED = 1
"""Something broke. Started again from the last checkpoint, it may well get on."""

MISTAKE = 2
"""What was asked for cannot be done; it would fail the same way again."""

CANNOT_GO_ON = 3
"""What was asked for is right, and the run cannot go on all the same: a loss that is no number. It would come to the
same point again."""

REQUEUE = 75
"""Stopped by a signal with its checkpoint written: the same command goes on. (EX_TEMPFAIL of sysexits.h.)"""

MORE_NODES = 76
"""Stopped at the boundary of a stage that asks for more nodes than there are; the same command goes on with what it
is given."""

INTERRUPTED = 130
"""Stopped by SIGINT, at once: what shells say of it. The same command goes on from the last checkpoint."""

HOPELESS = (MISTAKE, CANNOT_GO_ON)
"""Codes after which starting again is no use."""


class LigoError(ValueError):
    """A user's mistake: shown as its message alone, without a traceback; the process exits with `exit_code`."""

    exit_code = MISTAKE
    told_by: int | None = None
    """The rank that shows it, where all ranks raise it; None: every rank that raises it does."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a configuration.

    Attributes:
        path: dotted path of the key, e.g. `stages[1].size.heads`.
        message: what is wrong and what would be right, the value included.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(LigoError):
    """Everything wrong with one configuration, reported together."""

    def __init__(self, faults: list[Fault], source: str = "configuration") -> None:
        self.faults = faults
        plural = "fault" if len(faults) == 1 else "faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{source}: {len(faults)} {plural}\n{lines}")
        self._source = source

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Fault], str]]:
        """To another rank it goes as what it was made of."""
        return type(self), (self.faults, self._source)


class DataError(LigoError):
    """A corpus or tokenizer that cannot be read, is empty, or does not fit what it is used with."""


class CheckpointError(LigoError):
    """A checkpoint that is damaged, belongs to another configuration, or cannot be written."""


class ArchitectureError(LigoError):
    """A model whose parameters disagree with its table, or a growth that its structure does not allow. All ranks build
    the same models, and raise it alike."""

    told_by = 0


class RunError(RuntimeError):
    """A run that cannot go on, though what was asked for is right: shown as its message alone. All ranks raise it
    together."""

    exit_code = CANNOT_GO_ON
    told_by = 0


class NonFiniteLossError(RunError):
    """Training met a loss or gradient that is not a finite number."""


class PreservationError(RunError):
    """A grown model that should compute what its source computes, and does not."""


class Stopped(RunError):
    """A run that stopped before its end, its checkpoint written, though nothing is wrong: the same command goes on."""


class Preempted(Stopped):
    """A signal asked for it."""

    exit_code = REQUEUE


class MoreNodes(Stopped):
    """The next stage asks for more nodes than there are."""

    exit_code = MORE_NODES


_MOST = 10
"""Things that one message lists."""


def shortened(items: Iterable[str], most: int = _MOST, separator: str = ", ") -> str:
    """A list for a message, cut where it is long."""
    told = list(items)
    more = [f"and {len(told) - most} more"] if len(told) > most else []
    return separator.join([*told[:most], *more])


def innermost_words(error: BaseException) -> str:
    """The message at the beginning of a chain of errors, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def did_you_mean(name: object, valid: Iterable[object], otherwise: str = "") -> str:
    """`; did you mean 'x'?` where a valid name is near, for the end of a message; else `otherwise`."""
    near = difflib.get_close_matches(str(name), [str(one) for one in valid], n=1)
    return f"; did you mean {near[0]!r}?" if near else otherwise
