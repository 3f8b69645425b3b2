"""What the machines of a run answer, in two rounds: each looks at itself; then all try to reach the first."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from launcher.doctor.conversation import Conversation, NoAnswer, at_once, is_this_machine, working_directory
from launcher.doctor.probe import Traces, reason
from launcher.doctor.ssh_failures import Failure
from launcher.hosts import Node
from launcher.remote import RemoteCommand
from ligo_dist.config.cluster import Cluster
from ligo_dist.errors import LigoError


@dataclass(frozen=True)
class Look:
    """What a machine says of itself: the answer of `probe.Machine.look`.

    Attributes:
        python, executable: its version and path.
        packages: their versions, None where they are missing.
        code: hash of this project's code, None where it is missing.
        config: hash of the configuration, None where it cannot be read.
        accelerators: free bytes of each, None where they are not known.
        memory: bytes that processes may still take, None where that is not known.
        disk: free bytes where the run directory is, None where that is not known.
        unwritable: why it cannot write into the run directory; None: it can.
        sees_mark: whether it sees the launcher's file there.
        cannot_listen: why the first machine cannot listen on the master's port; None: it does, or is not the first.
    """

    python: str
    executable: str
    packages: dict[str, str | None]
    code: str | None
    config: str | None
    accelerators: list[int | None]
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
        config: path of the configuration.
        run_dir: the directory they share.
        python_path: where the ranks find packages beside the environment's own.
        master_address, master_port: where the first machine is to be reached.
    """

    config: str
    run_dir: str
    python_path: list[str]
    master_address: str
    master_port: int


def visit(
    nodes: Sequence[Node], cluster: Cluster, questions: Questions, remote: RemoteCommand
) -> list[Visit | Failure]:
    """The answers of the machines, in their order. Leaves no file anywhere.

    Raises:
        LigoError: the launcher itself cannot write into the run directory.
    """
    rounds = _Rounds(nodes, cluster, questions, remote)
    try:
        return rounds.answers()
    finally:
        rounds.end()


class _Rounds:
    """Both rounds, and between them the conversations with the machines that answered."""

    def __init__(
        self, nodes: Sequence[Node], cluster: Cluster, questions: Questions, remote: RemoteCommand
    ) -> None:
        self._nodes, self._cluster, self._questions = nodes, cluster, questions
        self._remote = None if is_this_machine(nodes) else remote
        self._directory = working_directory(cluster)
        self._run_dir = os.path.join(self._directory, questions.run_dir)
        self._mark = f".preflight-{secrets.token_hex(8)}"
        self._traces = Traces()
        self._numbers = {node.name: number for number, node in enumerate(nodes)}
        self._conversations: dict[str, Conversation] = {}

    def answers(self) -> list[Visit | Failure]:
        self._leave_mark()
        looks = dict(zip(self._numbers, at_once(self._look, self._nodes), strict=True))
        master = looks[self._nodes[0].name]
        listens = isinstance(master, Look) and master.cannot_listen is None

        def reach(node: Node) -> Visit | Failure:
            look = looks[node.name]
            return look if isinstance(look, Failure) else self._reach(node, look, listens)

        return at_once(reach, self._nodes)

    def end(self) -> None:
        at_once(self._end, self._nodes)
        self._traces.remove()

    def _leave_mark(self) -> None:
        try:
            self._traces.leave(self._run_dir, self._mark)
        except OSError as error:
            raise LigoError(f"run_dir: {self._run_dir!r} cannot be written here: {reason(error)}") from None

    def _look(self, node: Node) -> Look | Failure:
        conversation = Conversation(node.name, self._cluster, self._remote)
        self._conversations[node.name] = conversation
        request = {
            "do": "look",
            "directory": self._directory,
            "python_path": self._questions.python_path,
            "config": self._questions.config,
            "run_dir": self._questions.run_dir,
            "mark": self._mark,
            "trace": self._trace(node),
            "port": self._questions.master_port if node is self._nodes[0] else None,
        }
        try:
            answer = conversation.ask(request)
        except NoAnswer as error:
            return error.failure
        lacks = answer.pop("no_directory")
        if lacks is not None:
            advice = "share it, or say in cluster.directory where it is there"
            return Failure(f"its working directory {self._directory!r} cannot be entered: {lacks}", advice)
        return Look(**answer)

    def _reach(self, node: Node, look: Look, listens: bool) -> Visit | Failure:
        trace_seen = os.path.exists(os.path.join(self._run_dir, self._trace(node)))
        address = self._questions.master_address if listens else None
        request = {"do": "reach", "address": address, "port": self._questions.master_port}
        asked = time.time()
        try:
            answer = self._conversations[node.name].ask(request)
        except NoAnswer as error:
            return error.failure
        clock = _clock_difference(asked, answer["time"], time.time())
        return Visit(look, trace_seen, listens, answer["cannot_reach"], clock)

    def _end(self, node: Node) -> None:
        if node.name in self._conversations:
            self._conversations[node.name].end()
        with suppress(OSError):  # of a machine that was lost before it could remove it
            os.remove(os.path.join(self._run_dir, self._trace(node)))

    def _trace(self, node: Node) -> str:
        return f"{self._mark}-{self._numbers[node.name]}"


def _clock_difference(asked: float, theirs: float, answered: float) -> float:
    """Seconds that their clock is ahead (behind: negative), less those that may be due to the way there and back."""
    if theirs > answered:
        return theirs - answered
    return min(0.0, theirs - asked)
