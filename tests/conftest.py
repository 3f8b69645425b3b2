"""What lives as long as the session: workers of `run_ranks`, a site of whole runs, one run that nobody disturbed.
Signals are those of a terminal's foreground."""

from __future__ import annotations

import importlib
import io
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

import pytest

from ligo_dist.runtime import apart
from ranks import close_pool

if TYPE_CHECKING:
    from runs import RunFiles, Site

# They need root and packages of the system: `make test-cluster`, which names the folder, runs them.
collect_ignore = ["cluster"]

_LONGEST = ("test_run_faults.py", "test_watched.py", "test_stopping.py")
"""They take minutes, and come first: at the end the other worker would have nothing left to do."""


def pytest_configure() -> None:
    """A shell lets what it starts in the background ignore SIGINT, `nohup` SIGHUP; all that tests start would too."""
    for signum, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _no_worker_outlives_the_session() -> Iterator[None]:
    yield
    close_pool()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Shared by many files: each run has a name that no other has."""
    from runs import Site  # it loads torch, which most tests do without

    return Site.make(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def whole_run(site: Site) -> RunFiles:
    """A run of three stages on two ranks that nobody disturbed; tests that change it change a copy."""
    from runs import run_warm

    files = site.config("whole")
    assert run_warm(files, 2) == (0, "")
    return files


@pytest.fixture
def answered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process apart would import the libraries for each command anew, which takes seconds. The real one is asked by
    tests/runtime/test_apart.py, and by each command that a test starts as a process."""

    def ask(module: str, request: Any, what: str, *, with_torch: bool = False) -> Any:
        question = json.loads(json.dumps(request))
        with redirect_stderr(io.StringIO()):  # what the libraries print goes elsewhere
            answer = importlib.import_module(module).answer_apart(question)
        return json.loads(json.dumps(answer))

    real = apart.ask_apart
    for module in list(sys.modules.values()):
        if vars(module).get("ask_apart") is real:
            monkeypatch.setattr(module, "ask_apart", ask)
