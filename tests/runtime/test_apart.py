from __future__ import annotations

from pathlib import Path

import pytest

from ligo_dist.runtime.apart import _PROCESSES, ask_apart, close_apart
from ligo_dist.runtime.errors import LigoError

MODULE = """
import os, sys
print("a library that talks")

def answer_apart(request):
    if request == "end":
        sys.stderr.write("out of memory")
        sys.stderr.flush()
        os._exit(1)
    return [os.getpid(), "torch" in sys.modules and sys.modules["torch"] is not None, 1 / request]
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "answering.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield
    close_apart()
    assert _PROCESSES == {}


def test_one_process_answers_all_and_has_no_torch():
    first, has_torch, half = ask_apart("answering", 2, "it")
    assert (has_torch, half) == (False, 0.5)
    assert ask_apart("answering", 4, "it") == [first, False, 0.25]


def test_what_a_question_raises_is_told_and_the_next_is_answered():
    process = ask_apart("answering", 1, "it")[0]
    with pytest.raises(LigoError, match=r"(?s)^the half could not be checked:\n.*ZeroDivisionError"):
        ask_apart("answering", 0, "the half")
    assert ask_apart("answering", 1, "it")[0] == process


def test_a_process_that_ended_is_told_with_its_last_words_and_another_answers():
    process = ask_apart("answering", 1, "it")[0]
    with pytest.raises(LigoError, match=r"(?s)^it could not be checked:\n.*out of memory"):
        ask_apart("answering", "end", "it")
    assert ask_apart("answering", 1, "it")[0] != process


def test_elsewhere_another_process_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    process = ask_apart("answering", 1, "it")[0]
    monkeypatch.chdir(tmp_path)
    other = ask_apart("answering", 1, "it")[0]
    assert other != process
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert ask_apart("answering", 1, "it")[0] not in (process, other)
