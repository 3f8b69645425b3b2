"""The workers of `run_ranks` live as long as the session; signals are those of a terminal's foreground."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ranks import close_pool

# They need root and packages of the system: `make test-cluster`, which names the folder, runs them.
collect_ignore = ["cluster"]


def pytest_configure() -> None:
    """A shell lets what it starts in the background ignore SIGINT, `nohup` SIGHUP; all that tests start would too."""
    for signum, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, handler)


@pytest.fixture(scope="session", autouse=True)
def _no_worker_outlives_the_session() -> Iterator[None]:
    yield
    close_pool()
