"""Programs that are compared take turns on one machine: each has its own ranks, and waits while another one works."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from benchmarks.processes import environment_of_rank
from launcher.command import free_port


class Ranks:
    """The ranks of one program, `python -m module ARGUMENTS-AS-JSON`, which waits for its turns as `Turns` does.

    Args:
        module: what is run.
        world_size: the number of ranks.
        arguments: of the module.
        on_processors: whether the ranks compute on processors, or on a GPU each.
    """

    def __init__(
        self, module: str, world_size: int, arguments: dict[str, Any], *, on_processors: bool
    ) -> None:
        self._what = f"{module} {' '.join(str(value) for value in arguments.values())}"
        port = free_port()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the ranks)
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(arguments)],
                env=environment_of_rank(
                    rank, world_size, port, keeps_memory=True, on_processors=on_processors
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
            for rank in range(world_size)
        ]

    def take(self, steps: int) -> dict[str, float]:
        """Have the ranks take so many steps, the others waiting meanwhile.

        Returns:
            Of a step: `seconds` of the slowest rank, `processor`, the seconds of processor time of all ranks together;
            and `loss`, of the last step, the mean of what the ranks say: of all tokens, or each of its own.

        Raises:
            RuntimeError: a rank ended; its output is in the message.
        """
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended, which is seen below
                process.stdin.write(f"{steps}\n")
                process.stdin.flush()
        answers = [self._answer(process) for process in self._processes]
        return {
            "seconds": max(answer["seconds"] for answer in answers),
            "processor": sum(answer["processor"] for answer in answers),
            "loss": statistics.fmean(answer["loss"] for answer in answers),
        }

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, float]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            self._errors.seek(0)
            killed = "; if it was the system, memory has run out" if code == -signal.SIGKILL else ""
            raise RuntimeError(f"{self._what} ended with exit code {code}{killed}:\n{self._errors.read()}")
        return json.loads(line)

    def close(self) -> None:
        """End the ranks."""
        for process in self._processes:
            process.kill()  # they have nothing to lose, and some libraries take long to leave
        for process in self._processes:
            process.wait()


class Turns:
    """A rank's side: it takes steps when it is asked to, and says how long they took.

    Call `wait` before the first step and `taken` after each; both say whether another step is to come.

    Args:
        settle: waits until the device has done what it was given.
    """

    def __init__(self, settle: Callable[[], None]) -> None:
        # What the libraries print goes elsewhere.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._settle, self._left, self._steps = settle, 0, 0
        self._began = self._processor_began = 0.0

    def wait(self) -> bool:
        """Wait for the next turn; False: there is none."""
        line = sys.stdin.readline()
        if not line:
            return False
        self._left = self._steps = int(line)
        self._began, self._processor_began = time.perf_counter(), time.process_time()
        return True

    def taken(self, loss: Callable[[], float]) -> bool:
        """One step is taken; after the last of a turn this answers, and waits for the next turn.

        Args:
            loss: reads the loss of the step.
        """
        self._left -= 1
        if self._left:
            return True
        self._settle()
        seconds = (time.perf_counter() - self._began) / self._steps
        processor = (time.process_time() - self._processor_began) / self._steps
        answer = {"seconds": seconds, "processor": processor, "loss": loss()}
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()
        return self.wait()
