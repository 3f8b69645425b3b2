"""The workers of `run_ranks` live as long as the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ranks import close_pool


@pytest.fixture(scope="session", autouse=True)
def _no_worker_outlives_the_session() -> Iterator[None]:
    yield
    close_pool()
