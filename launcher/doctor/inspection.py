"""What the machines of a run answer, in two rounds: each looks at itself; then all try to reach the first."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.doctor.probe import reason, write_through
from launcher.doctor.ssh import Conversation, SshFailure, at_once
from launcher.fleet import Fleet
from ligo_dist.runtime.errors import LigoError


@dataclass(frozen=True)
class Visit:
    """What a machine says of itself, and what was seen of it from outside.

    Attributes:
        python, executable: its version and path.
        machine: which one it is, whatever it is called; None where that is not known.
        packages: their versions, None where they are missing.
        code: hash of this project's code, None where it is missing.
        accelerators: free bytes of each, None where they are not known.
        capabilities: compute capabilities of the accelerators, as far as they are known.
        processor_flags: what the processors can do, in Linux's words.
        torch: what torch sees of the accelerators, as `probe.ask_torch` says; None where that is not known.
        memory: bytes that processes may still take, None where that is not known.
        disk: free bytes where the run directory is, None where that is not known.
        sees_mark: whether it sees the launcher's file in the run directory.
        unwritable: why it cannot write there though it sees it; None: it can.
        cannot_listen: why the first machine cannot listen on the master's port; None: it does, or is not the first.
        trace_seen: whether the launcher sees what it wrote into the run directory.
        was_sent: whether it was asked to reach the first machine, that is whether that one listened.
        cannot_reach: why it does not reach it.
        clock: seconds that its clock is ahead of the launcher's, as far as the way there does not explain them.
    """

    python: str
    executable: str
    machine: str | None
    packages: dict[str, str | None]
    code: str | None
    accelerators: list[int | None]
    capabilities: list[float]
    processor_flags: list[str]
    torch: dict[str, Any] | None
    memory: int | None
    disk: int | None
    sees_mark: bool
    unwritable: str | None
    cannot_listen: str | None
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
        torch_seconds: how long torch may take to say which accelerators it sees; None: it is not asked.
    """

    directory: str
    run_dir: str
    python_path: list[str]
    master_address: str
    master_port: int
    torch_seconds: float | None


def visit(fleet: Fleet, questions: Questions) -> list[Visit | SshFailure]:
    """The answers of the machines, in their order. Leaves no file anywhere.

    Raises:
        LigoError: the launcher itself cannot write into the run directory, or lacks what reaches the others.
    """
    run_dir = Path(questions.directory, questions.run_dir)
    mark = f".preflight-{secrets.token_hex(8)}"
    of_hosts = [run_dir / f"{mark}-{number}" for number in range(len(fleet.nodes))]
    conversations: list[Conversation] = []

    def look(conversation: Conversation, trace: Path) -> dict[str, Any] | SshFailure:
        return _look(conversation, questions, mark, trace.name, listens=conversation is conversations[0])

    def reach(
        conversation: Conversation, trace: Path, look: dict[str, Any] | SshFailure
    ) -> Visit | SshFailure:
        if isinstance(look, SshFailure):
            return look
        return _reach(conversation, questions, look, trace, first_listens)

    with _mark(run_dir, mark), tempfile.TemporaryDirectory() as errors:
        try:
            for number, node in enumerate(fleet.nodes):
                conversations.append(Conversation(node.name, fleet, Path(errors, str(number))))
            looks = at_once(look, conversations, of_hosts)
            first_listens = not isinstance(looks[0], SshFailure) and looks[0]["cannot_listen"] is None
            return at_once(reach, conversations, of_hosts, looks)
        finally:
            at_once(Conversation.end, conversations)
            for path in of_hosts:
                with suppress(OSError):  # of a machine that was lost before it could remove it
                    path.unlink()


@contextmanager
def _mark(directory: Path, name: str) -> Iterator[None]:
    """A file in a directory for the machines to see. It is removed again, with the directories that were made for it
    and that nobody has begun to use.

    Raises:
        LigoError: it cannot be written.
    """
    made = [path for path in (directory, *directory.parents) if not os.path.lexists(path)]
    try:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_through(str(directory / name))
        except OSError as error:
            wrong = f"{str(directory)!r} cannot be written here: {reason(error)}"
            raise LigoError(f"run_dir: {wrong}") from None
        yield
    finally:
        with suppress(OSError):
            (directory / name).unlink()
        for path in made:
            with suppress(OSError):
                path.rmdir()


def _look(
    conversation: Conversation, questions: Questions, mark: str, trace: str, listens: bool
) -> dict[str, Any] | SshFailure:
    """What a machine says of itself: the answer of `probe.Machine.look`."""
    request = {
        "do": "look",
        "directory": questions.directory,
        "python_path": questions.python_path,
        "run_dir": questions.run_dir,
        "mark": mark,
        "trace": trace,
        "port": questions.master_port if listens else None,
        "torch_seconds": questions.torch_seconds,
    }
    answer = conversation.ask(request)
    if isinstance(answer, SshFailure):
        return answer
    lacks = answer.pop("no_directory")
    if lacks is None:
        return answer
    advice = "share it, or say in cluster.directory where it is there"
    return SshFailure(f"its working directory {questions.directory!r} cannot be entered: {lacks}", advice)


def _reach(
    conversation: Conversation, questions: Questions, look: dict[str, Any], trace: Path, first_listens: bool
) -> Visit | SshFailure:
    trace_seen = trace.exists()
    address = questions.master_address if first_listens else None
    asked = time.time()
    answer = conversation.ask({"do": "reach", "address": address, "port": questions.master_port})
    if isinstance(answer, SshFailure):
        return answer
    return Visit(
        **look,
        trace_seen=trace_seen,
        was_sent=first_listens,
        cannot_reach=answer["cannot_reach"],
        clock=_clock_difference(asked, answer["time"], time.time()),
    )


def _clock_difference(asked: float, theirs: float, answered: float) -> float:
    """Seconds that their clock is ahead (behind: negative), less those that may be due to the way there and back."""
    if theirs > answered:
        return theirs - answered
    return min(0.0, theirs - asked)
