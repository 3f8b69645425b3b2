"""Questions answered in a process apart, so that this one need not import the libraries that know the answers.

Importing `transformers` takes seconds, and imports torch where there is one. The launcher asks, and is done before it
starts a run; a rank, which has both anyway, calls the functions themselves. One process answers all questions, from the
first on until nothing is asked any more:

    python -m ligo_dist.runtime.apart [--with-torch]

reads a line of JSON for each question, and answers with one.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import Any

from ligo_dist.runtime.errors import LigoError

_WITH_TORCH = "--with-torch"


def ask_apart(module: str, request: Any, what: str, *, with_torch: bool = False) -> Any:
    """What `answer_apart(request)` of a module gives, in a process apart.

    Args:
        module: its name.
        request: plain values, as the answer is.
        what: names the subject in an error.
        with_torch: whether the module needs torch; configurations and tokenizers of the library are without it, which
            takes longer to import than all else.

    Raises:
        LigoError: the function raises something, or the process ends.
    """
    process = _PROCESSES.get(with_torch)
    if process is None or not process.is_of_here():
        if process is not None:
            process.close()
        process = _PROCESSES[with_torch] = _Process(with_torch)
    answer, error = process.ask([module, request])
    if error is not None:
        raise LigoError(f"{what} could not be checked:\n{error.strip()}")
    return answer


def close_apart() -> None:
    """End what has answered; whoever asks again starts it again."""
    while _PROCESSES:
        _PROCESSES.popitem()[1].close()


class _Process:
    def __init__(self, with_torch: bool) -> None:
        self._place = _place()
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        words = [_WITH_TORCH] if with_torch else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def is_of_here(self) -> bool:
        """Whether it would find the same files and settings as a new one."""
        return self._process.poll() is None and self._place == _place()

    def ask(self, question: Any) -> tuple[Any, str | None]:
        """The answer, or an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            return tuple(json.loads(line))
        code = self._process.wait()
        self._stderr.seek(0)
        return None, self._stderr.read() or f"exit code {code}"

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate()  # it ends with its input
        self._stderr.close()


def _place() -> tuple[str, dict[str, str]]:
    return os.getcwd(), dict(os.environ)


_PROCESSES: dict[bool, _Process] = {}
"""By whether they have torch."""


def _serve() -> None:
    # What the libraries print goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if _WITH_TORCH not in sys.argv:
        sys.modules["torch"] = None  # type: ignore[assignment]
    for line in sys.stdin:
        module, request = json.loads(line)
        answer, error = None, None
        try:
            answer = importlib.import_module(module).answer_apart(request)
        except Exception:
            error = traceback.format_exc()
        answers.write(json.dumps([answer, error]) + "\n")
        answers.flush()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # of whom it answers
        _serve()
