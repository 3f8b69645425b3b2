"""What lives as long as the session: workers of `run_ranks`, a site of whole runs, one run that nobody disturbed.
Signals are those of a terminal's foreground."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ranks import close_pool

if TYPE_CHECKING:
    from runs import RunFiles, Site

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
