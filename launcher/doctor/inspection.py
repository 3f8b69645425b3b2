"""What the machines of a run answer, in two rounds: each looks at itself; then all try to reach the first."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.doctor.probe import Traces, reason
from launcher.doctor.ssh import Conversation, SshFailure, at_once
from launcher.fleet import Fleet
from launcher.remote import RemoteCommand
from ligo_dist.config.cluster import Cluster
from ligo_dist.runtime.errors import LigoError


@dataclass(frozen=True)
class Look:
    """What a machine says of itself: the answer of `probe.Machine.look`.

    Attributes:
        python, executable: its version and path.
        machine: which one it is, whatever it is called; None where that is not known.
        packages: their versions, None where they are missing.
        code: hash of this project's code, None where it is missing.
        accelerators: free bytes of each, None where they are not known.
        capabilities: compute capabilities of the accelerators, as far as they are known.
        processor_flags: what the processors can do, in Linux's words.
        memory: bytes that processes may still take, None where that is not known.
        disk: free bytes where the run directory is, None where that is not known.
        unwritable: why it cannot write into the run directory; None: it can.
        sees_mark: whether it sees the launcher's file there.
        cannot_listen: why the first machine cannot listen on the master's port; None: it does, or is not the first.
    """

    python: str
    executable: str
    machine: str | None
    packages: dict[str, str | None]
    code: str | None
    accelerators: list[int | None]
    capabilities: list[float]
    processor_flags: list[str]
    memory: int | None
    disk: int | None
    unwritable: str | None
    sees_mark: bool
    cannot_listen: str | None


@dataclass(frozen=True)
class Visit:
    """A machine that answered in both rounds.

    Attributes:
        look: what it says of itself.
        trace_seen: whether the launcher sees what it wrote into the run directory.
        was_sent: whether it was asked to reach the first machine, that is whether that one listened.
        cannot_reach: why it does not reach it.
        clock: seconds that its clock is ahead of the launcher's, as far as the way there does not explain them.
    """

    look: Look
    trace_seen: bool
    was_sent: bool
    cannot_reach: str | None
    clock: float


@dataclass(frozen=True)
class Questions:
    """What is asked of all machines.

    Attributes:
        directory: where they work.
        run_dir: the directory they share.
        python_path: where the ranks find packages beside the environment's own.
        master_address, master_port: where the first machine is to be reached.
    """

    directory: str
    run_dir: str
    python_path: list[str]
    master_address: str
    master_port: int


def visit(fleet: Fleet, cluster: Cluster, questions: Questions) -> list[Visit | SshFailure]:
    """The answers of the machines, in their order. Leaves no file anywhere.

    Raises:
        LigoError: the launcher itself cannot write into the run directory.
    """
    remote = None if fleet.is_here else fleet.remote
    run_dir = os.path.join(questions.directory, questions.run_dir)
    mark, traces = f".preflight-{secrets.token_hex(8)}", Traces()
    with tempfile.TemporaryDirectory() as errors:
        guests = [
            _Guest(node.name, cluster, remote, Path(errors, str(number)), Path(run_dir, f"{mark}-{number}"))
            for number, node in enumerate(fleet.nodes)
        ]
        try:
            _leave_mark(traces, run_dir, mark)
            looks = at_once(lambda guest: guest.look(questions, mark, guest is guests[0]), guests)
            listens = isinstance(looks[0], Look) and looks[0].cannot_listen is None
            both = list(zip(guests, looks, strict=True))
            return at_once(lambda pair: pair[0].reach(questions, pair[1], listens), both)
        finally:
            at_once(_Guest.end, guests)
            traces.remove()


def _leave_mark(traces: Traces, run_dir: str, mark: str) -> None:
    try:
        traces.leave(run_dir, mark)
    except OSError as error:
        raise LigoError(f"run_dir: {run_dir!r} cannot be written here: {reason(error)}") from None


@dataclass
class _Guest:
    """One machine through both rounds.

    Attributes:
        host, cluster, remote, errors: of its conversation.
        trace: what it writes into the run directory, as the launcher sees it.
        conversation: None before the first round.
    """

    host: str
    cluster: Cluster
    remote: RemoteCommand | None
    errors: Path
    trace: Path
    conversation: Conversation | None = None

    def look(self, questions: Questions, mark: str, listens: bool) -> Look | SshFailure:
        self.conversation = Conversation(self.host, self.cluster, self.remote, self.errors)
        request = {
            "do": "look",
            "directory": questions.directory,
            "python_path": questions.python_path,
            "run_dir": questions.run_dir,
            "mark": mark,
            "trace": self.trace.name,
            "port": questions.master_port if listens else None,
        }
        answer = self.conversation.ask(request)
        if isinstance(answer, SshFailure):
            return answer
        lacks = answer.pop("no_directory")
        if lacks is not None:
            advice = "share it, or say in cluster.directory where it is there"
            return SshFailure(
                f"its working directory {questions.directory!r} cannot be entered: {lacks}", advice
            )
        return Look(**answer)

    def reach(self, questions: Questions, look: Look | SshFailure, listens: bool) -> Visit | SshFailure:
        if isinstance(look, SshFailure):
            return look
        assert self.conversation is not None
        trace_seen = self.trace.exists()
        address = questions.master_address if listens else None
        asked = time.time()
        answer = self.conversation.ask({"do": "reach", "address": address, "port": questions.master_port})
        if isinstance(answer, SshFailure):
            return answer
        clock = _clock_difference(asked, answer["time"], time.time())
        return Visit(look, trace_seen, listens, answer["cannot_reach"], clock)

    def end(self) -> None:
        if self.conversation is not None:
            self.conversation.end()
        with suppress(OSError):  # of a machine that was lost before it could remove it
            self.trace.unlink()


def _clock_difference(asked: float, theirs: float, answered: float) -> float:
    """Seconds that their clock is ahead (behind: negative), less those that may be due to the way there and back."""
    if theirs > answered:
        return theirs - answered
    return min(0.0, theirs - asked)
