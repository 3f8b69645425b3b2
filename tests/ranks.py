"""Runs a function on several gloo ranks on processors, in worker processes that stay warm for the whole session.

Importing DeepSpeed and transformers takes some ten seconds, so the workers are started once, with the first call;
each call gets a process group of its own (file-store rendezvous) and leaves none behind.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ligo_dist.engine import World

START_SECONDS = 300.0
"""How long workers may take to import everything, on a machine that is busy with other things."""

CALL_SECONDS = 300.0
"""How long a call may take. Those that are well take seconds; a machine that is shared may stand still for minutes."""

GRACE_SECONDS = 5.0
"""How long the other ranks may go on after one has failed."""


class RanksError(AssertionError):
    """What the failed ranks said, each line tagged with its rank."""


def run_ranks(
    fn: Callable[..., Any], world_size: int, *args: Any, timeout: float = CALL_SECONDS
) -> list[Any]:
    """Call `fn(world, *args)` on each of `world_size` ranks.

    Args:
        fn: a function at the top level of a module; the arguments and what it returns must be picklable.
        world_size: number of ranks.
        timeout: seconds for the whole call; whatever still runs then is killed.

    Returns:
        What each rank returned, in the order of the ranks.

    Raises:
        RanksError: with the traceback of every rank that failed, or the stacks of those that did not end in time.
    """
    return _POOL.run(fn, world_size, args, timeout)


def close_pool() -> None:
    _POOL.close()


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    stacks: IO[str]


class _Pool:
    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        # Where calls meet, each at a file of its own. It stays as long as the workers: they leave a group after
        # they have answered, and torch aborts a process that cannot open the file then.
        self._meeting_places: tempfile.TemporaryDirectory[str] | None = None
        self._calls = 0

    def run(
        self, fn: Callable[..., Any], world_size: int, args: tuple[Any, ...], timeout: float
    ) -> list[Any]:
        self._start(world_size)
        call = pickle.dumps((fn, args))
        store = self._next_store()
        for rank, worker in enumerate(self._workers[:world_size]):
            worker.pipe.send((sys.path, rank, world_size, store, timeout, call))
        answers = self._answers(world_size, timeout)
        silent = [rank for rank in range(world_size) if rank not in answers]
        failed = {rank: text for rank, (is_well, text) in answers.items() if not is_well}
        stacks = {rank: self._stacks(rank) for rank in silent}
        for rank in silent:
            self._stop(rank)
        if failed or silent:
            said = failed or {
                rank: f"did not end within {timeout:g} s\n{text}" for rank, text in stacks.items()
            }
            lines = [f"[rank {rank}] {line}" for rank, text in said.items() for line in text.splitlines()]
            raise RanksError(f"{fn.__qualname__} on {world_size} ranks\n" + "\n".join(lines))
        return [answers[rank][1] for rank in range(world_size)]

    def _answers(self, world_size: int, timeout: float) -> dict[int, tuple[bool, Any]]:
        """Each rank's (whether it is well, result or traceback), without those that did not end in time."""
        waiting = {worker.pipe: rank for rank, worker in enumerate(self._workers[:world_size])}
        answers: dict[int, tuple[bool, Any]] = {}
        deadline = time.monotonic() + timeout
        while waiting and (left := deadline - time.monotonic()) > 0:
            for pipe in connection.wait(list(waiting), left):
                assert isinstance(pipe, Connection)
                rank = waiting.pop(pipe)
                try:
                    answers[rank] = pipe.recv()
                except (EOFError, ConnectionResetError):
                    answers[rank] = (False, "the process died")
                    self._workers[rank].process.join()
                if not answers[rank][0]:
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        return answers

    def _start(self, count: int) -> None:
        """Have at least `count` workers, all of them alive."""
        fresh = []
        for rank in range(count):
            if rank < len(self._workers) and self._workers[rank].process.is_alive():
                continue
            worker = _start_worker()
            self._workers[rank : rank + 1] = [worker]
            fresh.append(worker.pipe)
        for pipe in fresh:
            if not pipe.poll(START_SECONDS):
                self.close()
                raise RanksError(f"the workers did not start within {START_SECONDS:g} s")
            pipe.recv()

    def _next_store(self) -> str:
        """The address of a file store that no call has used."""
        if self._meeting_places is None:
            self._meeting_places = tempfile.TemporaryDirectory(prefix="ranks-")
        self._calls += 1
        return f"file://{self._meeting_places.name}/{self._calls}"

    def close(self) -> None:
        for rank in range(len(self._workers)):
            self._stop(rank)
        self._workers = []
        if self._meeting_places is not None:
            self._meeting_places.cleanup()
            self._meeting_places = None

    def _stacks(self, rank: int) -> str:
        """Where the threads of a worker are."""
        worker = self._workers[rank]
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGUSR2)
        time.sleep(1.0)
        worker.stacks.seek(0)
        return worker.stacks.read()

    def _stop(self, rank: int) -> None:
        worker = self._workers[rank]
        worker.pipe.close()
        worker.stacks.close()
        worker.process.kill()
        worker.process.join()


_POOL = _Pool()


def _start_worker() -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    stacks = tempfile.NamedTemporaryFile("w+", prefix="stacks-")  # noqa: SIM115 (as long as the worker)
    process = context.Process(target=_serve, args=(theirs, stacks.name), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, stacks)


def _serve(pipe: Connection, stacks: str) -> None:
    """A worker: says when it is ready, then answers one call after the other. Asked by SIGUSR2 it writes its stacks."""
    faulthandler.register(signal.SIGUSR2, open(stacks, "w"))  # noqa: SIM115
    os.environ.update(
        DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", DS_LOG_LEVEL="error", TRANSFORMERS_VERBOSITY="error"
    )
    import torch

    importlib.import_module("ligo_dist.training.trainer")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the libraries' own; each call of a collective would repeat them
    gc.freeze()  # what the imports made stays: going through it again at each collection takes half a second
    pipe.send("ready")
    while True:
        try:
            path, rank, world_size, store, timeout, call = pipe.recv()
        except EOFError:
            return
        sys.path[:] = path
        try:
            world = _join(rank, world_size, store, timeout)
        except BaseException:
            # What a group that never was leaves behind in torch is not known: another worker takes over.
            pipe.send((False, traceback.format_exc()))
            return
        try:
            fn, args = pickle.loads(call)
            answer = (True, fn(world, *args))
        except BaseException:
            answer = (False, traceback.format_exc())
        # Before leaving the group: a rank that leaves early breaks what the others still do.
        pipe.send(answer)
        _leave()


def _join(rank: int, world_size: int, store: str, timeout: float) -> World:
    import torch.distributed as dist

    from ligo_dist.engine import start_world

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    # DeepSpeed takes the group that is there; nobody meets at this address.
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    limit = timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size, timeout=limit)
    world = start_world(timeout)
    # A rank that is done at once must not leave while others are still connecting.
    dist.barrier()
    return world


def _leave() -> None:
    """Forget the group, in torch and where DeepSpeed keeps it."""
    import deepspeed.comm.comm
    import deepspeed.utils.groups
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partition_parameters import Init

    from ligo_dist.engine import stop_world

    gc.collect()
    stop_world()
    deepspeed.comm.comm.cdb = None
    deepspeed.utils.groups._WORLD_GROUP = None
    deepspeed.utils.groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
    # Left behind by a call that failed in the middle, and counters that must agree among ranks of other histories.
    parameter_offload.FWD_MODULE_STACK.clear()
    Init.param_id = 0
    parameter_offload.DeepSpeedZeRoOffload._register_deepspeed_module.__defaults__[0][0] = 0
