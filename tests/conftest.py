"""The workers of `run_ranks` live as long as the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ranks import close_pool

# They need root and packages of the system: `make test-cluster`, which names the folder, runs them.
collect_ignore = ["cluster"]


@pytest.fixture(scope="session", autouse=True)
def _no_worker_outlives_the_session() -> Iterator[None]:
    yield
    close_pool()
